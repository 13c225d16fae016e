"""ASAP: Attention Sink Anchored Pruning (arXiv 2605.22372), with every open choice as an option."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.emergence import emergence
from asap.methods.asap.anchors import anchor_macs, drawn_anchors, find_anchor
from asap.methods.asap.at_once import decided_at_once
from asap.methods.asap.clusters import cluster
from asap.methods.asap.options import AsapOptions
from asap.methods.asap.reduction import reduced_sequence
from asap.methods.asap.search_space import asap_search_space
from asap.methods.asap.sharing import SharedWalk, shared_walk, sharing_of
from asap.methods.asap.walk import Walk, kept_walk, make_walk
from asap.methods.base import (
    Anatomy,
    Attention,
    Column,
    Decision,
    KeptState,
    Needs,
    Observation,
    Sharing,
    Site,
    StopThreshold,
)
from asap.methods.search_space import SearchDimension


@dataclass(frozen=True)
class Asap(AsapOptions):
    """One reduction per image, in the block where its attention sink emerges.

    The tokens walk lazily along the attention (Eq. 1, 2). In the first block whose largest column
    mass exceeds tau, the sink is the patch that the class token reaches most (Eq. 3); patches are
    clustered by their diffusion distance to it (Eq. 4, 5); the nearest cluster is pooled into one
    token (Eq. 6) or dropped. With a token budget the foreground is then stride-sampled (Algorithm
    1, stage 5) or thinned by the plug-in (Algorithm 2). tau = 3 and clusters = 4 are defaults of
    ours; the paper's are not known. The options are explained in `AsapOptions`.

    In one block, after the attention: the walk takes a step; images whose mass exceeds tau stop. Of
    these, P gives the distances to the sink, and the nearest cluster becomes one token. The MLP and
    all blocks after it see what is left.
    """

    method_version: ClassVar[int] = 2
    explains: ClassVar[bool] = True
    own_order: ClassVar[bool] = True  # the pooled token comes last
    trace_columns: ClassVar[tuple[Column, ...]] = (
        Column("sink", "int"),  # patch index
        Column("mass", "float", per_block=True),  # largest column mass after each block
        # how far a decision was from being another one
        Column("margin_mass", "float", combine="min"),  # |largest column mass - tau|
        Column("margin_sink", "float"),  # the lead of the sink over the next patch
        Column("margin_bin", "float"),  # from the nearest patch to the edge of the background
    )

    @property
    def draws(self) -> bool:
        return self.anchor == "random"

    @property
    def reduces(self) -> bool:
        return not self.overhead

    @property
    def extension(self) -> bool:
        ours = self.distance == "self_aligned", self.anchor == "quiet", self.clusters == "auto"
        return any(ours) or self.static

    @property
    def same_cost(self) -> bool:  # type: ignore[override]
        return self.static

    @property
    def decides_on_device(self) -> bool:  # type: ignore[override]
        """The PCA anchor's decomposition makes the host wait, and is for the images that stop."""
        return self.anchor != "pca"

    @property
    def needs(self) -> Needs:
        return Needs(
            Attention("all", "mean"),
            keys=self.plugin == "keys",
            tokens=self.plugin == "features",
            half=True,
        )

    @property
    def sharing(self) -> Sharing | None:
        """None for a subclass, which may decide differently."""
        return sharing_of(self) if type(self) is Asap and not self.overhead else None

    @property
    def stop_threshold(self) -> StopThreshold | None:
        return None if self.overhead else StopThreshold("tau", "mass", ("clusters", "max_tokens"))

    def search_space(self, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
        """Empty if nothing is reduced.

        `clusters` stays as it is where Otsu's threshold sets it or a token budget decides what is
        left.
        """
        return () if self.overhead else asap_search_space(self, anatomy)

    def acts_in(self, block: int, depth: int) -> bool:
        return self.overhead or block < self.last_block(depth)

    def start(self, anatomy: Anatomy, images: int, like: Tensor) -> Walk:
        return make_walk(self.order, self.alpha, self.overhead, images, anatomy.tokens, like)

    def kept_state(self, anatomy: Anatomy, images: int, like: Tensor) -> KeptState | None:
        size = images, anatomy.tokens, like
        return kept_walk(self.order, self.alpha, self.overhead, self.accumulate, *size)

    def start_shared(self, anatomy: Anatomy, images: int, like: Tensor) -> SharedWalk:
        return shared_walk(self.order, self.alpha, images, anatomy.tokens, like)

    def draw(self, anatomy: Anatomy, image_ids: Sequence[int]) -> Int[Tensor, "b"] | None:
        return drawn_anchors(self, anatomy, image_ids) if self.draws else None

    def observe(self, site: Site) -> Observation:
        """One more step of the walk, and the test of the column mass."""
        assert site.attention is not None
        walk: Walk = site.state
        macs = walk.advance(site.attention, site.images, site.block, site.watched)
        columns = walk.mass(site.images)[:, 0 if self.columns == "all" else site.prefix :]
        mass, exceeds, margin = emergence(columns, self.tau)
        number, depth = site.block + 1, site.anatomy.depth
        if self.overhead or number < self.first_block(depth):
            return Observation(None, macs, {"mass": mass})
        forced = self.miss == "force" and number == self.last_block(depth)
        found = {"mass": mass, "margin_mass": margin}
        return Observation(True if forced else exceeds, macs, found)

    def reduce(self, site: Site, chosen: Bool[Tensor, "b"] | None) -> Decision:
        """The images that stop: P, the anchor, the clusters around it, the reduced sequence."""
        if (decision := decided_at_once(self, site, chosen)) is not None:
            return replace(decision, macs=decision.macs + self.distance_macs(site))
        matrix, spent = self.geometry(site)
        anchor, lead = find_anchor(self, site, matrix)
        clusters = cluster(self, matrix, anchor, site.prefix)
        reduced = reduced_sequence(self, site, matrix, clusters, anchor)
        macs = spent + anchor_macs(self, site) + self.distance_macs(site) + reduced.macs
        found = {"sink": anchor, "margin_sink": lead, "margin_bin": clusters.margin}
        return Decision(reduced.target, reduced.left, reduced.weight, True, macs, found)

    def explain(self, site: Site) -> Mapping[str, Tensor]:
        """The walk so far, and the anchor, distances and clusters that a stop here would give."""
        matrix, _ = self.geometry(site)
        anchor, _ = find_anchor(self, site, matrix)
        clusters = cluster(self, matrix, anchor, site.prefix)
        return {
            "walk": site.state.matrix(site.images, every_block=not site.looks)[0],
            "class_row": site.state.class_row(site.images) if self.accumulate else matrix[:, 0],
            "anchor": anchor,
            "distance": clusters.distance,
            "cluster": clusters.index,
        }

    def geometry(self, site: Site) -> tuple[Float[Tensor, "b n n"], int]:
        """The matrix whose rows give distances, and the MACs per image spent on it in this call."""
        assert site.attention is not None
        if not self.accumulate:
            return site.attention.to(site.sizes.dtype), 0
        return site.state.matrix(site.images, every_block=not site.looks)

    def distance_macs(self, site: Site) -> int:
        """MACs per image of the distances to the anchor."""
        patches = site.length - site.prefix
        return patches * (patches if self.distance_columns == "patches" else site.length)
