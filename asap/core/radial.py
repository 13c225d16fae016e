"""Radial clustering: from distances to the anchor to cluster indices (paper, Eq. 5)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.order import ranks


def normalise(
    distance: Float[Tensor, "b patches"], anchor: Int[Tensor, "b"], mode: str = "minmax_others"
) -> Float[Tensor, "b patches"]:
    """Distances scaled to [0, 1]; all 0 if they are all equal.

    "minmax_others" takes minimum and maximum over the patches other than the anchor, whose own
    distance stays 0. "max" divides by the maximum (the same as min-max over all, since the anchor's
    is 0).
    """
    highest = distance.amax(1, keepdim=True)
    lowest = torch.zeros_like(highest)
    if mode == "minmax_others":
        others = distance.scatter(1, anchor[:, None], float("inf"))
        lowest = others.amin(1, keepdim=True)
    spread = highest - lowest
    scaled = ((distance - lowest) / spread).clamp(0, 1)
    return torch.where(spread > 0, scaled, torch.zeros_like(scaled))


def width_bins(
    normalised: Float[Tensor, "b patches"], clusters: int | Int[Tensor, "b"]
) -> Int[Tensor, "b patches"]:
    """Equal-width bins: `c_i = min(floor(K d_i), K - 1)` (Eq. 5). K may differ by image."""
    if isinstance(clusters, int):
        clusters = torch.full_like(normalised[:, 0], clusters, dtype=torch.int64)
    count = clusters.view(-1, 1)
    return (normalised * count).floor().long().minimum(count - 1)


def rank_bins(
    distance: Float[Tensor, "b patches"], anchor: Int[Tensor, "b"], clusters: int
) -> Int[Tensor, "b patches"]:
    """Equal-count bins over ranks: the anchor has rank 0, ties go to the lowest index."""
    patches = distance.shape[1]
    ranked = distance.scatter(1, anchor[:, None], -1.0)
    return ranks(ranked) * clusters // patches


def patches_within(background: int, clusters: int, patches: int) -> int:
    """How many patches the first `background` of `clusters` rank bins hold: `ceil(k P / K)`."""
    return -(-background * patches // clusters)
