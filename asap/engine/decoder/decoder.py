"""One question through the language model, greedily, with a pruner between its layers.

The layers are walked here, by their own submodules: transformers' forward passes and caches want
equally many rows in every layer. One question at a time, so that the bits of an answer depend on
nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.backbones.llava.language import LanguageModel
from asap.core.order import best_class
from asap.engine.decoder.layer import LayerCache, heads_of, output_of
from asap.engine.decoder.pruning import Prompt, Pruning
from asap.methods.language.base import BEFORE_FIRST, Pruner, Span

Ids = Sequence[int] | Int[Tensor, "_"]  # "_": any number of them


@dataclass(frozen=True)
class Prefilled:
    """A prompt that the language model has read.

    logits: of the first generated token, in the model's precision. caches: of each layer, to which
    `Decoder.step` adds. positions: of the rows in each layer. Otherwise as in `Generated`.
    """

    logits: Float[Tensor, "vocabulary"]
    caches: tuple[LayerCache, ...]
    positions: tuple[Int[Tensor, "n"], ...]
    visual: Int[Tensor, "kept"]
    macs: int
    macs_pruner: int

    @property
    def rows(self) -> tuple[int, ...]:
        return tuple(len(positions) for positions in self.positions)


@dataclass(frozen=True)
class Generated:
    """An answer, and what it took.

    ids: generated token ids, the end token not among them. cut: the answer was ended by the limit
    of tokens or positions. finite: False if some logits were NaN or infinite; the answer ends
    there. rows: rows that entered each layer in the prefill. visual: of the visual rows that were
    given, those that left the last layer, ascending (rows merged from several are not among them).
    next_positions: position of the first generated token in each layer. macs_prefill: of the
    language model up to the first logits. macs_pruner: the pruner's own work, with the attention
    that it read. kv_rows: rows in the caches of all layers after the prefill. first: logits of the
    first step, float32, on the CPU.
    """

    ids: tuple[int, ...]
    cut: bool
    finite: bool
    rows: tuple[int, ...]
    visual: tuple[int, ...]
    next_positions: tuple[int, ...]
    macs_prefill: int
    macs_pruner: int
    kv_rows: int
    first: Float[Tensor, "vocabulary"]


class Decoder:
    """A language model under a pruner; None: it runs in full."""

    def __init__(self, language: LanguageModel, pruner: Pruner | None = None):
        self.language = language
        self.pruner = pruner

    @torch.no_grad()
    def prefill(
        self,
        visual: Float[Tensor, "m dim"],
        prefix_ids: Ids,
        suffix_ids: Ids,
        room: int,
        objects: Bool[Tensor, "m"] | None = None,
    ) -> Prefilled:
        """Read prefix, projected visual rows and suffix. room: tokens that `step` may follow with.

        ValueError if there is no suffix, if the prompt is longer than the model's positions, or if
        the pruner lacks something.
        """
        language, pruner = self.language, self.pruner
        span = Span(len(prefix_ids), len(visual), len(suffix_ids))
        _check(span, language.positions)
        ids = [torch.as_tensor(i, device=language.device) for i in (prefix_ids, suffix_ids)]
        before, behind = (language.embed(i.long()) for i in ids)
        rows = torch.cat([before, visual.to(before), behind])
        every = torch.arange(span.length, device=rows.device)
        prompt = Prompt(rows[None], span, every, span.length, every[: span.visual])
        pruning = None if pruner is None else Pruning(pruner, pruner.start(rows, span, objects))
        cos, sin = language.rotary()
        caches, positions = [], []
        with torch.autocast(rows.device.type, enabled=False):
            if pruning is not None:
                prompt = pruning.after(BEFORE_FIRST, prompt, language, None)
            for index, layer in enumerate(language.layers):
                rotation = cos[prompt.positions], sin[prompt.positions]
                heads = heads_of(layer, prompt.rows, rotation)
                rows = output_of(layer, prompt.rows, heads.queries, heads.keys, heads.values)
                caches.append(LayerCache.of(heads.keys, heads.values, prompt.next_position, room))
                positions.append(prompt.positions)
                prompt = prompt.with_rows(rows)
                if pruning is not None:
                    prompt = pruning.after(index, prompt, language, heads)
            logits = self._logits(prompt.rows)
        return Prefilled(
            logits, tuple(caches), tuple(positions), prompt.visual[prompt.visual >= 0],
            language.cost.prefill([len(p) for p in positions]),
            0 if pruning is None else pruning.macs,
        )  # fmt: skip

    @torch.no_grad()
    def step(
        self, prefilled: Prefilled, token: int | Int[Tensor, ""]
    ) -> Float[Tensor, "vocabulary"]:
        """Logits after one more token, which is added to the caches."""
        language = self.language
        cos, sin = language.rotary()
        token = torch.as_tensor(token, device=language.device)
        rows = language.embed(token.view(1))[None]
        with torch.autocast(rows.device.type, enabled=False):
            for layer, cache in zip(language.layers, prefilled.caches, strict=True):
                at = slice(cache.position, cache.position + 1)
                heads = heads_of(layer, rows, (cos[at], sin[at]))
                keys, values = cache.add(heads.keys, heads.values)
                rows = output_of(layer, rows, heads.queries, keys, values)
            return self._logits(rows)

    def generate(
        self,
        visual: Float[Tensor, "m dim"],
        prefix_ids: Ids,
        suffix_ids: Ids,
        max_new_tokens: int,
        eos: Sequence[int],
        objects: Bool[Tensor, "m"] | None = None,
    ) -> Generated:
        """The greedy answer to prefix, projected visual rows and suffix.

        eos: ids that end an answer. objects: which visual rows hold mostly patches of objects.
        ValueError as in `prefill`.
        """
        longest = self.language.positions - len(prefix_ids) - len(visual) - len(suffix_ids)
        room = max(0, min(max_new_tokens - 1, longest))  # the last token is never read
        found = self.prefill(visual, prefix_ids, suffix_ids, room, objects)
        following = tuple(cache.position for cache in found.caches)
        logits, ids, best = found.logits, [], best_class(found.logits)
        while best is not None and best not in eos:
            ids.append(best)
            if len(ids) > room:
                break
            logits = self.step(found, best)
            best = best_class(logits)
        return Generated(
            ids=tuple(ids),
            cut=best is not None and best not in eos,
            finite=best is not None,
            rows=found.rows,
            visual=tuple(found.visual.tolist()),
            next_positions=following,
            macs_prefill=found.macs,
            macs_pruner=found.macs_pruner,
            kv_rows=sum(found.rows),
            first=found.logits.float().cpu(),
        )

    def _logits(self, rows: Float[Tensor, "1 n dim"]) -> Float[Tensor, "vocabulary"]:
        """Logits of the last row alone."""
        return self.language.lm_head(self.language.norm(rows[0, -1:]))[0]


def _check(span: Span, positions: int) -> None:
    """ValueError if a prompt cannot be read."""
    if not span.suffix:
        raise ValueError("the prompt has no text after the picture: ask a question")
    if span.length > positions:
        raise ValueError(
            f"the prompt has {span.length} rows ({span.visual} of them visual), more than the "
            f"model's {positions} positions: ask a shorter question, or keep fewer visual rows"
        )
