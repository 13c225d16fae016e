"""Orders of the scores of each image by one sort, ties to the lowest index, for up to 4,096 scores.

One program sorts one image: the key of a score is its bits, turned so that integers are in the
order of the numbers, and its index. As in torch, NaN counts as larger than all numbers.
"""

from typing import no_type_check

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from asap.engine.kernels.launch import jit, next_power_of_2, runs, tl

MOST = 4096


@jit
@no_type_check
def keys_of(scores, known, WIDTH: tl.constexpr, DESCENDING: tl.constexpr):
    """Keys of WIDTH float32 scores by index, those of unknown ones the largest; all differ, and
    key % WIDTH is the index.
    """
    index = tl.arange(0, WIDTH)
    bits = tl.where(scores == 0, 0.0, scores).to(tl.int32, bitcast=True)  # -0.0 equals 0.0
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    bits = tl.where(scores == scores, bits, 0x7FFFFFFF)
    if DESCENDING:
        bits = -1 - bits
    keys = (bits.to(tl.int64) + 2147483648) * WIDTH + index
    return tl.where(known, keys, 9223372036854775807)


@jit(do_not_specialize=["n", "keep", "prefix"])
@no_type_check
def _ranking_kernel(
    scores,
    out,
    n,
    keep,
    prefix,
    row,
    column,
    WIDTH: tl.constexpr,
    DESCENDING: tl.constexpr,
    TARGET: tl.constexpr,
):
    """Ranks of one image's scores, or with TARGET the positions that keep the best ones."""
    image = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, WIDTH)
    known = place < n
    values = tl.load(scores + image * row + place * column, mask=known, other=0.0)
    index = tl.sort(keys_of(values, known, WIDTH, DESCENDING)) % WIDTH
    out += image * (n + prefix)
    rank = place.to(tl.int64)
    if TARGET:
        tl.store(out + place, rank, mask=place < prefix)
        rank = tl.where(place < keep, rank + prefix, -1)
    tl.store(out + prefix + index, rank, mask=known)


def ranks(scores: Float[Tensor, "b n"], descending: bool = False) -> Int64[Tensor, "b n"] | None:
    """As `asap.core.order.ranks`; None where the kernel does not take the scores."""
    if not _takes(scores):
        return None
    out = torch.empty(scores.shape, dtype=torch.int64, device=scores.device)
    _launch(scores, out, 0, 0, descending, False)
    return out


def ranked_target(
    scores: Float[Tensor, "b patches"], keep: int, prefix: int
) -> Int64[Tensor, "b n"] | None:
    """As `asap.core.ranking.ranked_target`; None where the kernel does not take the scores."""
    if not _takes(scores):
        return None
    b, patches = scores.shape
    out = torch.empty(b, prefix + patches, dtype=torch.int64, device=scores.device)
    _launch(scores, out, keep, prefix, True, True)
    return out


def _takes(scores: Float[Tensor, "b n"]) -> bool:
    return runs(scores) and scores.dtype == torch.float32 and scores.shape[1] <= MOST


def _launch(
    scores: Tensor, out: Tensor, keep: int, prefix: int, descending: bool, target: bool
) -> None:
    b, n = scores.shape
    _ranking_kernel[(b,)](
        scores,
        out,
        n,
        keep,
        prefix,
        *scores.stride(),
        WIDTH=next_power_of_2(n, 16),
        DESCENDING=descending,
        TARGET=target,
        num_warps=4 if n <= 256 else 16,
    )
