"""A method that measures something of its own: how alike the patches are that it drops.

It drops the patches most like their image's mean patch, keeps a column per image with their
cosines' mean, and puts the mean over all images into the record as a metric.

python -m asap.run --config-dir examples/configs method=similarity method.keep=24
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from asap.methods.base import Anatomy, Column, Decision, Method, Site, keep_only, require


@dataclass(frozen=True)
class Similarity(Method):
    """keep: patches kept. block: index, from 0, of the block that drops the others."""

    keep: int = 32
    block: int = 3
    trace_columns: ClassVar[tuple[Column, ...]] = (Column("dropped_cosine", "float"),)

    def check(self, anatomy: Anatomy) -> None:
        require(1 <= self.keep < anatomy.patches, "keep", self.keep, "fewer than the patches")
        require(0 <= self.block < anatomy.depth, "block", self.block, "the index of a block")

    def acts_in(self, block: int, depth: int) -> bool:
        return block == self.block

    def reduce(self, site: Site, chosen: torch.Tensor | None) -> Decision:
        patches = site.tokens[:, site.prefix :].to(site.sizes.dtype)  # decide in at least float32
        cosine = torch.cosine_similarity(patches, patches.mean(1, keepdim=True), dim=-1)
        ranked = cosine.argsort(dim=1, stable=True) + site.prefix
        kept = torch.zeros_like(site.sizes, dtype=torch.bool)
        kept[:, : site.prefix] = True
        kept.scatter_(1, ranked[:, : self.keep], True)
        dropped = cosine.masked_fill(kept[:, site.prefix :], 0).sum(1)
        mean = dropped / (patches.shape[1] - self.keep)
        left = site.prefix + self.keep
        return Decision(keep_only(kept), left, diagnostics={"dropped_cosine": mean})

    def metrics(self, traces: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        return {"dropped_cosine_mean": float(np.nanmean(traces["dropped_cosine"]))}
