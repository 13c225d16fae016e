"""What a record of questions says, from its table of answers."""

import math
from typing import Any

import numpy as np
import pandas as pd

from asap.records.question_schema import QuestionsRecord, Share, YesNo
from asap.records.tables import matrix
from asap.report.statistics import evaluated, finite, mean_interval, scores, share_interval
from asap.report.yes_no import Counts, f1_interval
from asap.tasks.classification import OBJECT, accuracy_of, known_mean
from asap.tasks.scoring.yes_no import NO, OTHER

ALL = "all"  # in the place of a subset's name; no subset has it
MIB = 2**20  # bytes
_MODEL = ("vision.macs_backbone", "projector.macs", "language.macs_backbone")
_METHODS = ("vision.macs_method", "language.macs_method")


def score_of(answers: pd.DataFrame, clustered: bool, things: str) -> dict[str, Any]:
    """The fields of a record that come from the answers.

    `top1`, `top5` and their interval are of the mean score, in percent; right is an answer with a
    score of 1. GMACs are of the whole model (tower, projector, prefill) and of the methods of both
    stages; they take the place of those of the tower alone. RequestError, about `things`, if no
    question could be answered.
    """
    found = accuracy_of(answers, clustered, things)
    frame = evaluated(answers).sort_values("index")  # categories in the order of the questions
    share = _share(frame, clustered)
    method = _summed(frame, _METHODS)
    model = _summed(frame, _MODEL)
    total = np.array([a + b for a, b in zip(model, method, strict=True)], dtype=np.float64)
    return {
        **found,
        "top1": share["score"],
        "top5": share["score"],
        "top1_interval": [share["lo"], share["hi"]],
        **{name: known_mean(frame[name]) for name in OBJECT},
        "gmacs_backbone": _giga(model),
        "gmacs_method": _giga(method),
        "gmacs_sd": float(total.std(ddof=1)) / 1e9 if len(total) > 1 else 0.0,
        "gmacs_no_attention": None,
        "questions": _record(frame, clustered),
    }


def _record(frame: pd.DataFrame, clustered: bool) -> QuestionsRecord:
    categories = {
        str(name): _share(own, clustered) for name, own in frame.groupby("category", sort=False)
    }
    layers = matrix(frame, "language.tokens")
    return QuestionsRecord(
        categories=categories,
        yes_no=_yes_no_by_category(frame),
        average=math.fsum(one["score"] for one in categories.values()) / len(categories),
        pictures=frame["cluster"].nunique(),
        n_cut=int(frame["cut"].sum()),
        n_empty=int((frame["text"] == "").sum()),
        visual_rows=_mean(frame, "visual_rows"),
        prompt_rows=_mean(frame, "prompt_rows"),
        layer_rows=[int(total) / len(frame) for total in layers.sum(axis=0)],
        gmacs_tower=_mean(frame, "vision.macs_backbone") / 1e9,
        gmacs_projector=_mean(frame, "projector.macs") / 1e9,
        gmacs_prefill=_mean(frame, "language.macs_backbone") / 1e9,
        gmacs_vision_method=_mean(frame, "vision.macs_method") / 1e9,
        gmacs_language_method=_mean(frame, "language.macs_method") / 1e9,
        kv_mib=_mean(frame, "kv_bytes") / MIB,
    )


def _share(frame: pd.DataFrame, clustered: bool) -> Share:
    """The mean score of questions, in percent."""
    values = scores(frame)
    sources = _sources(frame, clustered)
    if np.isin(values, (0.0, 1.0)).all():
        low, high = share_interval(values == 1, sources if clustered else None)
    else:
        low, high = mean_interval(values, sources)
    mean = math.fsum(values) / len(values)
    return Share(score=100 * mean, lo=100 * max(low, 0.0), hi=100 * min(high, 1.0), n=len(values))


def _yes_no_by_category(frame: pd.DataFrame) -> dict[str, dict[str, YesNo]]:
    """Of each category with yes/no questions: of all of these, and of each subset."""
    asked = frame[frame["kind"] == "yes_no"]
    found: dict[str, dict[str, YesNo]] = {}
    for category, own in asked.groupby("category", sort=False):
        named = own[own["subset"] != ""].groupby("subset", sort=False)
        subsets = {str(name): _yes_no(some) for name, some in named}
        found[str(category)] = {ALL: _yes_no(own), **subsets}
    return found


def _yes_no(frame: pd.DataFrame) -> YesNo:
    said = frame["said"].to_numpy(object)
    right = np.array([answers[0] != NO for answers in frame["answers"]])
    yes = np.where(finite(frame), said != NO, ~right)  # one that is not finite counts as wrong
    counts = Counts.of(yes, right)
    low, high = f1_interval(yes, right, frame["cluster"].to_numpy())
    return YesNo(
        n=counts.n,
        accuracy=100 * counts.accuracy,
        f1=_percent(counts.f1),
        lo=_percent(low),
        hi=_percent(high),
        precision=_percent(counts.precision),
        recall=_percent(counts.recall),
        yes_share=100 * counts.yes_share,
        labels_yes_share=100 * counts.labels_yes_share,
        n_other=int((said == OTHER).sum()),
    )


def _sources(frame: pd.DataFrame, clustered: bool) -> np.ndarray:
    return frame["cluster" if clustered else "index"].to_numpy()


def _percent(share: float) -> float | None:
    return 100 * share if math.isfinite(share) else None


def _mean(frame: pd.DataFrame, name: str) -> float:
    """The exact mean of integers."""
    return sum(frame[name].tolist()) / len(frame)


def _summed(frame: pd.DataFrame, names: tuple[str, ...]) -> list[int]:
    """For each question the sum of some columns, exact."""
    return [sum(row) for row in zip(*(frame[name].tolist() for name in names), strict=True)]


def _giga(macs: list[int]) -> float:
    return sum(macs) / len(macs) / 1e9
