"""Drop patches at random: what any method has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from asap.methods.base import Anatomy, Decision, Method, Needs, Site, generator, keep_only, require
from asap.methods.search_space import SearchDimension


@dataclass(frozen=True)
class RandomDrop(Method):
    """Keeps a random share of the patches from one block on.

    In its block, after the attention: every image draws which patches stay; the MLP sees these.

    keep: share of patches kept, in (0, 1]; the count is rounded half up and at least 1.
    block: index, from 0, of the block between whose attention and MLP the others are dropped.
    seed: with the image's id, decides which.
    """

    keep: float = 0.5
    block: int = 3
    seed: int = 0
    same_cost = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.keep <= 1, "keep", self.keep, "in (0, 1]")
        require(self.seed >= 0, "seed", self.seed, "at least 0")
        require(self.block >= 0, "block", self.block, "at least 0")

    @property
    def draws(self) -> bool:
        return True

    @property
    def needs(self) -> Needs:
        return Needs(tokens=False)

    def check(self, anatomy: Anatomy) -> None:
        require(self.block < anatomy.depth, "block", self.block, f"below {anatomy.depth}")

    def search_space(self, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
        counts = range(1, anatomy.patches + 1)
        earlier, later = self.block // 2, (self.block + anatomy.depth) // 2
        return (
            SearchDimension("keep", tuple(round(count / anatomy.patches, 4) for count in counts)),
            SearchDimension("block", beyond=tuple({earlier, later} - {self.block})),
        )

    def acts_in(self, block: int, depth: int) -> bool:
        return block == self.block

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        count = self._count(site.anatomy)
        if count == site.anatomy.patches:
            return None
        assert site.drawn is not None
        return Decision(keep_only(site.drawn), site.prefix + count)

    def draw(self, anatomy: Anatomy, image_ids: Sequence[int]) -> Bool[Tensor, "b n"]:
        """Which tokens every image keeps."""
        kept = torch.zeros(len(image_ids), anatomy.tokens, dtype=torch.bool)
        kept[:, : anatomy.prefix] = True
        for row, image_id in zip(kept, image_ids, strict=True):
            drawn = torch.randperm(anatomy.patches, generator=generator(self.seed, image_id))
            row[anatomy.prefix + drawn[: self._count(anatomy)]] = True
        return kept

    def _count(self, anatomy: Anatomy) -> int:
        """Patches kept."""
        return max(1, int(self.keep * anatomy.patches + 0.5))
