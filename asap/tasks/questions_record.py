"""What a record of questions says, from its table of answers."""

import math
from typing import Any

import numpy as np
import pandas as pd

from asap.data.questions.benchmark import Benchmark
from asap.records.question_schema import QuestionsRecord, YesNo
from asap.records.tables import matrix
from asap.report.statistics import evaluated
from asap.tasks.benchmark_score import benchmark_score
from asap.tasks.classification import OBJECT, accuracy_of, known_mean
from asap.tasks.question_scores import share_of, yes_no_of

ALL = "all"  # in the place of a subset's name; no subset has it
MIB = 2**20  # bytes
_MODEL = ("vision.macs_backbone", "projector.macs", "language.macs_backbone")
_METHODS = ("vision.macs_method", "language.macs_method")


def score_of(
    answers: pd.DataFrame, clustered: bool, things: str, benchmark: Benchmark | None = None
) -> dict[str, Any]:
    """The fields of a record that come from the answers.

    `top1`, `top5` and their interval are of the mean score, in percent; right is an answer with a
    score of 1. GMACs are of the whole model (tower, projector, prefill) and of the methods of both
    stages; they take the place of those of the tower alone. RequestError, about `things`, if no
    question could be answered.
    """
    found = accuracy_of(answers, clustered, things)
    frame = evaluated(answers).sort_values("index")  # categories in the order of the questions
    share = share_of(frame, clustered)
    questions = _record(frame, clustered)
    if benchmark is not None:
        questions["benchmark"] = benchmark_score(frame, benchmark)
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
        "questions": questions,
    }


def _record(frame: pd.DataFrame, clustered: bool) -> QuestionsRecord:
    categories = {
        str(name): share_of(own, clustered) for name, own in frame.groupby("category", sort=False)
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


def _yes_no_by_category(frame: pd.DataFrame) -> dict[str, dict[str, YesNo]]:
    """Of each category with yes/no questions: of all of these, and of each subset."""
    asked = frame[frame["kind"] == "yes_no"]
    found: dict[str, dict[str, YesNo]] = {}
    for category, own in asked.groupby("category", sort=False):
        named = own[own["subset"] != ""].groupby("subset", sort=False)
        subsets = {str(name): yes_no_of(some) for name, some in named}
        found[str(category)] = {ALL: yes_no_of(own), **subsets}
    return found


def _mean(frame: pd.DataFrame, name: str) -> float:
    """The exact mean of integers."""
    return sum(frame[name].tolist()) / len(frame)


def _summed(frame: pd.DataFrame, names: tuple[str, ...]) -> list[int]:
    """For each question the sum of some columns, exact."""
    return [sum(row) for row in zip(*(frame[name].tolist() for name in names), strict=True)]


def _giga(macs: list[int]) -> float:
    return sum(macs) / len(macs) / 1e9
