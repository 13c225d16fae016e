"""The reduced sequence of the images that stop, within a token budget if there is one."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.diffusion import patch_rows
from asap.core.otsu import MOST_CLUSTERS
from asap.core.plugin import cosine_distances, row_distances, thin
from asap.core.pooling import transition_weights
from asap.core.radial import patches_within
from asap.core.sampling import stride_sample
from asap.methods.asap.clusters import Clusters
from asap.methods.asap.options import AsapOptions
from asap.methods.base import Left, Site


@dataclass(frozen=True)
class Reduced:
    """Target and weight of every token (None: nothing is averaged), tokens left (one number if it
    follows from the options), and the MACs of a budget, per image.
    """

    target: Int[Tensor, "b n"]
    weight: Float[Tensor, "b n"] | None
    left: Left
    macs: int | Int[Tensor, "b"]


def reduced_sequence(
    options: AsapOptions,
    site: Site,
    matrix: Float[Tensor, "b n n"],
    clusters: Clusters,
    anchor: Int[Tensor, "b"],
) -> Reduced:
    """Prefix, foreground patches in their order, pooled token last."""
    background = clusters.index < options.background
    if not options.pool:  # where nothing is foreground, pruning leaves the anchor
        background = background.scatter(1, anchor[:, None], ~background.all(1, keepdim=True))
    kept, macs = _within_budget(options, site, matrix, clusters, ~background)
    kept = torch.nn.functional.pad(kept, (site.prefix, 0), value=True)
    target = (kept.long().cumsum(1) - 1).masked_fill(~kept, -1)
    left, weight = known_count(options, site), None
    left = kept.sum(1) if left is None else left
    if options.pool:
        pooled = torch.nn.functional.pad(background, (site.prefix, 0))
        target = torch.where(pooled, left if isinstance(left, int) else left[:, None], target)
        raw = clusters.distance if options.weights == "raw" else clusters.scaled
        shares = transition_weights(raw, background, options.temperature)
        shares = torch.where(background, shares, torch.ones_like(shares))
        weight = torch.nn.functional.pad(shares, (site.prefix, 0), value=1)
        left = left + 1
    return Reduced(target, weight, left, macs)


def known_count(options: AsapOptions, site: Site) -> int | None:
    """Tokens that stay as they are: with equal-count bins the same for all images, else None."""
    if options.binning == "width":
        return None
    patches = site.length - site.prefix
    foreground = patches - patches_within(options.background, int(options.clusters), patches)
    if not options.pool:
        foreground = max(foreground, 1)
    if options.max_tokens is not None:
        foreground = min(foreground, options.foreground_budget)
    return site.prefix + foreground


def _within_budget(
    options: AsapOptions,
    site: Site,
    matrix: Float[Tensor, "b n n"],
    clusters: Clusters,
    foreground: Bool[Tensor, "b patches"],
) -> tuple[Bool[Tensor, "b patches"], int | Int[Tensor, "b"]]:
    """The foreground patches that stay, and the MACs that choosing them took."""
    if options.max_tokens is None:
        return foreground, 0
    budget = options.foreground_budget
    if options.plugin is None:
        most = MOST_CLUSTERS if options.clusters == "auto" else int(options.clusters)
        return stride_sample(clusters.distance, clusters.index, foreground, budget, most), 0
    best = options.kappa if options.kappa is not None else (options.max_tokens + 1) // 2
    pairwise, width = _pairwise(options, site, matrix)
    rows = matrix
    if options.scores == "attention":
        assert site.attention is not None
        rows = site.attention.to(matrix.dtype)
    listed = options.pair_order == "attention"
    scores = rows[:, 0, site.prefix :]
    kept, pairs = thin(pairwise, scores, foreground, budget, best, options.per_round, listed)
    return kept, pairs * width


def _pairwise(
    options: AsapOptions, site: Site, matrix: Float[Tensor, "b n n"]
) -> tuple[Float[Tensor, "b patches patches"], int]:
    """Distances between all patches by the plug-in's metric, and the MACs of one of them."""
    if options.plugin == "diffusion":
        rows = patch_rows(matrix, site.prefix, options.distance_columns)
        return row_distances(rows), rows.shape[-1]
    if options.plugin == "features":
        metric = site.tokens.to(site.sizes.dtype)
    else:
        assert site.keys is not None
        metric = site.keys.to(site.sizes.dtype).mean(1)
    return cosine_distances(metric[:, site.prefix :]), metric.shape[-1]
