"""Questions about pictures: a vision-language model answers in words, a rule scores the words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from asap.core.crops import PictureRows
from asap.data.base import DataSet, Sample
from asap.data.questions.benchmark import Benchmark, benchmark_of
from asap.records.lasting import LASTING
from asap.records.tables import column
from asap.tasks.base import Task
from asap.tasks.classification import OBJECT
from asap.tasks.objects import NAN, object_recall, object_share, sink_on_object
from asap.tasks.questions_record import score_of
from asap.tasks.scoring.rules import RULES, SAID


class CannotAnswer(Exception):
    """A question that fails alone. The message is one line.

    lasts: every later try would fail too, as with a prompt that is too long; False for lack of
    memory.
    """

    def __init__(self, reason: str, lasts: bool = True) -> None:
        super().__init__(reason)
        self.lasts = lasts


@runtime_checkable
class VisualOutputs(Protocol):
    """What the vision tower gives for a batch of images."""

    def of(self, sample: Sample, first: int) -> PictureRows:
        """The visual rows of the sample's picture, whose first image has this number in the batch;
        several images of it follow each other.
        """
        ...


@dataclass(frozen=True)
class Answer:
    """What a model answered to one question, and what that cost.

    text: decoded, stripped, without special tokens; empty if the first token ended the answer.
    ids: the tokens of the answer. cut: it reached the limit of new tokens. finite: no logit was NaN
    or infinite. tokens: rows that enter each layer of the language model at prefill. gap: highest
    logit of the first step minus the second; yes_no_gap: that of "Yes" minus that of "No"; NaN
    where not known. kept: the visual rows, as in `PictureRows.held`, that leave the last layer,
    ascending, those merged from several not among them. MACs are exact integers.
    """

    text: str
    ids: tuple[int, ...]
    cut: bool
    finite: bool
    visual_rows: int  # sent to the language model
    prompt_rows: int  # of the text before and after them
    tokens: tuple[int, ...]
    kept: tuple[int, ...]
    macs_projector: int
    macs_backbone: int  # of the language model, at prefill
    macs_method: int  # of the method of the stage language
    kv_rows: int  # cached rows after prefill, summed over the layers
    kv_bytes: int  # of the cache after prefill, in the run's precision
    gap: float
    yes_no_gap: float = NAN


@runtime_checkable
class Answerer(Protocol):
    """Answers a question from the visual rows of its picture."""

    def answer(self, sample: Sample, picture: PictureRows) -> Answer:
        """The answer to `sample.extras["question"]`. Raises `CannotAnswer`."""
        ...


@dataclass(frozen=True)
class Questions(Task):
    """Answers in words. answerer: None where only the columns are asked for.

    A sample's target are its right answers, the extras "question", "kind", "category", "subset"
    are texts, "max_new_tokens" is a number. A question that cannot be answered has an `error`, and
    the values of one that could not be read.
    """

    answerer: Answerer | None = None
    benchmark: Benchmark | None = None  # whose number is to be found
    name: ClassVar[str] = "questions"
    examples: ClassVar[str] = "questions"
    columns: ClassVar[tuple[pa.Field, ...]] = (
        column("category", "text"),
        column("subset", "text"),  # of a category, such as one of POPE's three; may be empty
        column("kind", "text"),  # the rule of its score, see scoring/rules.py
        column("question", "text"),
        column("answers", "text", listed=True),  # right ones
        column("text", "text"),  # the model's answer
        column("ids", "int", listed=True),  # its tokens
        column("cut", "int"),  # 1: it reached the limit of new tokens
        column("finite", "int"),  # 0: a logit was NaN or infinite, and the score is 0
        column("said", "text"),  # yes | no | other; empty for other kinds and if not finite
        column("score", "double"),  # in [0, 1]
        column("gap", "float"),  # of the first step's two highest logits
        column("yes_no_gap", "float"),  # the first step's logit of yes minus that of no
        column("visual_rows", "int"),  # sent to the language model
        column("prompt_rows", "int"),
        column("vision.macs_backbone", "int"),  # of its picture, as in the traces
        column("vision.macs_method", "int"),
        column("projector.macs", "int"),
        column("language.tokens", "int", listed=True),  # rows into each layer, at prefill
        column("language.macs_backbone", "int"),
        column("language.macs_method", "int"),
        column("kv_rows", "int"),  # after prefill, summed over the layers
        column("kv_bytes", "int"),
        column("object_share", "float"),  # object patches among patches
        column("object_recall", "float"),  # of the visual rows that leave the last layer
        column("sink_on_object", "float"),  # 1 or 0; that of the whole picture, not of its crops
    )

    @classmethod
    def of(cls, data: DataSet, head: Answerer | None = None) -> "Questions":
        return cls(head, benchmark_of(data))

    def answered(
        self, samples: Sequence[Sample], outputs: VisualOutputs, traces: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """See `Task.answered`; the questions are answered one after the other."""
        rows: list[dict[str, Any]] = []
        for sample, images in _with_images(samples):
            own = {name: values[images] for name, values in traces.items()}
            picture = outputs.of(sample, images.start)
            try:
                answer = self._answer(sample, picture)
            except CannotAnswer as reason:
                error = f"{LASTING if reason.lasts else ''}{reason}"
                rows.append({**_asked(sample), **_nothing(), "error": error})
            else:
                about = {**_answered(sample, answer), **_costs(answer, own)}
                objects = _objects(sample, answer, picture.held, own)
                rows.append({**_asked(sample), **about, **objects, "error": None})
        return {name: [row[name] for row in rows] for name in rows[0]}

    def right(self, samples: Sequence[Sample], outputs: VisualOutputs) -> Bool[Tensor, " b"]:
        """See `Task.right`. A question that cannot be answered is not answered right."""

        def is_right(sample: Sample, first: int) -> bool:
            try:
                answer = self._answer(sample, outputs.of(sample, first))
                return _answered(sample, answer)["score"] == 1
            except CannotAnswer:
                return False

        return torch.tensor([is_right(one, images.start) for one, images in _with_images(samples)])

    def _answer(self, sample: Sample, picture: PictureRows) -> Answer:
        if self.answerer is None:
            raise ValueError("questions are not answered without an answerer")
        return self.answerer.answer(sample, picture)

    def unread(self, samples: Sequence[Sample]) -> Mapping[str, Any]:
        rows = [{**_asked(sample), **_nothing()} for sample in samples]
        return {field.name: [row[field.name] for row in rows] for field in self.columns}

    def score(self, answers: pd.DataFrame, clustered: bool) -> dict[str, Any]:
        """See `score_of`."""
        return score_of(answers, clustered, self.examples, self.benchmark)


def _with_images(samples: Sequence[Sample]) -> Iterator[tuple[Sample, slice]]:
    """The samples, each with the places of its images in the batch."""
    first = 0
    for sample in samples:
        yield sample, slice(first, first + sample.n_images)
        first += sample.n_images


def _asked(sample: Sample) -> dict[str, Any]:
    texts = {name: sample.extras[name] for name in ("category", "subset", "kind", "question")}
    return {**texts, "answers": list(sample.target)}


def _answered(sample: Sample, answer: Answer) -> dict[str, Any]:
    kind = sample.extras["kind"]
    return {
        "text": answer.text,
        "ids": list(answer.ids),
        "cut": int(answer.cut),
        "finite": int(answer.finite),
        "said": SAID[kind](answer.text) if kind in SAID and answer.finite else "",
        "score": RULES[kind](answer.text, sample.target) if answer.finite else 0.0,
        "gap": answer.gap,
        "yes_no_gap": answer.yes_no_gap,
    }


def _costs(answer: Answer, trace: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "visual_rows": answer.visual_rows,
        "prompt_rows": answer.prompt_rows,
        "vision.macs_backbone": int(trace["macs_backbone"].sum()),
        "vision.macs_method": int(trace["macs_method"].sum()),
        "projector.macs": answer.macs_projector,
        "language.tokens": list(answer.tokens),
        "language.macs_backbone": answer.macs_backbone,
        "language.macs_method": answer.macs_method,
        "kv_rows": answer.kv_rows,
        "kv_bytes": answer.kv_bytes,
    }


def _objects(
    sample: Sample, answer: Answer, held: Int[Tensor, "patches"], trace: Mapping[str, Tensor]
) -> dict[str, float]:
    """The columns about the objects: NaN without a mask, or without a sink.

    A patch whose row a method of the language stage dropped or merged counts as dropped.
    """
    if sample.mask is None:
        return dict.fromkeys(OBJECT, NAN)
    left = torch.isin(held, torch.tensor(answer.kept, dtype=held.dtype))
    sink = int(trace["sink"][0]) if "sink" in trace else -1  # of the whole picture
    return {
        "object_share": object_share(sample.mask),
        "object_recall": object_recall(torch.where(left, held, -1), sample.mask),
        "sink_on_object": sink_on_object(sink, sample.mask),
    }


def _nothing() -> dict[str, Any]:
    """The values of a question without an answer."""
    counts = ("visual_rows", "prompt_rows", "vision.macs_backbone", "vision.macs_method")
    counts += ("projector.macs", "language.macs_backbone", "language.macs_method")
    return {
        **{"text": "", "ids": [], "cut": 0, "finite": 0, "said": "", "language.tokens": []},
        **{"score": 0.0, "gap": math.nan, "yes_no_gap": math.nan},
        **dict.fromkeys((*counts, "kv_rows", "kv_bytes"), 0),
        **dict.fromkeys(OBJECT, NAN),
    }
