"""Residual and LayerNorm in one pass over the rows, which are read and written once.

The LayerNorm itself is also a part of the kernels that embed and regroup rows.
"""

from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from asap.engine.kernels.launch import jit, next_power_of_2, runs, tl


@jit
@no_type_check
def layer_norm(
    x,
    weight,
    bias,
    eps,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """LayerNorm of the first D numbers of each row of x, in float32; those behind them are 0."""
    width = tl.arange(0, WIDTH)
    mean = tl.sum(x, 1) / D
    centred = tl.where((width < D)[None, :], x - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, 1) / D
    y = centred * (1.0 / tl.sqrt(variance + eps))[:, None]
    if HAS_WEIGHT:
        y *= tl.load(weight + width, mask=width < D, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        y += tl.load(bias + width, mask=width < D, other=0.0).to(tl.float32)[None, :]
    return y


@jit(do_not_specialize=["count"])
@no_type_check
def _add_norm_kernel(
    rows,
    update,
    weight,
    bias,
    out_rows,
    out_hidden,
    count,
    eps,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_UPDATE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """ROWS rows of D numbers. The norm sees the sum as it is stored, rounded to its dtype."""
    at = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    width = tl.arange(0, WIDTH)
    numbers = (width < D)[None, :]
    inside = (at < count)[:, None] & numbers
    place = at[:, None] * D + width[None, :]
    x = tl.load(rows + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_UPDATE:
        x += tl.load(update + place, mask=inside, other=0.0).to(tl.float32)
        stored = x.to(out_rows.dtype.element_ty)
        tl.store(out_rows + place, stored, mask=inside)
        x = stored.to(tl.float32)
    y = layer_norm(x, weight, bias, eps, D, WIDTH, HAS_WEIGHT, HAS_BIAS)
    tl.store(out_hidden + place, y.to(out_hidden.dtype.element_ty), mask=inside)


def add_norm(
    rows: Float[Tensor, "rows dim"],
    update: Float[Tensor, "rows dim"] | None,
    weight: Float[Tensor, "dim"] | None,
    bias: Float[Tensor, "dim"] | None,
    eps: float,
    out_rows: Float[Tensor, "rows dim"] | None = None,
    out_hidden: Float[Tensor, "rows dim"] | None = None,
) -> tuple[Float[Tensor, "rows dim"], Float[Tensor, "rows dim"]]:
    """(rows + update, LayerNorm of that). Without an update, `rows` itself is the first of them.

    Everything is contiguous and of one dtype; mean and variance are float32. `out_rows` may be
    `rows` or `update`.
    """
    count, dim = rows.shape
    if update is None:
        out_rows = rows
    elif out_rows is None:
        out_rows = torch.empty_like(rows)
    out_hidden = torch.empty_like(rows) if out_hidden is None else out_hidden
    if not runs(rows):
        if update is not None:
            torch.add(rows, update, out=out_rows)
        out_hidden.copy_(F.layer_norm(out_rows, (dim,), weight, bias, eps))
        return out_rows, out_hidden
    width = next_power_of_2(dim)
    at_once = max(1, min(16, 2048 // width))
    _add_norm_kernel[(-(-count // at_once),)](
        rows,
        rows if update is None else update,
        rows if weight is None else weight,
        rows if bias is None else bias,
        out_rows,
        out_hidden,
        count,
        eps,
        D=dim,
        WIDTH=width,
        ROWS=at_once,
        HAS_UPDATE=update is not None,
        HAS_WEIGHT=weight is not None,
        HAS_BIAS=bias is not None,
        num_warps=4,
    )
    return out_rows, out_hidden
