"""Which tensors an operator takes on a CUDA device, and which operators make the host wait."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .tensor import Pretended

aten = torch.ops.aten
READS = {  # operators whose result, or its shape, the host needs
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
    aten.linalg_eigh,
    aten._linalg_eigh,
    aten._linalg_svd,
    aten.multinomial,
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index}
SCALARS = {  # take a number that is a tensor without dimensions on the CPU, beside pointwise ones
    aten.fill_,
    aten.fill,
    aten.masked_fill,
    aten.masked_fill_,
    aten.index_put,
    aten.index_put_,
    aten.index_fill,
    aten.index_fill_,
}
PRODUCTS = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.mv, aten.addmv, aten.dot}
COPIES = {aten.copy_, aten._to_copy, aten.copy}


LIKE = {aten.empty_like, aten.zeros_like, aten.ones_like, aten.full_like, aten.randn_like}
LIKE |= {aten.new_empty, aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty_strided}


def flags_among(args: Any) -> bool:
    """Whether an indexing operator gets flags, whose number the host needs."""
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def waits(func: Any, args: Any, kwargs: Any) -> str | None:
    """Why the host waits for the device in this operator; None: it does not."""
    packet = func.overloadpacket
    if packet in READS:
        return str(packet)
    if packet is aten.repeat_interleave and kwargs.get("output_size") is None:
        return f"{packet} without output_size"
    if packet in INDEXING and flags_among(args) and not _fills(args):
        return f"{packet} by flags"
    return None


def _fills(args: Any) -> bool:
    """Whether one number of the host goes wherever flags are set: torch fills by a mask."""
    value = args[2] if len(args) > 2 else None
    kinds = {i.dtype for i in args[1] if isinstance(i, Tensor)}
    one = isinstance(value, Tensor) and value.numel() == 1 and not isinstance(value, Pretended)
    return one and kinds <= {torch.bool, torch.uint8} and not any(args[3:4])


def index_on_host(func: Any, args: Any) -> bool:
    """Whether indices come from the host, which torch allows and copies."""
    if func.overloadpacket not in INDEXING:
        return False
    return any(isinstance(i, Tensor) and not isinstance(i, Pretended) for i in args[1])


def refused(func: Any, args: Any, kwargs: Any) -> str | None:
    """Why CUDA does not take these arguments; None: it does. Copies are not asked about,
    and what is like another tensor may be elsewhere."""
    packet = func.overloadpacket
    if packet in LIKE:
        return None
    held = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    if packet in PRODUCTS and not all(x.is_floating_point() for x in held):
        return f'"{packet}" is not implemented on CUDA for {held[0].dtype}'
    if packet is aten._cdist_forward and held[0].dtype not in (torch.float32, torch.float64):
        return f'"{packet}" is not implemented on CUDA for {held[0].dtype}'
    if packet in INDEXING:  # indices may be on the host
        held = [x for x in (args[0], *args[2:]) if isinstance(x, Tensor)]
    strangers = [x for x in held if not isinstance(x, Pretended)]
    if torch.Tag.pointwise in func.tags or packet in SCALARS:
        written = [args[0]] if func._schema.is_mutable and func._schema.name[-1] == "_" else []
        written += [kwargs["out"]] if isinstance(kwargs.get("out"), Tensor) else []
        on_host = any(not isinstance(x, Pretended) for x in written)
        strangers = [x for x in strangers if x.dim() or on_host]
    if strangers:
        shapes = ", ".join(f"{tuple(x.shape)} {x.dtype}" for x in strangers)
        return f"tensors on cuda:0 and on the CPU ({shapes}) in one operator"
    return None
