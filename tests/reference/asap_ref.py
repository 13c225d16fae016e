"""ASAP on one image, in float64, in the order in which the method is told.

Lazy random walk over the attention maps, the block where a sink emerges, diffusion distances to
it, radial bins, and pooling (or pruning) of the innermost ones. Nothing clever: the whole matrix P
is formed in every block, whatever the option.

How open points are read
------------------------
* Blocks are numbered from 1. `max_block=None` is the last but one.
* The walk ends with the block where the image stops, or with `max_block`; `mass` is NaN after it.
  In overhead mode it runs to the last block.
* Without accumulation (`accumulate=False`) L* still comes from the accumulated column mass; sink,
  mass anchor and distances come from the attention map of block L* alone, not made lazy.
* The class row is row 0. A model without class token cannot have `anchor="sink"`.
* A sink is a patch index from 0; every tie goes to the lowest index.
* Rank bins: rank 0 is the sink, then the other patches by (distance, index); bin =
  floor(K * rank / n). The sink is therefore always background.
* The background is the k innermost bins; if it is all patches (all distances equal), the reduced
  sequence is the prefix and the pooled token, and without pooling the prefix alone.
* The pooled token is last and has size |B|. The sizes weight an average-pooled head, and with
  `proportional_attention` bias the keys of later blocks by their logarithm.
* The token budget, the plug-in, the further anchors and distances: see `asap_parts_ref`.
* `weights="normalised"`: the pooling weights use the distance as `normalise` scaled it.
* Margins. `margin_mass`: smallest |mass - tau| over the blocks where the stop was tested.
  `margin_bin`: distance from the background's edge, in units of the normalised distance; equal
  widths: smallest |d - k/K| over patches other than the sink; ranks: the gap between the last
  background and the first foreground patch, NaN if the edge has only the sink on its inner side.
  `margin_sink`: lead of the best anchor over the second best. `margin_budget`: the smallest gap
  that decided who stays within a budget, or which K was found; no engine records it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from . import asap_parts_ref as parts
from .macs_ref import asap_macs, backbone_macs
from .vit import Reduction, View, forward

NAN = math.nan


@dataclass(frozen=True)
class Options:
    """Every option, with the names and defaults of the engine's class."""

    alpha: float = 0.5
    tau: float = 3.0
    clusters: int | Literal["auto"] = 4
    background: int = 1
    pool: bool = True
    anchor: Literal["sink", "mass", "random", "pca", "quiet"] = "sink"
    accumulate: bool = True
    order: Literal["walk", "rollout"] = "walk"
    columns: Literal["patches", "all"] = "patches"
    min_block: int = 1
    max_block: int | None = None
    miss: Literal["dense", "force"] = "dense"
    position: Literal["after_attention", "after_block"] = "after_attention"
    distance: Literal["diffusion", "self_aligned"] = "diffusion"
    normalise: Literal["minmax_others", "max"] = "minmax_others"
    binning: Literal["width", "rank"] = "width"
    distance_columns: Literal["all", "patches"] = "all"
    temperature: float = 1.0
    weights: Literal["raw", "normalised"] = "raw"
    max_tokens: int | None = None
    plugin: Literal["diffusion", "features", "keys"] | None = None
    kappa: int | None = None
    per_round: int = 8
    proportional_attention: bool = False
    overhead: bool = False
    seed: int = 0  # not used: the drawn anchor is an argument of the reference
    scores: Literal["walk", "attention"] = "walk"
    pair_order: Literal["index", "attention"] = "index"


@dataclass(frozen=True)
class Result:
    """One image's logits and everything that was decided on the way."""

    logits: Tensor  # (classes,) float64
    stop_block: int  # 0 = never
    sink: int  # patch index, -1 = none
    assignment: list[int]  # per patch: index in the final sequence, -1 = dropped
    tokens: list[int]  # L + 1
    mass: list[float]  # L, NaN where the walk had ended
    margin_mass: float
    margin_bin: float
    margin_sink: float
    margin_budget: float
    distances: list[float]  # per patch, raw; empty if never reduced
    bins: list[int]  # per patch; empty if never reduced
    n_attention: list[int]
    n_mlp: list[int]
    macs_backbone: int
    macs_method: dict[str, int]  # by part, see `macs_ref.asap_macs`


