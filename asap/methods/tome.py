"""ToMe: token merging (Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from asap.core.matching import bipartite_matching, mean_of_heads
from asap.core.pooling import mean_weights
from asap.methods.base import Anatomy, Decision, Method, Needs, Site, require
from asap.methods.schedule import is_schedule, removed_to_leave, tokens_removed
from asap.methods.search_space import SearchDimension, doubling

USUAL = (8, 12, 196)  # our default r, and the blocks and patches it is for


@dataclass(frozen=True)
class ToMe(Method):
    """Merges the r most similar pairs of tokens in every block, by the keys of its attention.

    In one block, after the attention: tokens at even places look for their most similar token at an
    odd place; the r best pairs merge into size-weighted means; the MLP sees n - r tokens.

    r: tokens removed per block: a number, (r, inflection) or a list, see `tokens_removed`; never
    more than half of the tokens that are not prefix tokens. None: 8 in 12 blocks of 196 patches,
    and for another backbone what removes the same share of its patches (a default of ours).
    tokens: beside r=None: how many tokens made of patches are left at the end, exactly, removed
    evenly over the depth (see `removed_to_leave`). For a language model, no setting is public.
    proportional_attention: add log(size) to the attention logits (the authors' default for
    supervised models).

    With more than two prefix tokens (registers) all of them are protected, which the authors' code,
    knowing class and distillation tokens only, does not do.
    """

    r: int | Sequence[int | float] | None = None
    proportional_attention: bool = True
    tokens: int | None = None
    came_later: ClassVar[tuple[str, ...]] = ("tokens",)
    same_cost = True

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = isinstance(self.r, int) and not isinstance(self.r, bool) and self.r >= 0
        allowed = "a whole number at least 0, (r, inflection in [-1, 1]) or a list of such numbers"
        require(self.r is None or whole or is_schedule(self.r), "r", self.r, allowed)
        require(self.tokens is None or self.tokens >= 1, "tokens", self.tokens, "at least 1")
        alone = self.tokens is None or self.r is None
        require(alone, "tokens", self.tokens, f"None beside r={self.r!r}")

    @property
    def needs(self) -> Needs:
        return Needs(keys=True, tokens=False)

    def check(self, anatomy: Anatomy) -> None:
        if isinstance(self.r, tuple):
            fits = len(self.r) <= anatomy.depth
            require(fits, "r", self.r, f"a list of at most {anatomy.depth} numbers, one a block")
        if self.tokens is not None:
            some = f"at most {anatomy.patches}, the patches"
            require(self.tokens <= anatomy.patches, "tokens", self.tokens, some)
            least = anatomy.patches - sum(self.removed(anatomy))
            all_of_it = f"at least {least}, as {anatomy.depth} blocks halve the patches at most"
            require(self.tokens >= least, "tokens", self.tokens, all_of_it)
        most = max(self.removed(anatomy))
        require(most <= anatomy.patches, "r", self.r, f"at most {anatomy.patches}, the patches")

    def search_space(self, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
        most = anatomy.patches // 2
        if self.tokens is not None:
            least = -(-anatomy.patches // 2**anatomy.depth)
            grid = tuple(v for v in doubling(anatomy.patches) if v >= least)
            return (SearchDimension("tokens", grid, between="whole"),)
        return (SearchDimension("r", doubling(most), between="whole", blocks=anatomy.depth),)

    def removed(self, anatomy: Anatomy) -> tuple[int, ...]:
        """Tokens to remove in each block, as far as there are enough."""
        if self.tokens is not None:
            return removed_to_leave(self.tokens, anatomy.patches, anatomy.depth)
        r, depth, patches = USUAL
        scaled = (r * depth * anatomy.patches / (anatomy.depth * patches)) + 0.5
        return tokens_removed(max(1, int(scaled)) if self.r is None else self.r, anatomy.depth)

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        planned = self.removed(site.anatomy)[site.block]
        r = min(planned, (site.length - site.prefix) // 2)
        if r <= 0:
            return None
        assert site.keys is not None
        metric = mean_of_heads(site.keys, site.sizes)
        target = bipartite_matching(metric, r, site.prefix)
        products = ((site.length + 1) // 2) * (site.length // 2) * metric.shape[-1]
        return Decision(target, site.length - r, mean_weights(site.sizes, target), macs=products)
