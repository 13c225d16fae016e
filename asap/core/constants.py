"""Numbers of the host that a computation needs on its device, copied there once.

A copy from the host cannot be recorded into a CUDA graph, and every copy makes a launch wait. The
same batch layout comes back in every batch, so its numbers are kept.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Int
from torch import Tensor

MOST = 512  # tensors kept; one has as many numbers as a batch has images
_kept: OrderedDict[tuple, Tensor] = OrderedDict()
_owners: list[list[Tensor]] = []


def on_device(
    values: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.int64
) -> Int[Tensor, "n"]:
    """The numbers on the device; not to be written to, since the next call gets the same tensor.

    RuntimeError while a CUDA graph is recorded, if they are not there already: every replay would
    copy them again, from memory that the host has used for something else by then.
    """
    key = (values, device, dtype)
    found = _kept.pop(key, None)
    if found is None:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "numbers of the host are new to the device while a graph is recorded"
            )
        with torch.inference_mode(False):
            found = torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
    _kept[key] = found
    if len(_kept) > MOST:
        _kept.popitem(last=False)
    for owner in _owners:
        owner.append(found)
    return found


@contextmanager
def owned() -> Iterator[list[Tensor]]:
    """A list of the tensors that are used inside, for a graph that must keep them alive."""
    _owners.append(held := [])
    try:
        yield held
    finally:
        _owners.pop()
