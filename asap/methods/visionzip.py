"""VisionZip (Yang et al., "VisionZip: Longer is Better but Not Necessary in Vision Language
Models", CVPR 2025)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from asap.core.contextual import contextual_groups
from asap.core.matching import mean_of_heads
from asap.core.order import ranks
from asap.core.plugin import unit_rows
from asap.methods.base import Anatomy, Attention, Decision, Method, Needs, Site, keep_only, require
from asap.methods.feature_block import (
    feature_block,
    in_proportion,
    may_be_feature_block,
    require_feature_block,
)
from asap.methods.schedule import require_class_token
from asap.methods.search_space import SearchDimension, doubling

USUAL = (54, 10)  # dominant and contextual tokens of 576 patches: the published point at 64


@dataclass(frozen=True)
class VisionZip(Method):
    """Keeps the patches that the class token attends to, and merges the others into a few tokens.

    After one block: the patches with the largest class attention (mean over heads) are dominant and
    stay, in their order. Of the others every so-many-th is a target; the rest go to the target with
    the most similar key (mean over heads, cosine), and a contextual token is its target plus the
    mean of what came. Contextual tokens come last.

    dominant: tokens kept as they are, the class token counted. None: 54 for 576 patches and as
    large a share elsewhere. The published points are 54 + 10, 108 + 20 and 162 + 30.
    contextual: tokens that the others become, at least 0; 0 drops them. None: 10, in proportion.
    block: number, from 1, of the block after whose MLP this happens; None: the last but one of the
    encoder, whose output a language model reads (see `feature_block`).

    Settings that keep everything leave the order as it is. In a classifier, where the method is not
    published, all prefix tokens stay, and one of them is counted. Evidence: in float64 it keeps
    what the authors' own function keeps of random inputs.
    """

    dominant: int | None = None
    contextual: int | None = None
    block: int | None = None
    method_version: ClassVar[int] = 2
    class_row_to_llm: ClassVar[bool] = True
    own_order: ClassVar[bool] = True  # contextual tokens come last
    same_cost = True
    position = "after_block"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("dominant", 1), ("contextual", 0)):
            value = getattr(self, name)
            require(value is None or value >= least, name, value, f"at least {least}")
        require_feature_block(self.block)

    @property
    def needs(self) -> Needs:
        return Needs(Attention("class", "mean"), keys=True, tokens=False)

    def check(self, anatomy: Anatomy) -> None:
        require_class_token(anatomy, "VisionZip")
        require_feature_block(self.block, anatomy)
        kept, contextual = self.counts(anatomy.patches)
        few = contextual <= anatomy.patches
        require(few, "contextual", contextual, f"at most {anatomy.patches}, the patches")
        most = anatomy.patches - contextual + 1
        why = f"at most {most}, the class token and {anatomy.patches} patches less the contextual"
        require(kept < most, "dominant", kept + 1, why)
        some = f"at least 1 with dominant={kept + 1}, so that a patch is left"
        require(kept + contextual >= 1, "contextual", contextual, some)

    def search_space(self, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
        """The dominant tokens; the contextual ones stay as they are."""
        contextual = self.counts(anatomy.patches)[1]
        least = 1 if contextual else 2
        grid = tuple(v for v in doubling(anatomy.patches - contextual + 1) if v >= least)
        return (SearchDimension("dominant", grid, between="whole"),)

    def acts_in(self, block: int, depth: int) -> bool:
        return may_be_feature_block(self.block, block, depth)

    def counts(self, patches: int) -> tuple[int, int]:
        """Patches kept, and contextual tokens."""
        dominant, contextual = self.dominant, self.contextual
        dominant = max(2, in_proportion(USUAL[0], patches)) if dominant is None else dominant
        contextual = in_proportion(USUAL[1], patches) if contextual is None else contextual
        return dominant - 1, contextual

    def placeless(self, patches: int) -> int:
        """The contextual tokens, also one whose target stayed alone."""
        kept, contextual = self.counts(patches)
        return contextual if kept + contextual < patches else 0

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        patches = site.length - site.prefix
        kept, contextual = self.counts(patches)
        here = site.block + 1 == feature_block(self.block, site.anatomy)
        if not here or kept + contextual >= patches:
            return None
        assert site.attention is not None and site.keys is not None
        dominant = ranks(site.attention[:, site.prefix :], descending=True) < kept
        target = keep_only(torch.nn.functional.pad(dominant, (site.prefix, 0), value=True))
        left = site.prefix + kept
        if not contextual:
            return Decision(target, left, final=True)
        rest = dominant.long().argsort(dim=1, stable=True)[:, : patches - kept] + site.prefix
        unit = unit_rows(mean_of_heads(site.keys, site.sizes))
        unit = unit.gather(1, rest[..., None].expand(-1, -1, unit.shape[2]))
        group, share = contextual_groups(unit, contextual)
        weight = torch.ones_like(site.sizes).scatter(1, rest, share)
        macs = (patches - kept - contextual) * contextual * unit.shape[2]
        target = target.scatter(1, rest, left + group)
        return Decision(target, left + contextual, weight, final=True, macs=macs)
