"""The number of a benchmark, from its table of answers, by the rule that the benchmark names."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from asap.data.questions.benchmark import Benchmark
from asap.data.questions.mmbench import TURN
from asap.data.questions.mme import COGNITION, PERCEPTION
from asap.records.question_schema import BenchmarkScore
from asap.report.bootstrap import drawn_sums, percentiles
from asap.report.statistics import wilson_interval
from asap.report.yes_no import Counts, f1_counts, f1_of
from asap.tasks.question_scores import says_yes, share_of
from asap.tasks.scoring import mme, vqa

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
    """The mean over the subsets of F1, of which yes is the positive class; of pictures drawn anew
    for the interval. POPE (Li et al. 2023).
    """
    yes, right = says_yes(frame)
    inside = {str(name): (frame["subset"] == name).to_numpy() for name in frame["subset"].unique()}
    each = {name: Counts.of(yes[rows], right[rows]) for name, rows in inside.items()}
    parts = {
        f"{key}_{name}": 100 * getattr(counts, key)
        for name, counts in each.items()
        for key in ("f1", "accuracy", "precision", "recall", "yes_share")
    }
    f1 = [100 * counts.f1 for counts in each.values()]
    score, counted = sum(f1) / len(f1), f1_counts(yes, right)
    of_subset = [np.where(rows[:, None], counted, 0) for rows in inside.values()]
    if score in (0.0, 100.0):  # no spread to draw from: a trial a picture, as of shares
        pictures = frame["cluster"].nunique()
        low, high = wilson_interval(pictures if score else 0, pictures)
    else:
        drawn = drawn_sums(np.concatenate(of_subset, axis=1), frame["cluster"].to_numpy())
        draws = None if drawn is None else f1_of(drawn.reshape(len(drawn), len(f1), -1)).mean(1)
        low, high = percentiles(draws)
    return Found(score, (100 * low, 100 * high), len(frame), parts)


def _mme(frame: pd.DataFrame) -> Found:
    """The sum over the categories of accuracy and of pictures with both questions right, in %; of
    pictures drawn anew for the interval. MME (Fu et al. 2023).
    """
    right = frame["score"].to_numpy() == 1
    pictures = pd.DataFrame(
        {"category": frame["category"], "cluster": frame["cluster"], "right": right}
    )
    each = (
        pictures.groupby(["category", "cluster"], sort=False)["right"]
        .agg(["sum", "size"])
        .reset_index()
    )
    both = (each["sum"] == each["size"]) & (each["size"] > 1)
    counted = np.stack([each["sum"], each["size"], both, np.ones(len(each))], axis=1).astype(
        np.int64
    )
    names = [str(name) for name in each["category"].unique()]
    of_category = [
        np.where((each["category"] == name).to_numpy()[:, None], counted, 0) for name in names
    ]
    columns = np.concatenate(of_category, axis=1)
    points = mme.points(columns.sum(axis=0).reshape(len(names), 4))
    parts = dict(zip(names, points.tolist(), strict=True))
    groups = {"perception": PERCEPTION, "cognition": COGNITION}
    parts |= {
        group: math.fsum(parts[name] for name in names if name in known)
        for group, known in groups.items()
        if set(known) & set(names)
    }
    drawn = drawn_sums(columns, each["cluster"].to_numpy())
    draws = None
    if drawn is not None:
        draws = mme.points(drawn.reshape(len(drawn), len(names), 4)).sum(axis=1)
    parts["other_share"] = 100 * float((frame["said"] == mme.OTHER).mean())
    return Found(math.fsum(points), percentiles(draws), len(frame), parts)


def _circular(frame: pd.DataFrame) -> Found:
    """The share of questions that are answered right in every order of their options (CircularEval
    of MMBench, Liu et al. 2023); the number of a question's order is in its id.
    """
    ids = np.array([int(path.rpartition("#")[2]) for path in frame["path"]])
    together = frame.assign(number=ids % TURN).groupby("number", sort=False)
    each = together.agg({"score": "min", "cluster": "first", "index": "first"})
    share = share_of(each, clustered=True)
    plain = share_of(frame, clustered=True)["score"]
    return Found(
        share["score"],
        (share["lo"], share["hi"]),
        share["n"],
        {"accuracy": plain, "orders": len(frame)},
    )


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


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
