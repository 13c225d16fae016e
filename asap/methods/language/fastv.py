"""FastV (Chen et al., ECCV 2024): one cut by what the last row of the prompt attends to."""

from dataclasses import dataclass

import torch

from asap.methods.language.base import LanguageDecision, LanguageSite, Pruner
from asap.methods.option_checks import require


@dataclass(frozen=True)
class FastV(Pruner):
    """Keeps the visual rows that the last row attends to most, once, before layer K.

    The scores are the attention of layer K - 1, the mean of heads, its last row. Rows that stay
    keep their order and their positions; the next token has the same position in every layer. The
    paper's text speaks of the attention that rows receive on average; its code, which made its
    numbers, reads the last row (pkunlp-icler/FastV#14). Ties go to the lowest index.

    layer: K, the layers that see all rows, at least 1. rank: visual rows that stay. ratio: instead
    of `rank`, the share of visual rows that goes, in [0, 1); V (1 - ratio) rows stay, rounded half
    up, at least 1. Both null: ratio 0.5, the authors' point. If a question has no more than `rank`
    visual rows, all stay.
    """

    layer: int = 2
    rank: int | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.layer >= 1, "layer", self.layer, "at least 1")
        require(self.rank is None or self.rank >= 1, "rank", self.rank, "at least 1")
        require(self.ratio is None or 0 <= self.ratio < 1, "ratio", self.ratio, "in [0, 1)")
        one = self.rank is None or self.ratio is None
        require(one, "ratio", self.ratio, f"null beside rank={self.rank}")

    @property
    def reduces(self) -> bool:
        return self.ratio != 0

    def check(self, depth: int, visual_rows: int) -> None:
        require(self.layer < depth, "layer", self.layer, f"below {depth}, the model's layers")
        few = self.rank is None or self.rank <= visual_rows
        require(few, "rank", self.rank, f"at most {visual_rows}, the visual rows")

    def acts_after(self, layer: int, depth: int) -> bool:
        return layer == self.layer - 1

    def decide(self, site: LanguageSite) -> LanguageDecision | None:
        rank, span = self._rank(site.span.visual), site.span
        if rank >= span.visual:
            return None
        assert site.shares is not None
        last = torch.tensor([span.length - 1], device=site.rows.device)
        scores = site.shares(last).mean(0)[0, span.prefix : span.end]
        best = scores.argsort(descending=True, stable=True)[:rank]
        return LanguageDecision(best.sort().values)

    def _rank(self, visual: int) -> int:
        """Visual rows that stay of so many."""
        if self.rank is not None:
            return self.rank
        ratio = 0.5 if self.ratio is None else self.ratio
        return max(1, int(visual * (1 - ratio) + 0.5))
