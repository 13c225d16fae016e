"""The attention of each image's first token alone, without an N x N map."""

from typing import no_type_check

import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from asap.engine.kernels.launch import LOG2_E, jit, next_power_of_2, runs, tl


@jit(do_not_specialize=["longest"], do_not_specialize_on_alignment=["bias", "offsets"])
@no_type_check
def _class_row_kernel(
    q,
    k,
    bias,
    offsets,
    out,
    q_row,
    q_head,
    k_row,
    k_head,
    longest,
    heads,
    log2_scale,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """One head of one image: scores with their running sum, then shares in their place."""
    head = tl.program_id(0)
    image = tl.program_id(1)
    first = tl.load(offsets + image).to(tl.int64)
    n = (tl.load(offsets + image + 1) - first).to(tl.int32)
    width = tl.arange(0, WIDTH)
    k_image = k + first * k_row + head * k_head
    found = out + (image.to(tl.int64) * heads + head) * longest
    query = tl.load(
        q + first * q_row + head * q_head + width, mask=(width < D) & (n > 0), other=0.0
    )
    query = query.to(tl.float32) * log2_scale
    highest = tl.full((1,), float("-inf"), tl.float32)
    total = tl.zeros((1,), tl.float32)
    for at in range(0, n, COLUMNS):
        columns = at + tl.arange(0, COLUMNS)
        keys = tl.load(
            k_image + columns[:, None] * k_row + width[None, :],
            mask=(columns < n)[:, None] & (width < D)[None, :],
            other=0.0,
        )
        scores = tl.sum(keys.to(tl.float32) * query[None, :], 1)
        if HAS_BIAS:
            added = tl.load(bias + first + columns, mask=columns < n, other=0.0)
            scores += added * 1.4426950408889634
        tl.store(found + columns, scores, mask=columns < n)
        scores = tl.where(columns < n, scores, float("-inf"))
        new = tl.maximum(highest, tl.max(scores, 0))
        total = total * tl.exp2(highest - new) + tl.sum(tl.exp2(scores - new), 0)
        highest = new
    tl.debug_barrier()  # the scores are read by other threads than those that wrote them
    for at in range(0, longest, COLUMNS):
        columns = at + tl.arange(0, COLUMNS)
        scores = tl.load(found + columns, mask=columns < n, other=float("-inf"))
        shares = tl.where(columns < n, tl.exp2(scores - highest) / total, 0.0)
        tl.store(found + columns, shares, mask=columns < longest)


def class_row(
    q: Float[Tensor, "rows heads d"],
    k: Float[Tensor, "rows heads d"],
    offsets: Int32[Tensor, "images_1"],
    longest: int,
    scale: float,
    bias: Float32[Tensor, "rows"] | None = None,
    heads_mean: bool = False,
) -> Float32[Tensor, "images heads longest"] | Float32[Tensor, "images longest"]:
    """softmax(scale q k^T + bias) of the first token of every image: by head, or their mean.

    q, k, bias and offsets are those of `ragged_attention`; sums are float32 (float64 if q is).
    Behind an image's last token there are zeros, up to `longest` columns.
    """
    images, (_, heads, d) = len(offsets) - 1, q.shape
    kind = torch.promote_types(q.dtype, torch.float32)
    out = torch.empty(images, heads, longest, dtype=kind, device=q.device)
    if not runs(q):
        _plain(q, k, offsets, scale, bias, out)
        return out.mean(1) if heads_mean else out
    _class_row_kernel[(heads, images)](
        q,
        k,
        out if bias is None else bias,
        offsets,
        out,
        *(stride for x in (q, k) for stride in x.stride()[:2]),
        longest,
        heads,
        scale * LOG2_E,
        D=d,
        WIDTH=next_power_of_2(d, 16),
        COLUMNS=64,
        HAS_BIAS=bias is not None,
        num_warps=4,
    )
    return out.mean(1) if heads_mean else out


def _plain(
    q: Float[Tensor, "rows heads d"],
    k: Float[Tensor, "rows heads d"],
    offsets: Int32[Tensor, "images_1"],
    scale: float,
    bias: Float[Tensor, "rows"] | None,
    out: Float[Tensor, "images heads longest"],
) -> None:
    """The same, image by image."""
    out.zero_()
    bounds = offsets.tolist()
    for image, start in enumerate(bounds[:-1]):
        rows = slice(start, bounds[image + 1])
        if rows.stop == start:
            continue
        scores = torch.einsum("hd,jhd->hj", q[start].to(out.dtype), k[rows].to(out.dtype)) * scale
        if bias is not None:
            scores += bias[rows]
        out[image, :, : rows.stop - start] = scores.softmax(-1)