def reference_asap(
    model: VisionTransformer,
    image: Float[Tensor, "c height width"],
    *,
    random_anchor: int | None = None,
    **options,
) -> Result:
    """Run ASAP on one image; `options` are the fields of `Options`.

    Args:
        random_anchor: the patch that `anchor="random"` drew for this image.
    """
    chosen = Options(**options)
    if chosen.anchor == "sink" and not model.has_class_token:
        raise ValueError('anchor="sink" needs a class token; use anchor="mass"')
    walker = _Walker(chosen, n_blocks=len(model.blocks), random_anchor=random_anchor)
    out = forward(model, image, walker, chosen.position, chosen.proportional_attention)
    n_walked = sum(not math.isnan(m) for m in walker.mass)
    return Result(
        logits=out.logits,
        stop_block=walker.stop_block,
        sink=walker.sink,
        assignment=out.assignment.tolist(),
        tokens=out.tokens,
        mass=walker.mass,
        margin_mass=min(walker.mass_gaps, default=NAN),
        margin_bin=walker.margin_bin,
        margin_sink=walker.margin_sink,
        margin_budget=walker.margin_budget,
        distances=walker.distances,
        bins=walker.bins,
        n_attention=out.n_attention,
        n_mlp=out.n_mlp,
        macs_backbone=backbone_macs(model, out.n_attention, out.n_mlp, out.tokens[-1]),
        macs_method=asap_macs(
            out.tokens[0],
            model.embed_dim,
            n_walked=n_walked,
            stopped=walker.stop_block > 0,
            n_background=sum(b < chosen.background for b in walker.bins),
            n_patches=len(walker.bins),
            n_columns=len(walker.bins) if chosen.distance_columns == "patches" else out.tokens[0],
            pool=chosen.pool,
            accumulate=chosen.accumulate,
            order=chosen.order,
            overhead=chosen.overhead,
            pca=chosen.anchor == "pca",
            plugin=walker.plugin_macs,
        ),
    )


@dataclass
class _Walker:
    """Follows one image through the blocks and reduces it once."""

    options: Options
    n_blocks: int
    random_anchor: int | None
    walk: Tensor | None = None  # P, (N, N)
    stop_block: int = 0
    sink: int = -1
    mass: list[float] = field(default_factory=list)
    mass_gaps: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    bins: list[int] = field(default_factory=list)
    margin_bin: float = NAN
    margin_sink: float = NAN
    margin_budget: float = math.inf
    plugin_macs: int = 0

    def __post_init__(self) -> None:
        self.mass = [NAN] * self.n_blocks
        last = self.options.max_block
        self.max_block = self.n_blocks - 1 if last is None else last

    def __call__(self, view: View) -> Reduction | None:
        walking = self.options.overhead or view.block <= self.max_block
        if self.stop_block or not walking:
            return None
        attention = view.attention.mean(dim=0)
        self.walk = walk_step(self.walk, attention, self.options.alpha, self.options.order)
        n_prefix = view.n_prefix
        first_column = n_prefix if self.options.columns == "patches" else 0
        self.mass[view.block - 1] = float(column_mass(self.walk)[first_column:].max())
        if self.options.overhead or not self._stops(view.block):
            return None
        self.stop_block = view.block
        geometry = self.walk if self.options.accumulate else attention
        self._find_sink(geometry, n_prefix)
        measure = diffusion_distances
        if self.options.distance == "self_aligned":
            measure = parts.self_aligned
        self.distances = measure(geometry, self.sink, n_prefix, self.options.distance_columns)
        scaled = normalised(self.distances, self.sink, self.options.normalise)
        self._bin(scaled)
        background = [i for i, b in enumerate(self.bins) if b < self.options.background]
        foreground = [i for i, b in enumerate(self.bins) if b >= self.options.background]
        dropped = set(foreground) - set(self._within_budget(view, geometry, foreground))
        weighing = self.distances if self.options.weights == "raw" else scaled
        weights = pooling_weights([weighing[i] for i in background], self.options.temperature)
        return reduced(view, background, weights if self.options.pool else None, sorted(dropped))

    def _within_budget(
        self, view: View, geometry: Float[Tensor, "N N"], foreground: list[int]
    ) -> list[int]:
        """The foreground patches that stay."""
        if self.options.max_tokens is None:
            return foreground
        budget = self.options.max_tokens - (1 if self.options.pool else 0)
        if self.options.plugin is None:
            kept, margin = parts.stride_sample(self.distances, self.bins, foreground, budget)
            self.margin_budget = min(self.margin_budget, margin)
            return kept
        best = self.options.kappa
        if best is None:
            best = math.ceil(self.options.max_tokens / 2)
        first = view.n_prefix
        metric, measure = geometry[first:], parts.euclidean
        if self.options.plugin == "diffusion" and self.options.distance_columns == "patches":
            metric = metric[:, first:]
        if self.options.plugin == "features":
            metric, measure = view.tokens[first:], parts.cosine
        if self.options.plugin == "keys":
            metric, measure = view.keys.mean(dim=0)[first:], parts.cosine
        row = geometry[0]
        if self.options.scores == "attention":
            row = view.attention.mean(dim=0)[0]
        kept, pairs, margin = parts.thin(
            list(metric), measure, row[first:].tolist(), foreground, budget, best,
            self.options.per_round, self.options.pair_order == "attention",
        )  # fmt: skip
        self.margin_budget = min(self.margin_budget, margin)
        self.plugin_macs = pairs * metric.shape[1]
        return kept

    def _stops(self, block: int) -> bool:
        if block < self.options.min_block:
            return False
        mass = self.mass[block - 1]
        self.mass_gaps.append(abs(mass - self.options.tau))
        forced = self.options.miss == "force" and block == self.max_block
        return mass > self.options.tau or forced

    def _find_sink(self, geometry: Float[Tensor, "N N"], n_prefix: int) -> None:
        if self.options.anchor == "random":
            if self.random_anchor is None:
                raise ValueError('anchor="random" needs random_anchor, the patch drawn')
            self.sink = self.random_anchor
            return
        if self.options.anchor == "pca":
            score = [-d for d in parts.distances_from_centre(geometry[n_prefix:])]
        elif self.options.anchor == "quiet":
            score = [-m for m in column_mass(geometry)[n_prefix:].tolist()]
        else:
            row = geometry[0] if self.options.anchor == "sink" else column_mass(geometry)
            score = row[n_prefix:].tolist()
        self.sink = max(range(len(score)), key=score.__getitem__)  # the first of equal ones
        best, *rest = sorted(score, reverse=True)
        self.margin_sink = best - rest[0] if rest else NAN

    def _bin(self, scaled: list[float]) -> None:
        k_bins, k = self.options.clusters, self.options.background
        if k_bins == "auto":
            threshold, behind = parts.otsu_threshold(scaled, self.sink)
            k_bins, lead = parts.clusters_for(threshold, k)
            self.margin_budget = min(behind, lead)
        if self.options.binning == "width":
            self.bins = width_bins(scaled, k_bins)
            gaps = [abs(d - k / k_bins) for i, d in enumerate(scaled) if i != self.sink]
            self.margin_bin = min(gaps, default=NAN) if k < k_bins else NAN
            return
        self.bins = rank_bins(self.distances, self.sink, k_bins)
        pairs = [(b, d) for i, (b, d) in enumerate(zip(self.bins, scaled, strict=True))
                 if i != self.sink]  # fmt: skip
        inner = [d for b, d in pairs if b < k]
        outer = [d for b, d in pairs if b >= k]
        self.margin_bin = min(outer) - max(inner) if inner and outer else NAN


