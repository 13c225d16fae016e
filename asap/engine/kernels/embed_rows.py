"""The sequences that enter the first block: prefix tokens, patches, positions, first LayerNorm."""

from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from asap.engine.kernels.launch import jit, next_power_of_2, runs, tl
from asap.engine.kernels.norm import layer_norm


@jit(do_not_specialize=["count"])
@no_type_check
def _embed_rows_kernel(
    patches,
    prefix,
    positions,
    weight,
    bias,
    out_rows,
    out_hidden,
    count,
    eps,
    TOKENS: tl.constexpr,
    PREFIX: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """ROWS rows of the batch. The norm sees the row as it is stored, rounded to its dtype."""
    at = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    width = tl.arange(0, WIDTH)
    numbers = (width < D)[None, :]
    inside = (at < count)[:, None] & numbers
    image, token = at // TOKENS, at % TOKENS
    is_patch = (token >= PREFIX)[:, None]
    patch = image * (TOKENS - PREFIX) + token - PREFIX
    x = tl.load(
        patches + patch[:, None] * D + width[None, :], mask=inside & is_patch, other=0.0
    ).to(tl.float32)
    place = token[:, None] * D + width[None, :]
    if PREFIX > 0:
        x += tl.load(prefix + place, mask=inside & (token < PREFIX)[:, None], other=0.0)
    x += tl.load(positions + place, mask=inside, other=0.0).to(tl.float32)
    stored = x.to(out_rows.dtype.element_ty)
    x = stored.to(tl.float32)
    y = layer_norm(x, weight, bias, eps, D, WIDTH, HAS_WEIGHT, HAS_BIAS)
    place = at[:, None] * D + width[None, :]
    tl.store(out_rows + place, stored, mask=inside)
    tl.store(out_hidden + place, y.to(out_hidden.dtype.element_ty), mask=inside)


def embed_rows(
    patches: Float[Tensor, "patches dim"],
    prefix: Float[Tensor, "prefix dim"],
    positions: Float[Tensor, "tokens dim"],
    weight: Float[Tensor, "dim"] | None,
    bias: Float[Tensor, "dim"] | None,
    eps: float,
    out_rows: Float[Tensor, "rows dim"] | None = None,
    out_hidden: Float[Tensor, "rows dim"] | None = None,
) -> tuple[Float[Tensor, "rows dim"], Float[Tensor, "rows dim"]]:
    """(tokens + positions, LayerNorm of that), packed image after image.

    `patches` are embedded, image after image; each image's tokens are the prefix tokens (none, the
    class token, registers), then its patches. A token without a position has zeros in `positions`.
    Everything is contiguous and of one dtype; mean and variance are float32.
    """
    (tokens, dim), skip = positions.shape, len(prefix)
    images = len(patches) // (tokens - skip)
    count = images * tokens
    if out_rows is None:
        out_rows = torch.empty(count, dim, dtype=patches.dtype, device=patches.device)
    out_hidden = torch.empty_like(out_rows) if out_hidden is None else out_hidden
    if not runs(patches):
        sequences = torch.cat(
            [prefix.expand(images, skip, dim), patches.view(images, tokens - skip, dim)], 1
        )
        torch.add(sequences, positions, out=out_rows.view(images, tokens, dim))
        out_hidden.copy_(F.layer_norm(out_rows, (dim,), weight, bias, eps))
        return out_rows, out_hidden
    width = next_power_of_2(dim)
    at_once = max(1, min(16, 2048 // width))
    _embed_rows_kernel[(-(-count // at_once),)](
        patches,
        prefix,
        positions,
        positions if weight is None else weight,
        positions if bias is None else bias,
        out_rows,
        out_hidden,
        count,
        eps,
        TOKENS=tokens,
        PREFIX=skip,
        D=dim,
        WIDTH=width,
        ROWS=at_once,
        HAS_WEIGHT=weight is not None,
        HAS_BIAS=bias is not None,
        num_warps=4,
    )
    return out_rows, out_hidden
