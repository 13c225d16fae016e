"""The number of a benchmark, from its table of answers, by the rule that the benchmark names."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from asap.data.questions.benchmark import Benchmark
from asap.data.questions.mme import COGNITION, PERCEPTION
from asap.records.question_schema import OTHER, BenchmarkScore
from asap.report.benchmarks import numbers
from asap.report.bootstrap import percentiles
from asap.report.statistics import wilson_interval
from asap.report.yes_no import Counts, says_yes
from asap.tasks.question_scores import share_of
from asap.tasks.scoring import vqa

UNANSWERABLE = "unanswerable"  # an answer that VizWiz has


@dataclass(frozen=True)
class Found:
    """A benchmark's number with its 95 % interval, questions, and further numbers by name.

    NaN and infinite: not known.
    """

    score: float
    interval: tuple[float, float]
    n: int
    parts: Mapping[str, float] = field(default_factory=dict)


def benchmark_score(frame: pd.DataFrame, benchmark: Benchmark) -> BenchmarkScore:
    """The number of a benchmark; none where a server has the right answers.

    frame: the answers that were given.
    """
    public = benchmark.answers_public
    found = (
        RULES[benchmark.rule](frame)
        if public
        else Found(math.nan, (-math.inf, math.inf), len(frame))
    )
    return BenchmarkScore(
        name=benchmark.name,
        split=benchmark.split,
        metric=benchmark.metric,
        score=_known(found.score),
        lo=_known(found.interval[0]),
        hi=_known(found.interval[1]),
        n=found.n,
        n_expected=benchmark.n_expected,
        status="scored" if public else "not scored here",
        parts={name: value for name, value in found.parts.items() if math.isfinite(value)},
    )


def _mean(frame: pd.DataFrame) -> Found:
    """The mean score of the questions; also of each subset."""
    share = share_of(frame, clustered=True)
    named = frame[frame["subset"] != ""].groupby("subset", sort=False)
    parts = {str(name): share_of(own, clustered=True)["score"] for name, own in named}
    return Found(share["score"], (share["lo"], share["hi"]), share["n"], parts)


def _mean_f1(frame: pd.DataFrame) -> Found:
    """The mean over the subsets of F1; of pictures drawn anew for the interval."""
    yes, right = says_yes(frame)
    subsets = frame["subset"].to_numpy(object)
    each = {
        name: Counts.of(*(v[subsets == name] for v in (yes, right)))
        for name in numbers.unique(subsets)
    }
    parts = {
        f"{key}_{name}": 100 * getattr(counts, key)
        for name, counts in each.items()
        for key in ("f1", "accuracy", "precision", "recall", "yes_share")
    }
    score = 100 * sum(counts.f1 for counts in each.values()) / len(each)
    return Found(score, _interval(score, 100.0, numbers.mean_f1(frame)), len(frame), parts)


def _mme(frame: pd.DataFrame) -> Found:
    """The points of all categories; of pictures drawn anew for the interval."""
    counts, categories, _ = numbers.pairs(frame)
    names = numbers.unique(categories)
    sums = numbers.by_group(counts, categories).sum(axis=0)
    points = numbers.points_of(sums.reshape(len(names), -1))
    parts = dict(zip(names, points.tolist(), strict=True))
    for group, known in (("perception", PERCEPTION), ("cognition", COGNITION)):
        if there := [parts[name] for name in names if name in known]:
            parts[group] = math.fsum(there)
    parts["other_share"] = 100 * float((frame["said"] == OTHER).mean())
    score, most = math.fsum(points), numbers.MOST * len(names)
    return Found(score, _interval(score, most, numbers.points(frame)), len(frame), parts)


def _circular(frame: pd.DataFrame) -> Found:
    """The share of questions that are answered right in every order of their options."""
    share = share_of(numbers.turned(frame), clustered=True)
    plain = share_of(frame, clustered=True)["score"]
    parts = {"accuracy": plain, "orders": len(frame)}
    return Found(share["score"], (share["lo"], share["hi"]), share["n"], parts)


def _answerable(frame: pd.DataFrame) -> Found:
    """As `_mean`, and what drives it in VizWiz: answers that the question is unanswerable."""
    found = _mean(frame)
    says_so = [vqa.normalised(text) == UNANSWERABLE for text in frame["text"]]
    parts = {"says_unanswerable": 100 * sum(says_so) / len(says_so)}
    return Found(found.score, found.interval, found.n, {**found.parts, **parts})


RULES: dict[str, Callable[[pd.DataFrame], Found]] = {
    "mean": _mean,
    "mean_f1": _mean_f1,
    "mme": _mme,
    "circular": _circular,
    "answerable": _answerable,
}


def _interval(score: float, most: float, number: numbers.Number) -> tuple[float, float]:
    """The interval of a number of at most `most`. Where all is right, or nothing, draws are all
    alike: then a trial a picture, as of shares.
    """
    if score in (0.0, most):
        trials = len(np.unique(number.pictures))
        low, high = wilson_interval(trials if score else 0, trials)
        return most * low, most * high
    return percentiles(number.draws())


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
