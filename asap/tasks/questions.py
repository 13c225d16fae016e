"""Questions about pictures: a vision-language model answers in words, a rule scores the words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.data.base import DataSet, Sample
from asap.records.tables import column
from asap.tasks.base import Task


class CannotAnswer(Exception):
    """A question that fails alone, such as for lack of memory. The message is one line."""


class VisualOutputs(Protocol):
    """What the vision tower gives for a batch of pictures.

    held: the visual row, counted from 0 in the order in which the rows are sent to the language
    model, that each patch ended in; -1: it was dropped.
    """

    @property
    def held(self) -> Int[Tensor, "b patches"]: ...
    def of(self, i: int) -> Float[Tensor, "rows width"]: ...  # before the projector


@dataclass(frozen=True)
class Answer:
    """What a model answered to one question, and what that cost.

    text: decoded, stripped, without special tokens; empty if the first token ended the answer.
    ids: the tokens of the answer. cut: it reached the limit of new tokens. finite: no logit was NaN
    or infinite. tokens: rows that enter each layer of the language model at prefill. gap: highest
    logit of the first step minus the second; yes_no_gap: that of "Yes" minus that of "No"; NaN
    where not known. kept: the visual rows, as in `VisualOutputs.held`, that are left as they are in
    the last layer, ascending; None: all of them. MACs are exact integers.
    """

    text: str
    ids: tuple[int, ...]
    cut: bool
    finite: bool
    visual_rows: int  # sent to the language model
    prompt_rows: int  # of the text before and after them
    tokens: tuple[int, ...]
    macs_projector: int
    macs_backbone: int  # of the language model, at prefill
    macs_method: int  # of the method of the stage language
    kv_rows: int  # cached rows after prefill, summed over the layers
    kv_bytes: int  # of the cache after prefill, in the run's precision
    gap: float
    yes_no_gap: float
    kept: Int[Tensor, "kept"] | None = None


class Answerer(Protocol):
    """Answers a question from the visual rows of its picture."""

    def answer(
        self, sample: Sample, rows: Float[Tensor, "rows width"], held: Int[Tensor, "patches"]
    ) -> Answer:
        """The answer to `sample.extras["question"]`. Raises `CannotAnswer`."""
        ...


@dataclass(frozen=True)
class Questions(Task):
    """Answers in words. answerer: None where only the columns are asked for.

    Column of answers: `said` is what an answer to a yes/no question says, "" for other kinds and
    for an answer that is not finite; `score` is in [0, 1]. A question that cannot be answered has
    an `error`, and the values of one that could not be read.
    """

    answerer: Answerer | None = None
    name: ClassVar[str] = "questions"
    examples: ClassVar[str] = "questions"
    columns: ClassVar[tuple[pa.Field, ...]] = (
        column("category", "text"),
        column("subset", "text"),  # of a category, such as one of POPE's three; may be empty
        column("kind", "text"),  # yes_no | exact | letter | vqa: the rule of its score
        column("question", "text"),
        column("answers", "text", listed=True),  # right ones
        column("text", "text"),  # the model's answer
        column("ids", "int", listed=True),  # its tokens
        column("cut", "int"),  # 1: it reached the limit of new tokens
        column("finite", "int"),  # 0: a logit was NaN or infinite, the score is then 0
        column("said", "text"),  # yes | no | other, of a yes/no question
        column("score", "float"),
        column("gap", "float"),  # of the first step's two highest logits
        column("yes_no_gap", "float"),  # the first step's logit of yes minus that of no
        column("visual_rows", "int"),
        column("prompt_rows", "int"),
        column("vision.macs_backbone", "int"),
        column("vision.macs_method", "int"),
        column("projector.macs", "int"),
        column("language.tokens", "int", listed=True),  # rows into each layer, at prefill
        column("language.macs_backbone", "int"),
        column("language.macs_method", "int"),
        column("kv_rows", "int"),  # after prefill, summed over the layers
        column("kv_bytes", "int"),
        column("object_share", "float"),  # object patches among patches
        column("object_recall", "float"),  # of the rows left in the last layer
        column("sink_on_object", "float"),
    )

    @classmethod
    def of(cls, data: DataSet, head: Answerer | None = None) -> "Questions":
        return cls(head)

    def answered(
        self, samples: Sequence[Sample], outputs: VisualOutputs, traces: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """See `Task.answered`; a question after the other."""
        raise NotImplementedError

    def right(self, samples: Sequence[Sample], outputs: VisualOutputs) -> Bool[Tensor, " b"]:
        """See `Task.right`."""
        raise NotImplementedError

    def unread(self, samples: Sequence[Sample]) -> Mapping[str, Any]:
        raise NotImplementedError

    def score(self, answers: pd.DataFrame, clustered: bool) -> dict[str, Any]:
        """Fields of a record: those of accuracy, with `top1` and `top5` 100 times the mean score;
        MACs of the whole model, tower, projector and prefill (`gmacs_backbone`), of the methods of
        both stages (`gmacs_method`), `gmacs_sd` of their sum, `gmacs_no_attention` None; and
        `questions`, a `QuestionsRecord`. They take the place of those of the tower alone.
        """
        raise NotImplementedError
