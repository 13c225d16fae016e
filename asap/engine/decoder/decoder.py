"""One question through the language model, greedily, with a pruner between its layers."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from asap.backbones.llava.language import LanguageModel
from asap.methods.language.base import Pruner


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
    """A language model under a pruner; None: it runs in full.

    Raises ValueError if the pruner's options do not fit the model's depth.
    """

    def __init__(self, language: LanguageModel, pruner: Pruner | None = None):
        self.language = language
        self.pruner = pruner

    def generate(
        self,
        visual: Float[Tensor, "m dim"],
        prefix_ids: Sequence[int],
        suffix_ids: Sequence[int],
        max_new_tokens: int,
        eos: Sequence[int],
        objects: Bool[Tensor, "m"] | None = None,
    ) -> Generated:
        """The greedy answer to prefix, projected visual rows and suffix.

        eos: ids that end an answer. objects: which visual rows hold mostly patches of objects.
        ValueError if the prompt is longer than the model's positions, or if the pruner lacks
        something.
        """
        raise NotImplementedError
