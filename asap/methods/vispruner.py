"""VisPruner (Zhang et al., "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective
Token Pruning in VLMs", ICCV 2025)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from asap.core.plugin import cosine_similarities, thin
from asap.methods.base import Anatomy, Attention, Decision, Method, Needs, Site, keep_only, require
from asap.methods.feature_block import (
    feature_block,
    in_proportion,
    may_be_feature_block,
    require_feature_block,
)
from asap.methods.schedule import require_class_token
from asap.methods.search_space import SearchDimension, doubling

USUAL = 64  # tokens of 576 patches: the smallest published budget


@dataclass(frozen=True)
class VisPruner(Method):
    """Keeps the patches that the class token attends to, and of the others those that differ most.

    After one block: the important patches are those with the largest class attention (mean over
    heads). The others are listed from the largest attention to the smallest and thinned in rounds:
    each at an even place is compared with all at odd places (cosine of the tokens), and the even
    ones with the most similar partner go. The list goes on with the even ones that are left, from
    the most similar to the least, then the odd ones. What stays stays in its order; nothing is
    merged.

    tokens: patches kept, at least 1. None: 64 of 576, in proportion.
    important_ratio: share of them kept by attention, in [0, 1]; the count is rounded down.
    per_round: most patches dropped in a round, at least 1.
    block: number, from 1, of the block after whose MLP this happens; None: the last but one of the
    encoder, whose output a language model reads (see `feature_block`).

    A list of odd length has one even place more than odd ones; the authors' code fails there. Of
    equally similar ones the lowest patch goes first. In a classifier, where the method is not
    published, prefix tokens stay. Evidence: in float64 it keeps what the authors' own function
    keeps of random inputs.
    """

    tokens: int | None = None
    important_ratio: float = 0.5
    per_round: int = 8
    block: int | None = None
    same_cost = True
    position = "after_block"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tokens is None or self.tokens >= 1, "tokens", self.tokens, "at least 1")
        inside = 0 <= self.important_ratio <= 1
        require(inside, "important_ratio", self.important_ratio, "in [0, 1]")
        require(self.per_round >= 1, "per_round", self.per_round, "at least 1")
        require_feature_block(self.block)

    @property
    def needs(self) -> Needs:
        return Needs(Attention("class", "mean"))

    def check(self, anatomy: Anatomy) -> None:
        require_class_token(anatomy, "VisPruner")
        require_feature_block(self.block, anatomy)
        fits = self.count(anatomy.patches) <= anatomy.patches
        require(fits, "tokens", self.tokens, f"at most {anatomy.patches}, the patches")

    def search_space(self, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
        return (SearchDimension("tokens", doubling(anatomy.patches)[1:], between="whole"),)

    def acts_in(self, block: int, depth: int) -> bool:
        return may_be_feature_block(self.block, block, depth)

    def count(self, patches: int) -> int:
        """Patches kept."""
        return in_proportion(USUAL, patches) if self.tokens is None else self.tokens

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        patches = site.length - site.prefix
        tokens = self.count(patches)
        if site.block + 1 != feature_block(self.block, site.anatomy) or tokens >= patches:
            return None
        assert site.attention is not None
        important = int(tokens * self.important_ratio)
        similarity = cosine_similarities(site.tokens[:, site.prefix :].to(site.sizes.dtype))
        scores = site.attention[:, site.prefix :]
        all_of_them = torch.ones_like(scores, dtype=torch.bool)
        budget = tokens, important, self.per_round
        kept, _ = thin(-similarity, scores, all_of_them, *budget, by_score=True)
        target = keep_only(torch.nn.functional.pad(kept, (site.prefix, 0), value=True))
        macs = patches**2 * site.tokens.shape[2]
        return Decision(target, site.prefix + tokens, final=True, macs=macs)
