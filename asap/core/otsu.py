"""The number of clusters from an image's own distances. An extension of ours, not the paper's."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.order import first_argmax

MOST_CLUSTERS = 64


def otsu_threshold(
    normalised: Float[Tensor, "b patches"], anchor: Int[Tensor, "b"]
) -> Float[Tensor, "b"]:
    """The cut that separates near and far patches best, in float64 (Otsu, 1979).

    The sorted distances of all patches but the anchor are cut into two groups so that `n_near n_far
    (mean_near - mean_far)^2` is largest; of equal cuts the lowest one is taken. The
    threshold lies halfway between the two distances at the cut; 0 if all distances are equal.
    """
    others = normalised.double().scatter(1, anchor[:, None], float("inf"))
    others = others.sort(dim=1, stable=True).values[:, :-1]
    count = others.shape[1]
    if count < 2:
        return torch.zeros_like(others[:, 0])
    low, high = others[:, :-1], others[:, 1:]
    near = torch.arange(1, count, device=others.device)
    sums = others.cumsum(1)
    gap = sums[:, :-1] / near - (sums[:, -1:] - sums[:, :-1]) / (count - near)
    between = (near * (count - near) * gap.square()).masked_fill(low == high, -1.0)
    cut = first_argmax(between)[:, None]
    found = (low.gather(1, cut) + high.gather(1, cut))[:, 0] / 2
    return torch.where(low[:, 0] < high[:, -1], found, torch.zeros_like(found))


def clusters_for(threshold: Float[Tensor, "b"], background: int) -> Int[Tensor, "b"]:
    """The K in k + 1 .. MOST_CLUSTERS whose background edge k/K is nearest to the threshold.

    k = `background`. If several K are equally near, the smallest one.
    """
    clusters = torch.arange(background + 1, MOST_CLUSTERS + 1, device=threshold.device)
    gaps = (background / clusters.double() - threshold[:, None].double()).abs()
    return clusters[first_argmax(-gaps)]
