"""Stride sampling of the foreground to a token budget (paper, Algorithm 1, stage 5)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.order import ranks


def quotas(counts: Int[Tensor, "b clusters"], budget: int) -> Int[Tensor, "b clusters"]:
    """Tokens that each cluster may keep: in proportion to its size, by largest remainder.

    Clusters are ordered by distance; of equal remainders, the farther cluster gets the token. If
    the budget suffices for all tokens, all are kept.
    """
    total = counts.sum(1, keepdim=True).clamp(min=1)
    whole, remainder = counts * budget // total, counts * budget % total
    missing = budget - whole.sum(1, keepdim=True)
    served = ranks(remainder.flip(1), descending=True).flip(1) < missing
    return torch.where(total > budget, whole + served, counts)


def stride_sample(
    distance: Float[Tensor, "b patches"],
    cluster: Int[Tensor, "b patches"],
    foreground: Bool[Tensor, "b patches"],
    budget: int,
    clusters: int,
) -> Bool[Tensor, "b patches"]:
    """At most `budget` foreground patches, evenly spaced by distance within their clusters.

    Of a cluster C with quota q, sorted by distance (ties by index), the positions
    `floor((t + 1/2) |C| / q)` for t = 0 .. q - 1. `cluster` is below `clusters`.
    """
    group = torch.where(foreground, cluster, clusters)
    counts = torch.zeros_like(group[:, :1]).repeat(1, clusters + 1)
    counts.scatter_add_(1, group, torch.ones_like(group))
    quota = torch.nn.functional.pad(quotas(counts[:, :clusters], budget), (0, 1))
    first = (counts.cumsum(1) - counts).gather(1, group)
    place = _places_by_group(distance, group) - first
    return _on_stride(place, counts.gather(1, group), quota.gather(1, group))


def _places_by_group(
    distance: Float[Tensor, "b patches"], group: Int[Tensor, "b patches"]
) -> Int[Tensor, "b patches"]:
    """Places in the order by group, then distance, then index."""
    order = distance.argsort(dim=1, stable=True)
    return ranks(group.gather(1, order)).gather(1, ranks(distance))


def _on_stride(
    place: Int[Tensor, "b patches"],
    count: Int[Tensor, "b patches"],
    quota: Int[Tensor, "b patches"],
) -> Bool[Tensor, "b patches"]:
    """True where `place` is `floor((2 t + 1) count / (2 quota))` for an integer t.

    That is, where an odd multiple of the count lies in [2 quota place, 2 quota (place + 1)).
    """

    def odd_multiples_below(limit: Tensor) -> Tensor:
        return (limit + count - 1) // count // 2

    return odd_multiples_below(2 * quota * (place + 1)) > odd_multiples_below(2 * quota * place)
