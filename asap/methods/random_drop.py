"""Drop patches at random: what any method has to beat."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from asap.methods.base import Anatomy, Decision, Method, Site, generator, keep_only, require
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
    same_cost: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.keep <= 1, "keep", self.keep, "in (0, 1]")
        require(self.seed >= 0, "seed", self.seed, "at least 0")
        require(self.block >= 0, "block", self.block, "at least 0")

    @property
    def draws(self) -> bool:
        return True

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
        count = max(1, int(self.keep * site.anatomy.patches + 0.5))
        if count == site.anatomy.patches:
            return None
        kept = torch.zeros(len(site.images), site.length, dtype=torch.bool)
        kept[:, : site.prefix] = True
        for row, image_id in zip(kept, site.image_ids or (), strict=True):
            drawn = torch.randperm(site.anatomy.patches, generator=generator(self.seed, image_id))
            row[site.prefix + drawn[:count]] = True
        return Decision(keep_only(kept).to(site.tokens.device), site.prefix + count)
