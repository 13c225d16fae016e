"""Bipartite soft matching (ToMe) in few launches: nearest partners, then ranks and positions.

Written from the published description, as `asap.core.matching`, whose answers these are, up to the
rounding of similarities: even tokens against odd ones in float32, the first of equal partners.
"""

from typing import no_type_check

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from asap.engine.kernels.launch import jit, next_power_of_2, runs, tl
from asap.engine.kernels.ranking import MOST, keys_of

WIDEST = 128  # channels of a metric
TILE = 32  # even tokens of a program, and odd ones that it looks at together


@jit(do_not_specialize=["heads"])
@no_type_check
def _mean_kernel(
    keys,
    out,
    heads,
    n,
    image_stride,
    head_stride,
    row,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The mean over heads of some tokens' keys."""
    image = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    width = tl.arange(0, WIDTH)
    inside = (rows < n)[:, None] & (width < D)[None, :]
    at = keys + image * image_stride + rows[:, None] * row + width[None, :]
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    for head in range(heads):
        total += tl.load(at + head * head_stride, mask=inside, other=0.0).to(tl.float32)
    to = out + image * n * D + rows[:, None] * D + width[None, :]
    tl.store(to, tl.div_rn(total, tl.zeros_like(total) + heads), mask=inside)


@jit(do_not_specialize=["n", "prefix"])
@no_type_check
def _partner_kernel(
    metric,
    best,
    partner,
    n,
    prefix,
    metric_image,
    metric_row,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
):
    """The most similar odd token of TILE even ones, and their cosine."""
    image = tl.program_id(1).to(tl.int64)
    metric += image * metric_image
    evens, odds = (n + 1) // 2, n // 2
    even = tl.program_id(0) * TILE + tl.arange(0, TILE)
    width = tl.arange(0, WIDTH)
    real = width < D
    left = tl.load(
        metric + (2 * even)[:, None] * metric_row + width[None, :],
        mask=(even < evens)[:, None] & real[None, :],
        other=0.0,
    ).to(tl.float32)
    size = tl.sqrt_rn(tl.sum(left * left, 1))
    left = tl.div_rn(left, tl.where(even < evens, size, 1.0)[:, None] + tl.zeros_like(left))
    highest = tl.full((TILE,), -2.0, tl.float32)  # below every cosine, above a prefix token's
    to = tl.zeros((TILE,), tl.int32)
    for start in range(0, odds, TILE):
        odd = start + tl.arange(0, TILE)
        right = tl.load(
            metric + (2 * odd + 1)[None, :] * metric_row + width[:, None],
            mask=(odd < odds)[None, :] & real[:, None],
            other=0.0,
        ).to(tl.float32)
        length = tl.sqrt_rn(tl.sum(right * right, 0))
        right = tl.div_rn(right, tl.where(odd < odds, length, 1.0)[None, :] + tl.zeros_like(right))
        cosine = tl.dot(left, right, input_precision="tf32x3")  # 22 bits, on tensor cores
        free = (odd < odds) & (odd >= prefix // 2)
        cosine = tl.where(free[None, :], cosine, float("-inf"))
        top = tl.max(cosine, 1)
        where = tl.min(tl.where(cosine == top[:, None], odd[None, :], 2147483647), 1)
        better = (top > highest) & (where < odds)
        to = tl.where(better, where, to)
        highest = tl.where(better, top, highest)
    highest = tl.where(even < (prefix + 1) // 2, float("-inf"), highest)
    tl.store(best + image * evens + even, highest, mask=even < evens)
    tl.store(partner + image * evens + even, to, mask=even < evens)


@jit(do_not_specialize=["n", "r", "prefix"])
@no_type_check
def _position_kernel(best, partner, target, n, r, prefix, HALF: tl.constexpr):
    """Output positions of one image's tokens: prefix, unmerged even ones, odd ones."""
    image = tl.program_id(0).to(tl.int64)
    evens = (n + 1) // 2
    best += image * evens
    partner += image * evens
    target += image * n
    place = tl.arange(0, HALF)
    known = place < evens
    scores = tl.load(best + place, mask=known, other=0.0)
    keys = keys_of(scores, known, HALF, True)
    last = tl.sum(tl.where(place == r - 1, tl.sort(keys), 0), 0)  # the key of the r-th best
    source = known & (keys <= last) & (r > 0)
    stays = known & (source == 0)
    front = (place < (prefix + 1) // 2) & known  # even prefix tokens keep their places
    free = stays & (front == 0)
    at = tl.where(front, 2 * place, prefix + tl.cumsum(free.to(tl.int32), 0) - 1)
    offset = prefix + tl.sum(free.to(tl.int32), 0) - prefix // 2  # of odd tokens
    to = tl.load(partner + place, mask=known, other=0)
    joined = tl.where(to < prefix // 2, 2 * to + 1, offset + to)
    tl.store(target + 2 * place, tl.where(source, joined, at).to(tl.int64), mask=known)
    odd = tl.where(place < prefix // 2, 2 * place + 1, offset + place)
    tl.store(target + 2 * place + 1, odd.to(tl.int64), mask=place < n // 2)


def bipartite_matching(
    metric: Float[Tensor, "b n d"], r: int, prefix: int
) -> Int64[Tensor, "b n"] | None:
    """As `asap.core.matching.bipartite_matching`; None where the kernels do not take the metric."""
    b, n, d = metric.shape
    if not runs(metric) or d > WIDEST or n > MOST or n < 2 or metric.stride(2) != 1:
        return None
    evens = (n + 1) // 2
    best = torch.empty(b, evens, dtype=torch.float32, device=metric.device)
    partner = torch.empty(b, evens, dtype=torch.int32, device=metric.device)
    target = torch.empty(b, n, dtype=torch.int64, device=metric.device)
    _partner_kernel[(-(-evens // TILE), b)](
        metric,
        best,
        partner,
        n,
        prefix,
        *metric.stride()[:2],
        D=d,
        WIDTH=next_power_of_2(d, 16),
        TILE=TILE,
        num_warps=4,
    )
    half = next_power_of_2(evens, 16)
    _position_kernel[(b,)](
        best, partner, target, n, r, prefix, HALF=half, num_warps=4 if half <= 256 else 8
    )
    return target


def mean_of_heads(keys: Float[Tensor, "b heads n d"]) -> Float32[Tensor, "b n d"] | None:
    """As `asap.core.matching.mean_of_heads`; None where the kernel does not take the keys."""
    b, heads, n, d = keys.shape
    if not runs(keys) or keys.stride(3) != 1:
        return None
    out = torch.empty(b, n, d, dtype=torch.float32, device=keys.device)
    width = next_power_of_2(d, 16)
    rows = max(1, 2048 // width)
    _mean_kernel[(-(-n // rows), b)](
        keys, out, heads, n, *keys.stride()[:3], D=d, WIDTH=width, ROWS=rows, num_warps=4
    )
    return out
