"""Radial diffusion clustering, as ASAP's options choose it."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.diffusion import distance_to_anchor, self_aligned_distance
from asap.core.otsu import clusters_for, otsu_threshold
from asap.core.radial import normalise, rank_bins, width_bins
from asap.methods.asap.options import AsapOptions


@dataclass(frozen=True)
class Clusters:
    """Patches by their distance to the anchor, and the margin of the background's edge."""

    distance: Float[Tensor, "k patches"]
    scaled: Float[Tensor, "k patches"]
    index: Int[Tensor, "k patches"]
    margin: Float[Tensor, "k"]


def cluster(
    options: AsapOptions, matrix: Float[Tensor, "k n n"], anchor: Int[Tensor, "k"], prefix: int
) -> Clusters:
    """Distances to the anchor in a transition matrix, and the clusters they make."""
    measure = distance_to_anchor if options.distance == "diffusion" else self_aligned_distance
    distance = measure(matrix, anchor, prefix, options.distance_columns)
    scaled = normalise(distance, anchor, options.normalise)
    if options.binning == "rank":
        index = rank_bins(distance, anchor, int(options.clusters))
        return Clusters(distance, scaled, index, _gap(distance, index < options.background))
    count = _count(options, scaled, anchor)
    edge = (options.background / count.double()).to(scaled.dtype)
    margin = (scaled - edge[:, None]).abs().amin(1)
    return Clusters(distance, scaled, width_bins(scaled, count), margin)


def _count(
    options: AsapOptions, scaled: Float[Tensor, "k patches"], anchor: Int[Tensor, "k"]
) -> Int[Tensor, "k"]:
    """The number of clusters K of every image."""
    if options.clusters == "auto":
        return clusters_for(otsu_threshold(scaled, anchor), options.background)
    return torch.full_like(anchor, int(options.clusters))


def _gap(
    distance: Float[Tensor, "k patches"], inside: Bool[Tensor, "k patches"]
) -> Float[Tensor, "k"]:
    """The distance between the farthest patch inside and the nearest one outside."""
    nearest = distance.masked_fill(inside, float("inf")).amin(1)
    return nearest - distance.masked_fill(~inside, float("-inf")).amax(1)
