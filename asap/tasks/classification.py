"""Classification: every example has one right class, or several, and the model ranks classes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.data.base import DataSet, Sample
from asap.errors import RequestError
from asap.records.tables import column
from asap.report.statistics import evaluated, finite, hits, share_interval
from asap.tasks.base import Task
from asap.tasks.objects import object_recall, object_share, sink_on_object

NAN = float("nan")
OBJECT = ("object_share", "object_recall", "sink_on_object")


@dataclass(frozen=True)
class Classification(Task):
    """Top-1 and top-5 of the classes in `scored`, ascending; None: of all.

    If a sample has a mask of the object's patches, its answer has columns about them.
    """

    scored: tuple[int, ...] | None = None
    name: ClassVar[str] = "classification"
    examples: ClassVar[str] = "images"
    # An answer that is not finite has no class, so its lists of classes are empty.
    columns: ClassVar[tuple[pa.Field, ...]] = (
        column("label", "int"),
        column("other_labels", "int", listed=True),  # also right, besides `label`
        column("top5", "int", listed=True),  # classes, best first
        column("top5_logits", "float", listed=True),
        column("object_share", "float"),  # object patches among patches
        column("object_recall", "float"),
        column("sink_on_object", "float"),  # 1 or 0
    )

    @classmethod
    def of(cls, data: DataSet, head: None = None) -> "Classification":
        return cls(data.scored)

    def answered(
        self,
        samples: Sequence[Sample],
        outputs: Float[Tensor, "b classes"],
        traces: Mapping[str, Tensor],
    ) -> Mapping[str, Any]:
        """An answer is not finite if any logit is NaN or infinite, even of a class not scored.

        Half precision can overflow. Such an answer names no class and counts as wrong.
        """
        best = best_named(outputs, self.scored)
        return {**self._asked(samples), **best, **_objects(samples, traces)}

    def right(
        self, samples: Sequence[Sample], outputs: Float[Tensor, "b classes"]
    ) -> Bool[Tensor, " b"]:
        return is_first(outputs, samples, self.scored)

    def unread(self, samples: Sequence[Sample]) -> Mapping[str, Any]:
        nothing = [[] for _ in samples]
        unknown = dict.fromkeys(OBJECT, [NAN] * len(samples))
        return {**self._asked(samples), "top5": nothing, "top5_logits": nothing, **unknown}

    def _asked(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {
            "label": [s.label for s in samples],
            "other_labels": [list(s.other_labels) for s in samples],
        }

    def score(self, answers: pd.DataFrame, clustered: bool) -> dict[str, Any]:
        """Counts, percentages and means; None where no example has the quantity.

        Raises RequestError if no example could be read.
        """
        found = accuracy_of(answers, clustered, self.examples)
        frame = evaluated(answers)
        return found | {name: known_mean(frame[name]) for name in OBJECT}


def accuracy_of(answers: pd.DataFrame, clustered: bool, things: str) -> dict[str, Any]:
    """The fields of a record about right answers: counts and percentages.

    Raises RequestError, about `things`, if no example could be read.
    """
    frame = evaluated(answers)
    n = len(frame)
    if n == 0:
        raise RequestError(f"none of the {len(answers)} {things} could be read: check the data")
    first, any5 = hits(frame)
    clusters = frame["cluster"].to_numpy() if clustered else None
    return {
        "n": n,
        "n_failed": len(answers) - n,
        "n_nonfinite": n - int(finite(frame).sum()),
        "correct1": int(first.sum()),
        "correct5": int(any5.sum()),
        "top1": 100 * int(first.sum()) / n,
        "top5": 100 * int(any5.sum()) / n,
        "top1_interval": [100 * bound for bound in share_interval(first, clusters)],
        "clustered": clustered,
    }


def best_named(
    logits: Float[Tensor, "b classes"], scored: tuple[int, ...] | None
) -> dict[str, Any]:
    """The columns "top5" and "top5_logits": lists that are empty where an answer is not finite."""
    classes, scores = best_classes(logits, scored)
    found: dict[str, Any] = {"top5": classes.numpy(), "top5_logits": scores.numpy()}
    finite = logits.isfinite().all(1)
    if finite.all():
        return found
    keep = finite.tolist()
    return {
        name: [list(row) if kept else [] for row, kept in zip(rows, keep, strict=True)]
        for name, rows in found.items()
    }


def is_first(
    logits: Float[Tensor, "b classes"], samples: Sequence[Sample], scored: tuple[int, ...] | None
) -> Bool[Tensor, " b"]:
    """Whether the best class is the sample's label; false where an answer is not finite."""
    best = best_classes(logits, scored)[0][:, 0]
    return logits.isfinite().all(1) & (best == torch.tensor([s.label for s in samples]))


def best_classes(
    logits: Float[Tensor, "b classes"], scored: tuple[int, ...] | None = None, count: int = 5
) -> tuple[Int[Tensor, "b k"], Float[Tensor, "b k"]]:
    """The best classes, best first, ties to the lowest class, and their logits.

    With `scored`, ascending, the best of these; they keep their numbers.
    """
    classes = torch.arange(logits.shape[1]) if scored is None else torch.tensor(scored)
    values, order = logits[:, classes].float().sort(dim=1, descending=True, stable=True)
    return classes[order[:, :count]], values[:, :count]


def known_mean(column: pd.Series) -> float | None:
    """Mean over the examples that have the quantity; None if none has.

    The sum is exact, so it does not depend on the order.
    """
    known = column.dropna().tolist()
    return math.fsum(known) / len(known) if known else None


def _objects(samples: Sequence[Sample], traces: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """The columns about the objects: NaN without a mask, or without a sink."""
    sinks = traces["sink"].tolist() if "sink" in traces else [-1] * len(samples)
    rows = [
        (NAN, NAN, NAN)
        if s.mask is None
        else (object_share(s.mask), object_recall(patches, s.mask), sink_on_object(sink, s.mask))
        for s, patches, sink in zip(samples, traces["assignment"], sinks, strict=True)
    ]
    return {name: [row[k] for row in rows] for k, name in enumerate(OBJECT)}
