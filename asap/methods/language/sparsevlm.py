"""SparseVLM (Zhang et al., ICML 2025): cuts by what selected text rows attend to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.density_peaks import density_peaks
from asap.methods.feature_block import in_proportion
from asap.methods.language.base import LanguageDecision, LanguageSite, Pruner, Span
from asap.methods.option_checks import require

DEPTH, LAYERS, KEEP = 32, (2, 6, 15), (66, 30, 17)  # the published point at an average of 64 rows


@dataclass(frozen=True)
class Raters:
    """The text rows that rate visual rows, indices into the rows behind these.

    visual: visual rows before the first layer. macs: of finding the raters.
    """

    index: Int[Tensor, "r"]
    visual: int
    macs: int


@dataclass(frozen=True)
class SparseVLM(Pruner):
    """Cuts visual rows behind a few layers and merges some of those that go.

    Raters: text rows behind the picture whose share in the softmax over text of (visual embedding .
    text embedding), the mean over visual rows, is above the mean. Behind each of `layers` a visual
    row's score is the attention of that layer from the raters, the mean over raters and heads. The
    best `keep` stay, at most all but one. Of the others the best 30 % (rounded down, plus one) are
    clustered by density peaks into a tenth as many clusters (rounded down, plus one), whose means
    are put behind the visual rows that stay. Positions count anew in the layers that follow.

    The authors' version 1 with its fixed lists; their second version, which keeps positions and
    merges nothing, is not what published tables use. Their noise on densities is left out; ties go
    to the lowest index. If no text row is above the mean, as with a single one, all of them rate.

    layers: layers, from 0, behind which rows are cut; an empty list switches the method off. None:
    2, 6, 15 of 32 layers, and alike for other depths. keep: visual rows that stay there, as many
    numbers. None: 66, 30, 17 of 576, in proportion to the visual rows of the question. The authors'
    lists for an average of 192, 128, 96 and 64 rows: 300, 200, 110; 303, 110, 36; 238, 48, 26; 66,
    30, 17.
    """

    layers: Sequence[int] | None = None
    keep: Sequence[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is not None:
            rising = _whole(self.layers) and list(self.layers) == sorted(set(self.layers))
            require(rising, "layers", self.layers, "rising whole numbers")
            low = all(layer >= 0 for layer in self.layers)
            require(low, "layers", self.layers, "at least 0")
        if self.keep is not None:
            require(_whole(self.keep), "keep", self.keep, "whole numbers")
            require(all(k >= 1 for k in self.keep), "keep", self.keep, "at least 1")
        many = len(LAYERS if self.layers is None else self.layers)
        one_each = len(KEEP if self.keep is None else self.keep) == many
        require(one_each or not many, "keep", self.keep, f"{many} numbers, one for each layer")

    @property
    def reduces(self) -> bool:
        return self.layers is None or bool(self.layers)

    def check(self, depth: int, visual_rows: int) -> None:
        below = all(layer < depth - 1 for layer in self.layers or ())
        require(below, "layers", self.layers, f"below {depth - 1}, the model's last layer")
        few = all(k <= visual_rows for k in self.keep or ())
        require(few, "keep", self.keep, f"at most {visual_rows}, the visual rows")

    def acts_after(self, layer: int, depth: int) -> bool:
        return layer in self._layers(depth)

    def start(
        self, rows: Float[Tensor, "n dim"], span: Span, objects: Bool[Tensor, "visual"] | None
    ) -> Raters:
        kind = torch.promote_types(rows.dtype, torch.float32)
        visual = rows[span.prefix : span.end].to(kind)
        text = rows[span.end :].to(kind)
        shares = (visual @ text.T).softmax(1).mean(0)
        rate = shares > shares.mean()
        index = (rate | ~rate.any()).nonzero()[:, 0]
        return Raters(index, span.visual, span.visual * span.suffix * rows.shape[1])

    def decide(self, site: LanguageSite) -> LanguageDecision | None:
        if not (span := site.span).visual:
            return None
        raters, which = site.state, self._layers(site.depth).index(site.layer)
        assert site.shares is not None
        scores = site.shares(span.end + raters.index).mean((0, 1))[span.prefix : span.end]
        order = scores.argsort(descending=True, stable=True)
        kept, others = order.tensor_split([min(self._keep(which, raters.visual), span.visual - 1)])
        recycled = others[: int(0.3 * len(others)) + 1]  # the best of those that go, best first
        rows = site.rows[span.prefix + recycled]
        kind = torch.promote_types(rows.dtype, torch.float32)
        merged = density_peaks(rows.to(kind), len(recycled) // 10 + 1)
        macs = len(recycled) ** 2 * rows.shape[1]
        if which == 0:
            macs += raters.macs
        return LanguageDecision(kept.sort().values, merged.to(rows), "reindex", macs)

    def _layers(self, depth: int) -> list[int]:
        """The layers, of so many, behind which rows are cut."""
        if self.layers is not None:
            return list(self.layers)
        found: list[int] = []
        for layer in LAYERS:
            found.append(max([(2 * layer * depth + DEPTH) // (2 * DEPTH), *(k + 1 for k in found)]))
        return [layer for layer in found if layer < depth - 1]

    def _keep(self, which: int, visual: int) -> int:
        """Rows that stay at a cut, of so many before the first one."""
        return in_proportion(KEEP[which], visual) if self.keep is None else self.keep[which]


def _whole(numbers: Any) -> bool:
    """True for a tuple of whole numbers."""
    return isinstance(numbers, tuple) and all(type(number) is int for number in numbers)
