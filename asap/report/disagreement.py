"""Two records on the same images: the difference, its uncertainty, and on which images."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from asap.records.tables import matrix
from asap.report.answer_text import right_ones
from asap.report.benchmarks.numbers import NumberDifference, number_difference
from asap.report.benchmarks.values import score_of
from asap.report.result import Result, pairable
from asap.report.statistics import (
    PairedDifference,
    are_questions,
    finite,
    hits,
    leads,
    matched,
    paired_difference,
)


@dataclass(frozen=True)
class Comparison:
    """`second` against `first`. number: of a benchmark, where that is no mean of scores.

    images: those predicted differently, the surest first; columns index, id, path, label, first and
    second (predicted classes, -1 = the answer is not finite), first_right, second_right and
    sureness. Of questions also `question`; label, first and second are then texts, None = the
    answer is not finite.
    """

    first: Result
    second: Result
    paired: PairedDifference
    number: NumberDifference | None
    images: pd.DataFrame


def compare(first: Result, second: Result) -> Comparison:
    """Compare two accuracy results image by image.

    Raises RequestError if they are not over the same images with the same labels, ValueError if one
    has no answers.
    """
    one, two = pairable(first), pairable(second)
    paired = paired_difference(one, two, bool(first.measured["clustered"]))
    score = score_of(second)
    number = None if score is None else number_difference(score["name"], one, two)
    return Comparison(first, second, paired, number, _disagreements(*matched(one, two)))


def _disagreements(one: pd.DataFrame, two: pd.DataFrame) -> pd.DataFrame:
    """The images predicted differently. sureness: the smaller of the two leads of the best class
    over the second one, in logits. It is high where both are sure and one must be wrong, and -inf
    where an answer is not finite.
    """
    asked = are_questions(one)
    frame = one[["index", "id", "path", "question" if asked else "label"]].reset_index(drop=True)
    if asked:
        right = zip(one["kind"], one["answers"], strict=True)
        frame["label"] = [" | ".join(right_ones(kind, list(texts))) for kind, texts in right]
    said = _text if asked else _best
    frame["first"], frame["second"] = said(one), said(two)
    frame["first_right"], frame["second_right"] = hits(one)[0], hits(two)[0]
    frame["sureness"] = np.minimum(leads(one, np.inf), leads(two, np.inf))
    differing = frame[frame["first"] != frame["second"]]
    return differing.sort_values(
        ["sureness", "index"], ascending=[False, True], ignore_index=True, kind="stable"
    )


def _text(frame: pd.DataFrame) -> list[str | None]:
    pairs = zip(frame["text"], finite(frame), strict=True)
    return [text if answered else None for text, answered in pairs]


def _best(frame: pd.DataFrame) -> np.ndarray:
    answered = finite(frame)
    best = np.full(len(frame), -1)
    if answered.any():
        best[answered] = matrix(frame[answered], "top5")[:, 0]
    return best
