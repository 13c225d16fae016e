"""EViT: token reorganisation (Liang et al., "Not All Patches are What You Need: Expediting Vision
Transformers via Token Reorganizations", ICLR 2022)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from asap.core.ranking import ranked_target
from asap.methods.base import Anatomy, Attention, Decision, Method, Needs, Site
from asap.methods.schedule import (
    per_stage,
    require_blocks,
    require_class_token,
    require_rate,
    require_stages,
    stage_blocks,
)
from asap.methods.search_space import SearchDimension


@dataclass(frozen=True)
class EViT(Method):
    """In a few blocks keeps the patches that the class token attends to, and fuses the others.

    The kept ones stay in score order. The fused token is the sum of the others, weighted by the
    attention itself, not renormalised, so it is shorter than a mean would be; it comes last and
    counts as a patch from then on. The published numbers are of models trained with the method.

    In one stage, after the attention: patches are ranked by the class token's attention; the best
    stay, the others become one token; the MLP sees the prefix, the kept patches and that token.

    keep_rate: share of the patches kept at a stage, in (0, 1]; `ceil(keep_rate * patches)` in
    floating point. One number, or one a stage. A stage that would keep all does nothing.
    blocks: of the stages, from 0; None: 3, 6, 9 of 12, and alike (see `stage_blocks`).
    fuse: append the fused token; False drops the others.

    Deviation: a distillation token, which the authors' code treats as one of the patches, is
    protected, as are registers. Evidence: verified against the authors' code.
    """

    keep_rate: float | Sequence[float] = 0.7
    blocks: Sequence[int] | None = None
    fuse: bool = True
    method_version: ClassVar[int] = 2
    same_cost = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_rate(self.keep_rate)
        require_blocks(self.blocks)

    @property
    def needs(self) -> Needs:
        return Needs(Attention("class", "mean"), tokens=False)

    def check(self, anatomy: Anatomy) -> None:
        require_class_token(anatomy, "EViT")
        require_stages(anatomy, self.blocks, "keep_rate", self.keep_rate)

    def search_space(self, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
        """The share alone: the blocks stay as they are."""
        return (SearchDimension("keep_rate", tuple(i / 10 for i in range(1, 11)), between="real"),)

    def acts_in(self, block: int, depth: int) -> bool:
        return block in stage_blocks(self.blocks, depth)

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        blocks = stage_blocks(self.blocks, site.anatomy.depth)
        rate = per_stage(self.keep_rate, len(blocks))[blocks.index(site.block)]
        patches = site.length - site.prefix
        keep = math.ceil(rate * patches)
        if keep >= patches:
            return None
        assert site.attention is not None
        scores = site.attention[:, site.prefix :]
        target = ranked_target(scores, keep, site.prefix)
        left = site.prefix + keep
        if not self.fuse:
            return Decision(target, left)
        fused = target < 0
        weight = torch.ones_like(site.sizes)
        weight[:, site.prefix :] = torch.where(fused[:, site.prefix :], scores, 1.0)
        return Decision(target.masked_fill(fused, left), left + 1, weight)
