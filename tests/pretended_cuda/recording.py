"""A recorded CUDA graph: the operators of a capture, run again on the same memory.

As on a device, a capture changes no memory; what it allocates stays the graph's own, and what it
uses from elsewhere it knows by its address alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from .tensor import garbage


@contextmanager
def on_the_host() -> Iterator[None]:
    """Operators run as they are, without the device that is pretended."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        yield


@dataclass(frozen=True)
class Address:
    """A tensor in memory that belongs to somebody else, who may free it."""

    storage: StorageWeakRef
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @staticmethod
    def of(x: Tensor) -> "Address":
        where = StorageWeakRef(x.untyped_storage())
        return Address(where, x.dtype, tuple(x.shape), x.stride(), int(x.storage_offset()))

    def tensor(self) -> Tensor:
        """RuntimeError if the memory was freed."""
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        if storage is None:
            raise RuntimeError("a CUDA graph is replayed whose memory was freed")
        made = torch.empty(0, dtype=self.dtype)
        return made.set_(storage, self.offset, self.shape, self.strides)


@dataclass
class Recording:
    """The operators between the begin and the end of a capture."""

    steps: list[tuple[str, Callable[..., Any], Any, Any]] = field(default_factory=list)
    made: list[Tensor] = field(default_factory=list)
    constants: list[Tensor] = field(default_factory=list)
    own: set[int] = field(default_factory=set)  # where the memory is that it allocated
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # memory as it was

    def save(self, tensors: list[Tensor]) -> None:
        """Remember what is in memory that is about to be written."""
        for x in tensors:
            storage = x.untyped_storage()
            if storage.data_ptr() not in self.own and storage.data_ptr() not in self.kept:
                whole = torch.empty(0, dtype=torch.uint8).set_(storage)
                self.kept[storage.data_ptr()] = whole, whole.clone()

    def hold(self, numbers: list[Tensor]) -> None:
        """Keep numbers of the host, which a graph has in itself."""
        self.constants += numbers
        self.own |= {_place(x) for x in numbers}

    def add(self, name: str, work: Callable[..., Any] | None, args: Any, found: Any) -> None:
        """An operator that was run: `args` are its CPU tensors, `found` what it gave. work: None
        if there is nothing to do but to have memory.
        """
        given = {_place(x) for x in tree_leaves(args) if isinstance(x, Tensor)}
        results = [x for x in tree_leaves(found) if isinstance(x, Tensor)]
        fresh = [x for x in results if _place(x) not in given]
        self.made += fresh
        self.own |= {_place(x) for x in fresh}
        if work is not None:
            self.steps.append((name, work, args, found))

    def end(self) -> None:
        """Undo what the capture wrote, and forget by name what belongs to others."""
        for whole, before in self.kept.values():
            whole.copy_(before)
        for x in self.made:
            garbage(x)
        self.kept.clear()

        def known(x: Tensor) -> Tensor | Address:
            return x if _place(x) in self.own else Address.of(x)

        self.steps = [
            (name, work, tree_map_only(Tensor, known, args), tree_map_only(Tensor, known, found))
            for name, work, args, found in self.steps
        ]

    def replay(self) -> None:
        """Run every operator again, its results into the memory of the first ones."""
        with torch.inference_mode(), on_the_host():
            for _, work, args, found in self.steps:
                again = work(*tree_map_only(Address, Address.tensor, args))
                for to, value in zip(tree_leaves(found), tree_leaves(again), strict=True):
                    if isinstance(to, Tensor) and to.data_ptr() != value.data_ptr():
                        to.copy_(value)


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
