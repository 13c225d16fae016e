"""Adaptive token sampling: which tokens are hit by inverse-transform sampling of their scores."""

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor


def sampled_target(
    scores: Float[Tensor, "b patches"],
    samples: int,
    prefix: int,
    known: Int[Tensor, "b"] | None = None,
) -> tuple[Int64[Tensor, "b n"], Int64[Tensor, "b"]]:
    """Output positions of n tokens, and how many are left: the prefix, then the patches that are
    hit, by ascending score (ties by index); -1 for the others.

    known: image i has the first `known[i]` patches alone; None: all of them.
    """
    count, patches = scores.shape
    order = torch.arange(patches, device=scores.device)
    real = None if known is None else order < known[:, None]
    if real is not None:
        scores = scores.masked_fill(~real, float("inf"))
    ascending, order = scores.sort(dim=1, stable=True)
    if real is not None:
        ascending = ascending.masked_fill(~real, 0.0)
    hit = sampled(ascending, samples)
    place = (hit.long().cumsum(1) - 1 + prefix).masked_fill(~hit, -1)
    place = torch.zeros_like(order).scatter(1, order, place)
    if real is not None:
        place = place.masked_fill(~real, -1)  # if a score is NaN, it comes last
    first = torch.arange(prefix, device=scores.device).expand(count, -1)
    return torch.cat([first, place], dim=1), hit.sum(1) + prefix


def sampled(ascending: Float[Tensor, "b n"], samples: int) -> Bool[Tensor, "b n"]:
    """Which of n scores, sorted ascending, are hit by the sampling points.

    The cumulative sum is scaled to [0, 1]. `samples` points are evenly spaced from its smallest
    positive value to 1, and each takes the nearest entry, at ties the lowest index. The lowest
    score is at 0 and never taken unless it is the only one. A single point is at 1.
    """
    total = ascending.cumsum(1)
    spread = total[:, -1:] - total[:, :1]
    total = torch.where(spread > 0, (total - total[:, :1]) / spread, 1.0).contiguous()
    first = total.masked_fill(total <= 0, 1.0).amin(1, keepdim=True)
    steps = torch.arange(samples, dtype=total.dtype, device=total.device) / max(samples - 1, 1)
    points = first + (1 - first) * (steps if samples > 1 else steps + 1)
    taken = torch.zeros_like(total, dtype=torch.bool)
    return taken.scatter(1, _nearest(total, points.contiguous()), True)


def _nearest(total: Float[Tensor, "b n"], points: Float[Tensor, "b k"]) -> Tensor:
    """Index of the entry of the ascending `total` nearest to each point."""
    above = torch.searchsorted(total, points).clamp(max=total.shape[1] - 1)
    below = (above - 1).clamp(min=0)
    closer = points - total.gather(1, below) <= (total.gather(1, above) - points).abs()
    value = total.gather(1, torch.where(closer, below, above))
    first = torch.searchsorted(total, value)  # of equal entries
    return first.clamp(max=total.shape[1] - 1)  # a NaN is behind the last one
