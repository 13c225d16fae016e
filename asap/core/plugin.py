"""The plug-in stage for extreme budgets (paper, Algorithm 2)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.order import ranks


def row_distances(rows: Float[Tensor, "b patches n"]) -> Float[Tensor, "b patches patches"]:
    """`D(i, j) = ||P(i, :) - P(j, :)||_2` between all rows."""
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def cosine_distances(metric: Float[Tensor, "b patches d"]) -> Float[Tensor, "b patches patches"]:
    """1 - cosine between all rows."""
    unit = metric / metric.norm(dim=-1, keepdim=True)
    return 1 - unit @ unit.transpose(1, 2)


def thin(
    distance: Float[Tensor, "b patches patches"],
    scores: Float[Tensor, "b patches"],
    foreground: Bool[Tensor, "b patches"],
    budget: int,
    best: int,
    per_round: int,
) -> tuple[Bool[Tensor, "b patches"], Int[Tensor, "b"]]:
    """The foreground patches that stay, at most `budget`, and the number of distances compared.

    Step A: the `best` patches by score stay. Step B is repeated until the budget is met: the other
    patches, in the order of their indices, are split into even and odd positions. Each even one is
    matched to the nearest odd one, and the even ones with the smallest distances are dropped, at
    most `per_round` in a round. If only one patch is left, it is dropped without a distance.
    """
    excess = (foreground.sum(1, keepdim=True) - budget).clamp(min=0)
    ranked = ranks(scores.masked_fill(~foreground, float("-inf")), descending=True)
    others = foreground & (ranked >= best)
    safe, pairs = foreground & ~others, torch.zeros_like(excess)
    for _ in range(_rounds(foreground.shape[1], budget, best, per_round)):
        dropped, looked_at = _round(distance, others, excess.clamp(max=per_round))
        others = others & ~dropped
        pairs = pairs + torch.where(excess > 0, looked_at, 0)
        excess = excess - dropped.sum(1, keepdim=True)
    return safe | others, pairs[:, 0]


def _rounds(patches: int, budget: int, best: int, per_round: int) -> int:
    """Rounds that suffice for every image: those of one whose patches are all foreground.

    Their number is known beforehand, so the device need not be read after each round; further
    rounds drop nothing.
    """
    excess, others, rounds = patches - budget, patches - best, 0
    while excess > 0:
        dropped = min(excess, per_round, (others + 1) // 2)
        excess, others, rounds = excess - dropped, others - dropped, rounds + 1
    return rounds


def _round(
    distance: Float[Tensor, "b patches patches"],
    others: Bool[Tensor, "b patches"],
    limit: Int[Tensor, "b 1"],
) -> tuple[Bool[Tensor, "b patches"], Int[Tensor, "b 1"]]:
    """The even patches to drop in one round, and the number of pairs (even, odd) compared."""
    place = others.long().cumsum(1) - 1
    even, odd = others & (place % 2 == 0), others & (place % 2 == 1)
    nearest = distance.masked_fill(~odd[:, None], float("inf")).amin(2)
    last = torch.finfo(nearest.dtype).max  # without a partner: larger than any distance
    nearest = nearest.nan_to_num(nan=last, posinf=last).masked_fill(~even, float("inf"))
    pairs = even.sum(1, keepdim=True) * odd.sum(1, keepdim=True)
    return even & (ranks(nearest) < limit), pairs
