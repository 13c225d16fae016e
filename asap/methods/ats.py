"""ATS: adaptive token sampling.

Fayyaz et al., "Adaptive Token Sampling for Efficient Vision Transformers", ECCV 2022.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from asap.core.ranking import value_scores
from asap.core.token_sampling import sampled_target
from asap.methods.base import Anatomy, Attention, Decision, Method, Needs, Site, require
from asap.methods.schedule import require_class_token, stage_blocks
from asap.methods.search_space import SearchDimension


@dataclass(frozen=True)
class ATS(Method):
    """Samples tokens by the class token's attention times the norm of their values, in many blocks.

    Inside the attention the queries of the tokens that were not hit are dropped; as keys and values
    they still count. How many remain depends on the image. They follow the prefix in ascending
    score order.

    In one block, inside the attention: the class row times the norms of the values is a score;
    evenly spaced points on the scores' running sum hit some patches; only their queries attend to
    all keys, and the rest of the block sees them alone.

    samples: sampling points in every block, at least 1; None = as many as the backbone has patches.
        Several points can hit the same patch, so this is an upper bound of the patches kept.
    blocks: indices, from 0, of the blocks that sample; None = all from a quarter of the depth on:
        3 to 11 of 12 as the authors have it, 4 to 15 of 16, 6 to 23 of 24. Empty = no reduction.

    Evidence: these rules agreed with the authors' code on single images. Deviations: in a batch
    that code pads all images to the longest and lets the padding into the cumulative scores; here
    every image is on its own. It needs as many samples as patches, here any number works, as the
    paper describes. Ours, where the sources are silent: prefix tokens other than the class token
    (distillation, registers) always stay and are not scored; a single sampling point takes the best
    token; a lone patch stays.
    """

    samples: int | None = None
    blocks: Sequence[int] | None = None
    position = "in_attention"
    mixed_lengths = True
    softmax_epsilon = 1e-6
    method_version: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.samples is None or self.samples >= 1, "samples", self.samples, "at least 1")
        if self.blocks is None:
            return
        kind = isinstance(self.blocks, tuple) and all(type(b) is int for b in self.blocks)
        require(kind, "blocks", self.blocks, "a list of whole numbers")
        require(min(self.blocks, default=0) >= 0, "blocks", self.blocks, "at least 0 each")
        different = len(set(self.blocks)) == len(self.blocks)
        require(different, "blocks", self.blocks, "different numbers")

    @property
    def needs(self) -> Needs:
        return Needs(Attention("class", "each"), value_norms=True, tokens=False)

    def check(self, anatomy: Anatomy) -> None:
        require_class_token(anatomy, "ATS")
        inside = max(self.blocks or (), default=0) < anatomy.depth
        require(inside, "blocks", self.blocks, f"below {anatomy.depth} each")

    def search_space(self, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
        """Sampling points, up to several for each patch, and where sampling starts.

        The start is what the authors change: their code needs as many points as patches.
        """
        usual = anatomy.patches
        points = tuple(
            sorted({1, max(usual // 16, 1), max(usual // 4, 1), usual, 4 * usual, 8 * usual})
        )
        if self.blocks is not None:
            return (SearchDimension("samples", points, between="whole"),)
        first = stage_blocks(None, anatomy.depth)[0]
        starts = range(first, anatomy.depth, max(1, anatomy.depth // 12))
        blocks = tuple(tuple(range(start, anatomy.depth)) for start in starts)
        return (
            SearchDimension("blocks", blocks),
            SearchDimension("samples", points, between="whole"),
        )

    def acts_in(self, block: int, depth: int) -> bool:
        if self.blocks is None:
            return block >= stage_blocks(None, depth)[0]
        return block in self.blocks

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision:
        assert site.attention is not None and site.value_norms is not None
        scores = value_scores(site.attention[:, :, site.prefix :].sum(1), site.value_norms)
        points = site.anatomy.patches if self.samples is None else self.samples
        known = None if site.lengths is None else site.lengths - site.prefix
        target, left = sampled_target(scores, points, site.prefix, known)
        patches = scores.shape[1] if known is None else known
        return Decision(target, left, macs=patches * site.anatomy.attention_width)
