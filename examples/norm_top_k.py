"""A method of one's own: keep the k patches with the largest norm, from one block on.

python -m asap.run --config-dir examples/configs method=norm_top_k method.k=24
"""

from dataclasses import dataclass

import torch

from asap.methods.base import Anatomy, Decision, Method, Site, keep_only, require


@dataclass(frozen=True)
class NormTopK(Method):
    """k: patches kept. block: index, from 0, of the block that drops the others before its MLP."""

    k: int = 32
    block: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.k >= 1, "k", self.k, "at least 1")

    def check(self, anatomy: Anatomy) -> None:
        require(self.k <= anatomy.patches, "k", self.k, f"at most {anatomy.patches}")

    def acts_in(self, block: int, depth: int) -> bool:
        return block == self.block

    def reduce(self, site: Site, chosen: torch.Tensor | None) -> Decision:
        norms = site.tokens.to(site.sizes.dtype).norm(dim=-1)  # decide in at least float32
        norms[:, : site.prefix] = float("inf")  # the class token always stays
        ranked = norms.argsort(dim=1, descending=True, stable=True)
        kept = torch.zeros_like(norms, dtype=torch.bool)
        kept.scatter_(1, ranked[:, : site.prefix + self.k], True)
        return Decision(keep_only(kept), site.prefix + self.k, macs=site.tokens[0].numel())
