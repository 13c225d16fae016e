"""PruneSID (Fang et al., "Prune Redundancy, Preserve Essence: Vision Token Compression in VLMs via
Synergistic Importance-Diversity", ICLR 2026)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.group_quotas import group_places, group_quotas, unsuppressed
from asap.core.order import ranks
from asap.core.plugin import cosine_similarities
from asap.core.principal_groups import principal_groups, principal_macs
from asap.methods.base import Anatomy, Attention, Decision, Method, Needs, Site, generator, require
from asap.methods.feature_block import (
    feature_block,
    in_proportion,
    may_be_feature_block,
    require_feature_block,
)
from asap.methods.schedule import require_class_token
from asap.methods.search_space import SearchDimension, doubling

USUAL = 64  # tokens of 576 patches, the class token counted: the smallest published budget


@dataclass(frozen=True)
class PruneSID(Method):
    """Groups the patches by principal component, and of each group keeps what attention and
    variety say.

    After one block: a randomised PCA of the tokens' sigmoids, with patches as variables, puts each
    patch into the group of the component on which it has the largest loading; there are `tokens //
    4`. In each group the patches are taken by class attention; those too similar (cosine of the
    tokens) to one that was taken are put off. The limit is `tokens / 32` times the mean similarity
    of all pairs, so large budgets put off nothing. Each group keeps a share (see `group_quotas`).
    Nothing is merged. The prefix comes first, then group after group, the survivors by attention.

    tokens: tokens left, the class token counted, at least 2. None: 64 for 576 patches, in
    proportion.
    block: number, from 1, of the block after whose MLP this happens; None: the last but one of the
    encoder, whose output a language model reads (see `feature_block`).
    seed: of the projection of the PCA, with the image's id. The authors draw it from the global
    generator, so that no two of their runs are alike.

    There are never more groups than channels or patches. Settings that keep everything leave the
    order as it is. In a classifier, where the method is not published, all prefix tokens stay, and
    one of them is counted. The decompositions make the host wait for a GPU, so the decision is not
    recorded. Evidence: in float64 it keeps, given the same loadings, what the authors' own function
    keeps of random inputs.
    """

    tokens: int | None = None
    block: int | None = None
    seed: int = 0
    class_row_to_llm: ClassVar[bool] = True
    own_order: ClassVar[bool] = True  # group after group
    same_cost = True
    decides_on_device = False
    position = "after_block"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tokens is None or self.tokens >= 2, "tokens", self.tokens, "at least 2")
        require(self.seed >= 0, "seed", self.seed, "at least 0")
        require_feature_block(self.block)

    @property
    def draws(self) -> bool:
        return True

    @property
    def needs(self) -> Needs:
        return Needs(Attention("class", "mean"))

    def check(self, anatomy: Anatomy) -> None:
        require_class_token(anatomy, "PruneSID")
        require_feature_block(self.block, anatomy)
        most = anatomy.patches + 1
        allowed = f"at most {most}, the class token and {anatomy.patches} patches"
        require(self.count(anatomy.patches) <= most, "tokens", self.tokens, allowed)

    def search_space(self, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
        grid = tuple(v for v in doubling(anatomy.patches + 1) if v >= 2)
        return (SearchDimension("tokens", grid, between="whole"),)

    def acts_in(self, block: int, depth: int) -> bool:
        return may_be_feature_block(self.block, block, depth)

    def count(self, patches: int) -> int:
        """Tokens left, the class token counted."""
        return max(2, in_proportion(USUAL, patches)) if self.tokens is None else self.tokens

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        patches = site.length - site.prefix
        tokens = self.count(patches)
        if site.block + 1 != feature_block(self.block, site.anatomy) or tokens > patches:
            return None
        assert site.attention is not None
        rows = site.tokens[:, site.prefix :].to(site.sizes.dtype)
        assert site.drawn is not None
        projection = site.drawn
        group = principal_groups(rows.sigmoid().transpose(1, 2), projection)
        rank = ranks(site.attention[:, site.prefix :], descending=True)
        similarity = cosine_similarities(rows)
        pairs = patches * (patches - 1) // 2
        mean = similarity.double().triu(1).sum((1, 2)) / max(pairs, 1)
        limit = (tokens / 32 * mean).to(similarity.dtype)
        survives = unsuppressed(similarity, rank, group, limit)
        count = projection.shape[2]
        quotas = _quotas(group, survives, tokens, count)
        place = group_places(group, survives, rank, quotas)
        first = torch.arange(site.prefix, device=place.device).expand(len(place), -1)
        target = torch.cat([first, torch.where(place >= 0, place + site.prefix, -1)], dim=1)
        macs = patches**2 * rows.shape[2] + principal_macs(rows.shape[2], patches, count)
        return Decision(target, site.prefix + tokens - 1, final=True, macs=macs)

    def draw(self, anatomy: Anatomy, image_ids: Sequence[int]) -> Float[Tensor, "b least groups"]:
        """The projection of the PCA: standard normal numbers for each image."""
        least = min(anatomy.width, anatomy.patches)
        size = least, min(max(1, self.count(anatomy.patches) // 4), least)
        sources = [generator(self.seed, image_id) for image_id in image_ids]
        return torch.stack([torch.randn(size, generator=one) for one in sources])


def _quotas(
    group: Int[Tensor, "b n"], survives: Tensor, tokens: int, count: int
) -> Int[Tensor, "b groups"]:
    """The quotas of every image, computed by the host."""
    none = group.new_zeros(len(group), count)
    sizes = none.scatter_add(1, group, torch.ones_like(group)).tolist()
    alive = none.scatter_add(1, group, survives.long()).tolist()
    pairs = zip(sizes, alive, strict=True)
    return torch.tensor([group_quotas(*pair, tokens) for pair in pairs], device=group.device)
