"""Stands for CUDA graphs on a CPU: replays by running the first closure of a key again.

So whatever a recording took from its first call shows: a stale number, image or layout. A replay
that creates a tensor from numbers of the host, or reads one, raises: a CUDA graph cannot do so.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")
aten = torch.ops.aten
OF_THE_HOST = (
    aten.lift_fresh,  # torch.tensor(numbers), torch.from_numpy
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
)


class Alone(TorchDispatchMode):
    """RuntimeError for an operator that needs the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        flags = packet in (aten.index, aten.index_put, aten.index_put_) and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        number = packet == aten.lift_fresh and args[0].dim() == 0  # such as in x[i] = 1.0
        if (packet in OF_THE_HOST and not number) or flags:
            raise RuntimeError(f"{packet} needs the host, and this is replayed without it")
        return func(*args, **(kwargs or {}))


class FakeGraphs:
    """A recorder; `recorded` counts recordings, `replayed` replays. strict: the host is refused."""

    def __init__(self, strict: bool = True) -> None:
        self.recorded = self.replayed = 0
        self.mode = Alone if strict else nullcontext

    def record(self, work: Callable[[], T]) -> Callable[[], T]:
        self.recorded += 1

        def replay() -> T:
            self.replayed += 1
            with self.mode():
                return work()

        return replay
