"""The plug-in stage for extreme budgets (paper, Algorithm 2)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.order import ranks


def row_distances(rows: Float[Tensor, "b patches n"]) -> Float[Tensor, "b patches patches"]:
    """`D(i, j) = ||P(i, :) - P(j, :)||_2` between all rows."""
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def unit_rows(metric: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Every row scaled to unit length."""
    return metric / metric.norm(dim=-1, keepdim=True)


def cosine_similarities(metric: Float[Tensor, "b patches d"]) -> Float[Tensor, "b patches patches"]:
    """The cosine between all rows."""
    unit = unit_rows(metric)
    return unit @ unit.transpose(1, 2)


def cosine_distances(metric: Float[Tensor, "b patches d"]) -> Float[Tensor, "b patches patches"]:
    """1 - cosine between all rows."""
    return 1 - cosine_similarities(metric)


def thin(
    distance: Float[Tensor, "b patches patches"],
    scores: Float[Tensor, "b patches"],
    foreground: Bool[Tensor, "b patches"],
    budget: int,
    best: int,
    per_round: int,
    by_score: bool = False,
) -> tuple[Bool[Tensor, "b patches"], Int[Tensor, "b"]]:
    """The foreground patches that stay, at most `budget`, and the number of distances compared.

    Step A: the `best` patches by score stay. Step B is repeated until the budget is met: the list
    of the other patches is split into even and odd places. Each even one is matched to the nearest
    odd one, and the even ones with the smallest distances are dropped, at most `per_round` in a
    round. If only one patch is left, it is dropped without a distance.

    The list is in the order of the indices. `by_score`, as VisPruner does: it starts from the
    largest score, and goes on with the even ones that are left, the nearest first, then the odd
    ones.
    """
    excess = (foreground.sum(1, keepdim=True) - budget).clamp(min=0)
    ranked = ranks(scores.masked_fill(~foreground, float("-inf")), descending=True)
    others = foreground & (ranked >= best)
    safe, pairs = foreground & ~others, torch.zeros_like(excess)
    place = torch.where(others, ranked - best, -1) if by_score else _by_index(others)
    for _ in range(_rounds(foreground.shape[1], budget, best, per_round)):
        place, looked_at = _round(distance, place, excess.clamp(max=per_round))
        if not by_score:
            place = _by_index(place >= 0)
        pairs = pairs + torch.where(excess > 0, looked_at, 0)
        excess = excess - (others.sum(1, keepdim=True) - (place >= 0).sum(1, keepdim=True))
        others = place >= 0
    return safe | others, pairs[:, 0]


def _by_index(listed: Bool[Tensor, "b patches"]) -> Int[Tensor, "b patches"]:
    """Places in the list by index; -1 for what is not in it."""
    return torch.where(listed, listed.long().cumsum(1) - 1, -1)


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
    place: Int[Tensor, "b patches"],
    limit: Int[Tensor, "b 1"],
) -> tuple[Int[Tensor, "b patches"], Int[Tensor, "b 1"]]:
    """Places after one round, -1 for what is not in the list, and the pairs that were compared."""
    even, odd = (place >= 0) & (place % 2 == 0), (place >= 0) & (place % 2 == 1)
    nearest = distance.masked_fill(~odd[:, None], float("inf")).amin(2)
    last = torch.finfo(nearest.dtype).max  # without a partner: larger than any distance
    nearest = nearest.nan_to_num(nan=last, posinf=last).masked_fill(~even, float("inf"))
    ranked, evens = ranks(nearest), even.sum(1, keepdim=True)
    dropped = torch.minimum(limit, evens)
    behind = torch.where(odd, evens - dropped + place // 2, -1)
    after = torch.where(even & (ranked >= limit), ranked - dropped, behind)
    return after, evens * odd.sum(1, keepdim=True)