def walk_step(
    walk: Float[Tensor, "N N"] | None, attention: Float[Tensor, "N N"], alpha: float, order: str
) -> Float[Tensor, "N N"]:
    """P_l from P_{l-1}: T = alpha A + (1 - alpha) I; P T in walk order, T P in rollout order."""
    identity = torch.eye(len(attention), dtype=attention.dtype)
    lazy = alpha * attention + (1 - alpha) * identity
    walk = identity if walk is None else walk
    return walk @ lazy if order == "walk" else lazy @ walk


def column_mass(matrix: Float[Tensor, "N N"]) -> Float[Tensor, "N"]:
    """How much of all walkers each token has: column sums, 1 on average."""
    return matrix.sum(dim=0)


def diffusion_distances(
    matrix: Float[Tensor, "N N"], sink: int, n_prefix: int, columns: str
) -> list[float]:
    """Euclidean distance of each patch's row to the sink's row, over all columns or patches'."""
    rows = matrix[n_prefix:, (n_prefix if columns == "patches" else 0) :]
    return [math.sqrt(float(((row - rows[sink]) ** 2).sum())) for row in rows]


def normalised(distances: list[float], sink: int, how: str) -> list[float]:
    """Distances scaled to [0, 1], the sink's being 0; all 0 where there is nothing to scale by."""
    others = [d for i, d in enumerate(distances) if i != sink]
    low = min(others, default=0.0) if how == "minmax_others" else 0.0
    high = max(others, default=0.0)
    if high == low:
        return [0.0] * len(distances)
    return [min(max((d - low) / (high - low), 0.0), 1.0) for d in distances]


def width_bins(scaled: list[float], clusters: int) -> list[int]:
    """K bins of equal width over [0, 1]; 1 itself belongs to the last."""
    return [min(math.floor(clusters * d), clusters - 1) for d in scaled]


def rank_bins(distances: list[float], sink: int, clusters: int) -> list[int]:
    """K bins of equal count: the sink first, then the others by distance, ties by index."""
    n = len(distances)
    others = sorted((i for i in range(n) if i != sink), key=lambda i: (distances[i], i))
    bins = [0] * n
    for rank, i in enumerate([sink, *others]):
        bins[i] = clusters * rank // n
    return bins


def pooling_weights(distances: list[float], temperature: float) -> list[float]:
    """Softmax over the background: the farther from the sink, the heavier."""
    highest = max(distances)
    raised = [math.exp((d - highest) / temperature) for d in distances]
    return [r / sum(raised) for r in raised]


def reduced(
    view: View, background: list[int], weights: list[float] | None, dropped: Sequence[int] = ()
) -> Reduction:
    """Prefix, foreground patches in their order, and last the pooled token (none: no weights)."""
    n_prefix, n = view.n_prefix, len(view.sizes)
    inner = [n_prefix + i for i in background]
    gone = [n_prefix + i for i in dropped]
    kept = [t for t in range(n) if t not in inner and t not in gone]
    tokens, sizes = [view.tokens[t] for t in kept], [view.sizes[t] for t in kept]
    destination = torch.full((n,), -1)
    destination[kept] = torch.arange(len(kept))
    if weights is not None:
        tokens.append(sum(w * view.tokens[t] for w, t in zip(weights, inner, strict=True)))
        sizes.append(view.sizes[inner].sum())
        destination[inner] = len(kept)
    return Reduction(torch.stack(tokens), torch.stack(sizes), destination)
