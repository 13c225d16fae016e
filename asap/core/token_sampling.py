"""Adaptive token sampling: which tokens are hit by inverse-transform sampling of their scores."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def class_value_scores(
    class_rows: Float[Tensor, "b heads n"], values: Float[Tensor, "b heads n d"]
) -> Float[Tensor, "b n"]:
    """Attention of the class token, summed over heads, times the norm of the value over all heads.

    Scaled to sum 1 over the given tokens. The norms take one multiply-accumulate per number in
    `values`.
    """
    whole = values.to(class_rows.dtype).transpose(1, 2).flatten(2)
    scores = class_rows.sum(1) * torch.linalg.vector_norm(whole, dim=-1)
    return scores / scores.sum(1, keepdim=True)


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
    return torch.searchsorted(total, value)  # the first of equal entries
