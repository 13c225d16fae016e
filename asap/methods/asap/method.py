"""ASAP: Attention Sink Anchored Pruning (arXiv 2605.22372), with every open choice as an option."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.methods.asap.anchors import anchor_macs, find_anchor
from asap.methods.asap.clusters import cluster
from asap.methods.asap.options import AsapOptions
from asap.methods.asap.reduction import Reduced, reduce
from asap.methods.asap.search_space import asap_knobs
from asap.methods.asap.walk import Walk, make_walk
from asap.methods.base import Anatomy, Decision, Need, Site
from asap.methods.search_space import Knob


@dataclass(frozen=True)
class Asap(AsapOptions):
    """One reduction per image, in the block where its attention sink emerges.

    The tokens walk lazily along the attention (Eq. 1, 2). In the first block whose largest column
    mass exceeds tau, the sink is the patch that the class token reaches most (Eq. 3); patches are
    clustered by their diffusion distance to it (Eq. 4, 5); the nearest cluster is pooled into one
    token (Eq. 6) or dropped. With a token budget the foreground is then stride-sampled (Algorithm
    1, stage 5) or thinned by the plug-in (Algorithm 2). tau = 3 and clusters = 4 are defaults of
    ours; the paper's are not known. The options are explained in `AsapOptions`.
    """

    @property
    def draws(self) -> bool:  # type: ignore[override]
        return self.anchor == "random"

    @property
    def reduces(self) -> bool:  # type: ignore[override]
        return not self.overhead

    @property
    def extension(self) -> bool:  # type: ignore[override]
        ours = self.distance == "self_aligned", self.anchor == "quiet", self.clusters == "auto"
        return any(ours)

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        return frozenset({"attention", "keys"} if self.plugin == "keys" else {"attention"})

    def knobs(self, anatomy: Anatomy) -> tuple[Knob, ...]:
        """None if nothing is reduced. The options that the row leaves to others stay as they are:
        `clusters` where Otsu's threshold sets it, and where a token budget decides what is left.
        """
        return () if self.overhead else asap_knobs(self, anatomy)

    def acts_in(self, block: int, depth: int) -> bool:
        return self.overhead or block < self.last_block(depth)

    def start(self, anatomy: Anatomy, images: int, like: Tensor) -> Walk:
        return make_walk(self.order, self.alpha, self.overhead, images, anatomy.tokens, like)

    def decide(self, site: Site) -> Decision | None:
        assert site.attention is not None
        walk: Walk = site.state
        macs = walk.advance(site.attention, site.images)
        mass = self.largest_mass(walk, site.images, site.prefix)
        stops, notes = self.test(mass, site.block + 1, site.anatomy.depth)
        if not stops.any():
            return Decision(macs=macs, notes=notes)
        return self.cut(site, walk, stops, macs, notes)

    def largest_mass(self, walk: Walk, images: Int[Tensor, "b"], prefix: int) -> Float[Tensor, "b"]:
        """The largest column mass of every image, among the columns that count."""
        return walk.mass(images)[:, 0 if self.columns == "all" else prefix :].amax(1)

    def test(
        self, mass: Float[Tensor, "b"], number: int, depth: int
    ) -> tuple[Bool[Tensor, "b"], dict[str, Tensor]]:
        """Which images stop in block `number` (from 1) of `depth`, and notes for the trace."""
        notes = {"mass": mass}
        if self.overhead or number < self.min_block:
            return torch.zeros_like(mass, dtype=torch.bool), notes
        notes["margin_mass"] = (mass - self.tau).abs()
        stops = mass > self.tau
        if self.miss == "force" and number == self.last_block(depth):
            stops = torch.ones_like(stops)
        return stops, notes

    def cut(
        self, site: Site, walk: Walk, stops: Bool[Tensor, "b"], macs: int, notes: dict[str, Tensor]
    ) -> Decision:
        """What becomes of the images that stop, as a decision for all."""
        here = stops.nonzero()[:, 0]
        matrix, spent = self.geometry(site, walk, here)
        anchor, lead = find_anchor(self, site, walk, matrix, here)
        clusters = cluster(self, matrix, anchor, site.prefix)
        reduced = reduce(self, site, matrix, clusters, anchor, here)
        spent += anchor_macs(self, site) + self.distance_macs(site)
        nan = site.sizes.new_full((len(stops),), float("nan"))
        notes["sink"] = torch.full_like(site.images, -1).index_put((here,), anchor)
        notes["margin_sink"] = nan.index_put((here,), lead)
        notes["margin_bin"] = nan.index_put((here,), clusters.margin)
        return _for_all(site, stops, reduced, macs, spent, notes)

    def geometry(
        self, site: Site, walk: Walk, here: Int[Tensor, "k"]
    ) -> tuple[Float[Tensor, "k n n"], int]:
        """The matrix whose rows give distances, and the MACs its images spent on it just now."""
        assert site.attention is not None
        return walk.matrix(site.images[here]) if self.accumulate else (site.attention[here], 0)

    def distance_macs(self, site: Site) -> int:
        """MACs per image of the distances to the anchor."""
        patches = site.length - site.prefix
        return patches * (patches if self.distance_columns == "patches" else site.length)


def _for_all(
    site: Site,
    stops: Bool[Tensor, "b"],
    reduced: Reduced,
    macs: int,
    spent: int,
    notes: dict[str, Tensor],
) -> Decision:
    """The images that stop written into a decision for all; `spent`: what stopping cost each."""
    here = stops.nonzero()[:, 0]
    every, device = len(stops), stops.device
    target = torch.arange(site.length, device=device).repeat(every, 1)
    target[here] = reduced.target
    weight = site.sizes.new_ones(every, site.length)
    weight[here] = reduced.weight
    lengths = torch.full((every,), site.length, device=device)
    lengths[here] = reduced.lengths
    total = torch.full((every,), macs, device=device)
    total[here] += spent + reduced.macs
    return Decision(target, tuple(lengths.tolist()), weight, stops, True, total, notes)
