"""How many tokens each group keeps, and which (Fang et al., "Prune Redundancy, Preserve Essence:
Vision Token Compression in VLMs via Synergistic Importance-Diversity", ICLR 2026: PruneSID).

Written from the published description; the constants follow the authors' code.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.order import ranks


def unsuppressed(
    similarity: Float[Tensor, "b n n"],
    rank: Int[Tensor, "b n"],
    group: Int[Tensor, "b n"],
    threshold: Float[Tensor, "b"],
) -> Bool[Tensor, "b n"]:
    """Greedy non-maximum suppression inside each group: who survives.

    In the order of `rank` (0 first), a token survives unless its similarity to a survivor of its
    group exceeds the threshold. Repeated until nothing changes: after r rounds the first r tokens
    are settled, so the answer is the greedy one.
    """
    close = similarity > threshold[:, None, None]
    close &= (group[:, :, None] == group[:, None]) & (rank[:, :, None] < rank[:, None])
    survives = torch.ones_like(rank, dtype=torch.bool)
    while True:
        after = ~(close & survives[:, :, None]).any(1)
        if torch.equal(after, survives):
            return survives
        survives = after


def group_quotas(sizes: Sequence[int], survivors: Sequence[int], tokens: int) -> list[int]:
    """Tokens that each group keeps, `tokens - 1` in all, as the class token is one of them.

    At least one of each group that has any, the others in proportion to its survivors, by rounding
    the running sum (of float32 numbers, as the authors' code does; halves to even). No group keeps
    more than its limit: its survivors, at most 5 for each 64 tokens that are begun. While all
    limits together are below `tokens`, each grows by one, up to the group's size. What limits leave
    over goes to the groups with the most survivors first. Needs `tokens - 1 <= sum(sizes)`.
    """
    most = 5 * math.ceil(tokens / 64)
    limits = [min(most, size, alive) for size, alive in zip(sizes, survivors, strict=True)]
    while sum(limits) < min(tokens, sum(sizes)):
        limits = [min(limit + 1, size) for limit, size in zip(limits, sizes, strict=True)]
    least = [min(1, size) for size in sizes]
    others = max(0, tokens - 1 - sum(least))
    alive = torch.tensor(survivors)
    running = ((alive / alive.sum()).cumsum(0) * others).round().long()
    shares = running.diff(prepend=running.new_zeros(1)).tolist()
    quotas = [min(a + b, limit) for a, b, limit in zip(least, shares, limits, strict=True)]
    for index in sorted(range(len(sizes)), key=lambda g: -survivors[g]):
        short = others + sum(least) - sum(quotas)
        quotas[index] += min(limits[index] - quotas[index], short)
    return quotas


def group_places(
    group: Int[Tensor, "b n"],
    survives: Bool[Tensor, "b n"],
    rank: Int[Tensor, "b n"],
    quotas: Int[Tensor, "b groups"],
) -> Int[Tensor, "b n"]:
    """Where each token goes: group after group, in each its survivors by rank and then the others
    by rank, as many as its quota; -1 for those beyond it."""
    n = group.shape[1]
    place = ranks(group * 2 * n + torch.where(survives, 0, n) + rank)
    sizes = torch.zeros_like(quotas).scatter_add(1, group, torch.ones_like(group))
    first = (sizes.cumsum(1) - sizes).gather(1, group)
    begins = (quotas.cumsum(1) - quotas).gather(1, group)
    inside = place - first
    return torch.where(inside < quotas.gather(1, group), begins + inside, -1)
