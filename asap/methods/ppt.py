"""PPT: token pruning and pooling (Wu et al., "PPT: Token Pruning and Pooling for Efficient Vision
Transformers", 2023), as the authors' off-the-shelf evaluation runs it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from asap.core.matching import bipartite_matching, mean_of_heads
from asap.core.pooling import mean_weights
from asap.core.ranking import ranked_target, value_scores
from asap.methods.base import Anatomy, Attention, Decision, Method, Needs, Site, require
from asap.methods.schedule import (
    per_stage,
    require_blocks,
    require_class_token,
    require_stages,
    stage_blocks,
)
from asap.methods.search_space import DIGITS, SearchDimension, doubling

PUBLISHED = (50, 7e-5, 196)  # r and threshold for DeiT-S, and the patches it has
FACTORS = (0.5, 1.0, 2.0)  # of the published threshold, for calibration
ALWAYS_POOLS = 1.0  # scores sum to 1, so their variance is always below this


@dataclass(frozen=True)
class PPT(Method):
    """In a few blocks every image loses r tokens: pooled if its scores are even, dropped if not.

    Score: class attention times the norm of the value, scaled to sum 1 over the patches. Where its
    variance is below the threshold, the r most similar pairs merge as in ToMe; else the r lowest
    patches are dropped, and the kept ones stay in score order, which decides later which tokens
    can pair up.

    In one stage, after the attention: the class row times the norms of the values scores the
    patches; each image compares the scores' variance with the threshold, then merges r pairs or
    drops r patches; the MLP sees what is left.

    r: tokens removed per stage, never more than half of the patches left; one number, or one a
    stage. None: the authors' 50 of 196, in proportion.
    threshold: on the variance, at least 0; 0 always drops, infinity always pools. None: the
    authors' 7e-5 times (196 / patches)^2, which is the same coefficient of variation (our
    reconstruction; exact for 196 patches). The published point is r=50, threshold=7e-5 on DeiT-S.
    blocks: of the stages, from 0; None: 3, 6, 9 of 12, and alike (see `stage_blocks`).
    proportional_attention: add log(size) to the attention logits; without it, merging takes every
    token for one patch, as the authors' code does.

    All prefix tokens are protected and not scored; the authors' code has a class token only.
    Evidence: verified against the authors' code.
    """

    r: int | Sequence[int] | None = None
    threshold: float | None = None
    blocks: Sequence[int] | None = None
    proportional_attention: bool = True
    method_version: ClassVar[int] = 2
    same_cost = True  # except for the similarities of the images that pool

    def __post_init__(self) -> None:
        super().__post_init__()
        removed = per_stage(self.r, 1)
        whole = self.r is None or (bool(removed) and all(type(r) is int for r in removed))
        require(whole, "r", self.r, "a whole number, or a list of them, one a stage")
        require(self.r is None or min(removed) >= 0, "r", self.r, "at least 0")
        limit = self.threshold
        require(limit is None or limit >= 0, "threshold", limit, "at least 0")
        require_blocks(self.blocks)

    @property
    def needs(self) -> Needs:
        return Needs(Attention("class", "mean"), keys=True, value_norms=True, tokens=False)

    def check(self, anatomy: Anatomy) -> None:
        require_class_token(anatomy, "PPT")
        require_stages(anatomy, self.blocks, "r", self.r)
        most = max(self.removed(anatomy).values())
        require(most <= anatomy.patches, "r", self.r, f"at most {anatomy.patches}, the patches")

    def search_space(self, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
        """Tokens removed, and thresholds scaled to the sequence length as the default is."""
        stages = len(stage_blocks(self.blocks, anatomy.depth))
        usual = replace(self, threshold=None).limit(anatomy)
        scaled = tuple(float(f"{usual * factor:.{DIGITS}g}") for factor in FACTORS)
        limits = (0.0, *(limit for limit in scaled if limit < ALWAYS_POOLS), ALWAYS_POOLS)
        grid = doubling(anatomy.patches // 2)
        return (
            SearchDimension("threshold", limits),
            SearchDimension("r", grid, between="whole", blocks=stages),
        )

    def acts_in(self, block: int, depth: int) -> bool:
        return block in stage_blocks(self.blocks, depth)

    def removed(self, anatomy: Anatomy) -> dict[int, int]:
        """Tokens to remove, by block."""
        blocks = stage_blocks(self.blocks, anatomy.depth)
        r, _, patches = PUBLISHED
        planned = (r * anatomy.patches + patches // 2) // patches if self.r is None else self.r
        return dict(zip(blocks, per_stage(planned, len(blocks)), strict=True))

    def limit(self, anatomy: Anatomy) -> float:
        """The threshold for a backbone."""
        _, threshold, patches = PUBLISHED
        if self.threshold is not None:
            return self.threshold
        return threshold * (patches / anatomy.patches) ** 2

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        patches = site.length - site.prefix
        r = min(self.removed(site.anatomy)[site.block], patches // 2)
        if r <= 0:
            return None
        assert site.attention is not None and site.keys is not None
        assert site.value_norms is not None
        scores = value_scores(site.attention[:, site.prefix :], site.value_norms)
        target = ranked_target(scores, patches - r, site.prefix)
        weight = torch.ones_like(site.sizes)
        pools = scores.var(1) < self.limit(site.anatomy)
        here = site.worth(pools)
        metric = mean_of_heads(site.keys[here] if site.looks else site.keys, site.sizes)
        sizes = site.sizes[here]
        joined = bipartite_matching(metric, r, site.prefix)
        counted = sizes if self.proportional_attention else torch.ones_like(sizes)
        merges = pools[here, None]
        target[here] = torch.where(merges, joined, target[here])
        weight[here] = torch.where(merges, mean_weights(counted, joined), 1.0)
        matching = ((site.length + 1) // 2) * (site.length // 2) * metric.shape[-1]
        norms = patches * site.anatomy.attention_width
        return Decision(target, site.length - r, weight, macs=norms + pools * matching)
