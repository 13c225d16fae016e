"""What a pruner decides about the rows of a question, and its application."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.backbones.llava.language import LanguageModel
from asap.engine.checks import WrongDecision
from asap.engine.decoder.checks import checked
from asap.engine.decoder.layer import Heads, attention_rows
from asap.errors import one_line
from asap.methods.language.base import LanguageDecision, LanguageSite, Pruner, Span


@dataclass(frozen=True)
class Prompt:
    """The rows of a question between two layers.

    positions (n,): of each row, ascending. next_position: of the row that would follow. visual: the
    place of each visual row among those first given, -1: merged from several.
    """

    rows: Float[Tensor, "1 n dim"]
    span: Span
    positions: Int[Tensor, "n"]
    next_position: int
    visual: Int[Tensor, "v"]

    def with_rows(self, rows: Float[Tensor, "1 n dim"]) -> "Prompt":
        """The same rows after a layer."""
        return replace(self, rows=rows)


@dataclass
class Pruning:
    """A pruner at work on one question. macs: of the pruner and the attention that it read."""

    pruner: Pruner
    state: Any
    macs: int = 0

    def after(
        self, layer: int, prompt: Prompt, language: LanguageModel, heads: Heads | None
    ) -> Prompt:
        """The rows as the pruner leaves them after a layer, whose heads are given.

        WrongDecision if `decide` raises a ValueError, and for an answer of a user's own pruner
        that cannot be applied.
        """
        if not self.pruner.acts_after(layer, len(language.layers)):
            return prompt

        def shares(index: Int[Tensor, "r"]) -> Float[Tensor, "heads r n"]:
            assert heads is not None
            self.macs += len(index) * prompt.span.length * language.cost.attention_width
            return attention_rows(heads, index, language.layers[layer].self_attn.scaling)

        site = LanguageSite(
            layer, len(language.layers), prompt.rows[0], prompt.span,
            None if heads is None else shares, self.state,
        )  # fmt: skip
        decision = self._decided(site)
        if decision is None:
            return prompt
        self.macs += decision.macs
        return _applied(prompt, decision)

    def _decided(self, site: LanguageSite) -> LanguageDecision | None:
        try:
            decision = self.pruner.decide(site)
        except ValueError as error:  # a fault of the pruner: only `start` may refuse a question
            raise WrongDecision(f"decide raised a ValueError: {one_line(error)}") from error
        return checked(self.pruner, site, decision)


def _applied(prompt: Prompt, decision: LanguageDecision) -> Prompt:
    """The prompt with the visual rows that stay, merged rows behind them."""
    span, device = prompt.span, prompt.rows.device
    merged = prompt.rows[0, :0] if decision.merged is None else decision.merged
    visual = span.prefix + decision.keep
    every = torch.arange(span.length, device=device)
    before, behind = every[: span.prefix], every[span.end :]
    rows = prompt.rows[0]
    kept = torch.cat([rows[before], rows[visual], merged.to(rows.dtype), rows[behind]])
    if decision.positions == "reindex":
        positions, following = torch.arange(len(kept), device=device), len(kept)
    else:
        positions = prompt.positions[torch.cat([before, visual, behind])]
        following = prompt.next_position
    places = torch.cat([prompt.visual[decision.keep], prompt.visual.new_full((len(merged),), -1)])
    span = replace(span, visual=len(places))
    return Prompt(kept[None], span, positions, following, places)
