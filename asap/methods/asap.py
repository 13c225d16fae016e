"""ASAP: Attention Sink Anchored Pruning (arXiv 2605.22372), with every open choice as an option."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.diffusion import distance_to_anchor
from asap.core.pooling import transition_weights
from asap.core.radial import normalise, rank_bins, width_bins
from asap.methods.base import Anatomy, Decision, Method, Need, Site, choice, generator, require
from asap.methods.knobs import Knob
from asap.methods.walk import Walk, make_walk


@dataclass(frozen=True)
class Asap(Method):
    """One reduction per image, in the block where its attention sink emerges.

    The tokens walk lazily along the attention (Eq. 1, 2). In the first block whose largest column
    mass exceeds tau, the sink is the patch that the class token reaches most (Eq. 3); patches are
    clustered by their diffusion distance to it (Eq. 4, 5); the nearest cluster is pooled into one
    token (Eq. 6) or dropped. tau = 3 and clusters = 4 are defaults of ours; the paper's are not
    known.

    alpha: weight of attention against staying, in (0, 1].
    tau: threshold on the column mass, above 0.
    clusters: K, at least 2; background: k < K nearest clusters that are removed.
    pool: append their weighted mean as the last token; False drops them.
    anchor: "sink", "mass" (the patch with the largest column mass) or "random".
    accumulate: False takes sink and distances from the stop block's attention alone.
    order: "walk" (P T) or "rollout" (T P). columns: "patches" or "all" may exceed tau.
    min_block, max_block: where the stop is allowed, numbers from 1; None = the last but one.
    miss: what becomes of an image that never exceeds tau: "dense", or "force": it is reduced at
    max_block.
    position: "after_attention" (before the stop block's MLP) or "after_block".
    normalise: "minmax_others" or "max". binning: "width" or "rank".
    distance_columns: "all" or "patches". temperature, weights ("raw", "normalised"): of pooling.
    overhead: accumulate P over all blocks and reduce nothing (the paper's overhead table).
    seed: of the random anchor, with the image's id.
    """

    alpha: float = 0.5
    tau: float = 3.0
    clusters: int = 4
    background: int = 1
    pool: bool = True
    anchor: str = "sink"
    accumulate: bool = True
    order: str = "walk"
    columns: str = "patches"
    min_block: int = 1
    max_block: int | None = None
    miss: str = "dense"
    position: str = "after_attention"
    normalise: str = "minmax_others"
    binning: str = "width"
    distance_columns: str = "all"
    temperature: float = 1.0
    weights: str = "raw"
    proportional_attention: bool = False
    overhead: bool = False
    seed: int = 0
    needs: ClassVar[frozenset[Need]] = frozenset({"attention"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.alpha <= 1, "alpha", self.alpha, "in (0, 1]")
        require(self.tau > 0, "tau", self.tau, "above 0")
        require(self.clusters >= 2, "clusters", self.clusters, "at least 2")
        inside = 1 <= self.background < self.clusters
        require(inside, "background", self.background, f"in 1..{self.clusters - 1}")
        require(self.temperature > 0, "temperature", self.temperature, "above 0")
        require(self.min_block >= 1, "min_block", self.min_block, "at least 1")
        last = self.max_block
        require(last is None or last >= self.min_block, "max_block", last, "at least min_block")
        require(self.seed >= 0, "seed", self.seed, "at least 0")
        choice("anchor", self.anchor, "sink", "mass", "random")
        choice("order", self.order, "walk", "rollout")
        choice("columns", self.columns, "patches", "all")
        choice("miss", self.miss, "dense", "force")
        choice("position", self.position, "after_attention", "after_block")
        choice("normalise", self.normalise, "minmax_others", "max")
        choice("binning", self.binning, "width", "rank")
        choice("distance_columns", self.distance_columns, "all", "patches")
        choice("weights", self.weights, "raw", "normalised")

    @property
    def draws(self) -> bool:  # type: ignore[override]
        return self.anchor == "random"

    @property
    def reduces(self) -> bool:  # type: ignore[override]
        return not self.overhead

    def check(self, anatomy: Anatomy) -> None:
        if self.anchor == "sink" and not anatomy.class_token:
            raise ValueError(
                f"anchor='sink' needs a class token, which {anatomy.name} has not: "
                "use anchor='mass'"
            )
        last = self.last_block(anatomy.depth)
        require(last <= anatomy.depth, "max_block", last, f"at most {anatomy.depth}")
        require(self.min_block <= last, "min_block", self.min_block, f"at most {last}")
        require(anatomy.patches >= 2, "patches", anatomy.patches, "at least 2")

    def knobs(self, anatomy: Anatomy) -> tuple[Knob, ...]:
        return (
            Knob("tau", (2.0, 2.5, 3.0, 3.5, 4.0), between="real", beyond=(1.5, 5.0, 7.0, 10.0)),
            Knob("clusters", (2, 3, 4, 6, 8, 10, 12), between="whole", beyond=(16, 24, 32)),
            Knob("background", beyond=(self.background + 1,)),
            Knob("position", beyond=tuple({"after_attention", "after_block"} - {self.position})),
        )

    def last_block(self, depth: int) -> int:
        """Number, from 1, of the last block where an image may stop."""
        return self.max_block if self.max_block is not None else max(depth - 1, 1)

    def acts_in(self, block: int, depth: int) -> bool:
        return self.overhead or block < self.last_block(depth)

    def start(self, anatomy: Anatomy, images: int, like: Tensor) -> Walk:
        return make_walk(self.order, self.alpha, self.overhead, images, anatomy.tokens, like)

    def decide(self, site: Site) -> Decision | None:
        assert site.attention is not None
        walk: Walk = site.state
        macs = walk.advance(site.attention, site.images)
        skip = 0 if self.columns == "all" else site.prefix
        mass = walk.mass(site.images)[:, skip:].amax(1)
        notes = {"mass": mass}
        number = site.block + 1
        if self.overhead or number < self.min_block:
            return Decision(macs=macs, notes=notes)
        notes["margin_mass"] = (mass - self.tau).abs()
        stops = mass > self.tau
        if self.miss == "force" and number == self.last_block(site.anatomy.depth):
            stops = torch.ones_like(stops)
        if not stops.any():
            return Decision(macs=macs, notes=notes)
        return self._reduce(site, walk, stops, macs, notes)

    def _reduce(
        self, site: Site, walk: Walk, stops: Bool[Tensor, "b"], macs: int, notes: dict[str, Tensor]
    ) -> Decision:
        """Background and foreground of the images that stop, written into a decision for all."""
        here = stops.nonzero()[:, 0]
        geometry = self._geometry(site, walk, here)
        sink, lead = self._anchor(site, walk, geometry.matrix, here)
        distance = distance_to_anchor(geometry.matrix, sink, site.prefix, self.distance_columns)
        scaled = normalise(distance, sink, self.normalise)
        background, margin = self._background(distance, scaled, sink)
        if not self.pool:  # where nothing is foreground, pruning leaves the anchor
            background = background.scatter(1, sink[:, None], ~background.all(1, keepdim=True))
        target, weight, lengths = self._layout(site, background, distance, scaled)

        every = len(stops)
        all_target = torch.arange(site.length, device=stops.device).repeat(every, 1)
        all_target[here] = target
        all_weight = site.sizes.new_ones(every, site.length)
        all_weight[here] = weight
        all_lengths = torch.full((every,), site.length, device=stops.device)
        all_lengths[here] = lengths
        spent = torch.full((every,), macs, device=stops.device)
        spent[here] += geometry.macs + distance[0].numel() * self._columns(site)
        notes["sink"] = torch.full((every,), -1, device=stops.device).index_put((here,), sink)
        nan = site.sizes.new_full((every,), float("nan"))
        notes["margin_sink"] = nan.index_put((here,), lead)
        notes["margin_bin"] = nan.index_put((here,), margin)
        return Decision(
            all_target, tuple(all_lengths.tolist()), all_weight, stops, True, spent, notes
        )

    def _columns(self, site: Site) -> int:
        return site.length - (site.prefix if self.distance_columns == "patches" else 0)

    def _geometry(self, site: Site, walk: Walk, here: Int[Tensor, "k"]) -> "Geometry":
        assert site.attention is not None
        if not self.accumulate:
            return Geometry(site.attention[here], 0)
        return Geometry(*walk.matrix(site.images[here]))

    def _anchor(
        self, site: Site, walk: Walk, matrix: Float[Tensor, "k n n"], here: Int[Tensor, "k"]
    ) -> tuple[Int[Tensor, "k"], Float[Tensor, "k"]]:
        """The anchor patch of each image, and its lead over the next one."""
        if self.anchor == "random":
            ids = site.image_ids or ()
            drawn = [self._draw(ids[i], site.anatomy.patches) for i in here.tolist()]
            return here.new_tensor(drawn), matrix.new_full((len(here),), float("nan"))
        if self.anchor == "mass":
            scores = walk.mass(site.images[here]) if self.accumulate else matrix.sum(1)
        else:
            scores = walk.class_row(site.images[here]) if self.accumulate else matrix[:, 0]
        scores = scores[:, site.prefix :]
        best = scores.topk(2, dim=1).values
        return first_argmax(scores), best[:, 0] - best[:, 1]

    def _draw(self, image_id: int, patches: int) -> int:
        return int(torch.randint(patches, (1,), generator=generator(self.seed, image_id)))

    def _background(
        self,
        distance: Float[Tensor, "k patches"],
        scaled: Float[Tensor, "k patches"],
        sink: Int[Tensor, "k"],
    ) -> tuple[Bool[Tensor, "k patches"], Float[Tensor, "k"]]:
        """Which patches are background, and how near the nearest patch is to that edge."""
        if self.binning == "width":
            edge = self.background / self.clusters
            inside = width_bins(scaled, self.clusters) < self.background
            return inside, (scaled - edge).abs().amin(1)
        inside = rank_bins(distance, sink, self.clusters) < self.background
        nearest = distance.masked_fill(inside, float("inf")).amin(1)
        farthest = distance.masked_fill(~inside, float("-inf")).amax(1)
        return inside, nearest - farthest

    def _layout(
        self,
        site: Site,
        background: Bool[Tensor, "k patches"],
        distance: Float[Tensor, "k patches"],
        scaled: Float[Tensor, "k patches"],
    ) -> tuple[Int[Tensor, "k n"], Float[Tensor, "k n"], Int[Tensor, "k"]]:
        """Prefix, foreground patches in their order, pooled token last."""
        kept = torch.nn.functional.pad(~background, (site.prefix, 0), value=True)
        target = (kept.long().cumsum(1) - 1).masked_fill(~kept, -1)
        lengths = kept.sum(1)
        weight = site.sizes.new_ones(kept.shape)
        if self.pool:
            target = torch.where(kept, target, lengths[:, None])
            raw = distance if self.weights == "raw" else scaled
            shares = transition_weights(raw, background, self.temperature)
            weight[:, site.prefix :] = torch.where(background, shares, weight[:, site.prefix :])
            lengths = lengths + 1
        return target, weight, lengths


@dataclass(frozen=True)
class Geometry:
    """The matrix whose rows give distances, and the MACs its images spent on it."""

    matrix: Float[Tensor, "k n n"]
    macs: int


def first_argmax(scores: Float[Tensor, "k patches"]) -> Int[Tensor, "k"]:
    """Index of the maximum, the lowest index at ties, on every device."""
    return (scores == scores.amax(1, keepdim=True)).to(torch.uint8).argmax(1)
