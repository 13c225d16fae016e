"""The first layer of an MLP with its exact GELU, x Phi(x), in one kernel.

A library's fused GELU is the approximation by tanh, which is another function.
"""

from typing import Any, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from asap.engine.kernels.launch import jit, much_shared_memory, runs, tl, upcasts


@jit
@no_type_check
def _gelu(x):
    """x / 2 (1 + erf(x / sqrt 2)). The complement of erf is formula 7.1.26 of Abramowitz and Stegun
    (error at most 1.5e-7), which for negative x does not cancel: below half precision everywhere.
    """
    z = tl.abs(x) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * z)
    polynomial = -1.453152027 + t * 1.061405429
    polynomial = 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * polynomial))
    tail = 0.5 * x * t * polynomial * tl.exp2(-1.4426950408889634 * z * z)
    return tl.where(x > 0, x - tail, tail)


@jit(do_not_specialize=["rows"])
@no_type_check
def _linear_gelu_kernel(
    x,
    weight,
    bias,
    out,
    rows,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """A tile of the output. Tiles of neighbouring programs share rows and columns: groups of eight
    tiles down, then one across. INPUTS and OUTPUTS are multiples of STEP and COLUMNS.
    """
    across: tl.constexpr = OUTPUTS // COLUMNS
    group = tl.program_id(0) // (8 * across)
    within = tl.program_id(0) % (8 * across)
    height = tl.minimum(tl.cdiv(rows, ROWS) - group * 8, 8)
    row = (group * 8 + within % height) * ROWS + tl.arange(0, ROWS)
    column = within // height * COLUMNS + tl.arange(0, COLUMNS)
    step = tl.arange(0, STEP)
    # Rows behind the last one read the last one and are not stored: loads without a mask.
    x_tile = x + tl.minimum(row, rows - 1).to(tl.int64)[:, None] * INPUTS + step[None, :]
    weight_tile = weight + column[None, :] * INPUTS + step[:, None]
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for _ in range(0, INPUTS, STEP):
        a, b = tl.load(x_tile), tl.load(weight_tile)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        sums = tl.dot(a, b, sums)
        x_tile += STEP
        weight_tile += STEP
    if HAS_BIAS:
        sums += tl.load(bias + column).to(tl.float32)[None, :]
    place = row.to(tl.int64)[:, None] * OUTPUTS + column[None, :]
    tl.store(out + place, _gelu(sums).to(out.dtype.element_ty), mask=(row < rows)[:, None])


def linear_gelu(
    x: Float[Tensor, "rows inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, "outputs"] | None,
    out: Float[Tensor, "rows outputs"] | None = None,
    **tile: int,
) -> Float[Tensor, "rows outputs"]:
    """gelu(x weight^T + bias), contiguous, with sums in float32.

    The kernel takes half precision and widths that its tiles divide; else it is the library's
    product, then GELU. `tile` overrides how the work is cut (ROWS, COLUMNS, STEP, num_warps,
    num_stages).
    """
    (rows, inputs), outputs = x.shape, len(weight)
    if out is None:
        out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    how = tile_of(rows, inputs, outputs) | tile
    fits = inputs % how["STEP"] == 0 and outputs % how["COLUMNS"] == 0
    if not fits or x.dtype.itemsize != 2 or not runs(x):
        torch.ops.aten.gelu.out(F.linear(x, weight, bias), out=out)
        return out
    _linear_gelu_kernel[(-(-rows // how["ROWS"]) * (outputs // how["COLUMNS"]),)](
        x,
        weight,
        weight if bias is None else bias,
        out,
        rows,
        INPUTS=inputs,
        OUTPUTS=outputs,
        HAS_BIAS=bias is not None,
        UPCAST=upcasts(x),
        **how,
    )
    return out


def tile_of(rows: int, inputs: int, outputs: int) -> dict[str, Any]:
    """How the output is cut: into large tiles if there are enough of them for a device's cores, and
    where these fit into shared memory.
    """
    step = 64 if inputs % 64 == 0 else 32
    if outputs % 128 or rows * outputs < 128 * 128 * 128:
        return {"ROWS": 64, "COLUMNS": 64, "STEP": step, "num_warps": 4, "num_stages": 4}
    if outputs % 256 or not much_shared_memory():
        return {"ROWS": 128, "COLUMNS": 128, "STEP": 32, "num_warps": 8, "num_stages": 4}
    return {"ROWS": 128, "COLUMNS": 256, "STEP": step, "num_warps": 8, "num_stages": 3}
