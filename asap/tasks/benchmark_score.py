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
    subsets = frame["subset"].to_numpy(object)
    each = {
        name: Counts.of(*(v[subsets == name] for v in (yes, right))) for name in _unique(subsets)
    }
    parts = {
        f"{key}_{name}": 100 * getattr(counts, key)
        for name, counts in each.items()
        for key in ("f1", "accuracy", "precision", "recall", "yes_share")
    }
    score = 100 * sum(counts.f1 for counts in each.values()) / len(each)
    pictures = frame["cluster"].to_numpy()
    if score in (0.0, 100.0):
        low, high = _without_spread(score > 0, pictures)
    else:
        drawn = drawn_sums(_by_group(f1_counts(yes, right), subsets), pictures)
        draws = None if drawn is None else f1_of(drawn.reshape(len(drawn), len(each), -1)).mean(1)
        low, high = percentiles(draws)
    return Found(score, (100 * low, 100 * high), len(frame), parts)


def _mme(frame: pd.DataFrame) -> Found:
    """The sum over the categories of accuracy and of pictures with both questions right, in %; of
    pictures drawn anew for the interval. MME (Fu et al. 2023).
    """
    asked = frame[["category", "cluster"]].assign(right=frame["score"] == 1)
    pairs = asked.groupby(["category", "cluster"], sort=False)["right"].agg(["sum", "size"])
    right, questions = pairs["sum"].to_numpy(), pairs["size"].to_numpy()
    both = (right == questions) & (questions > 1)
    counts = np.stack([right, questions, both, np.ones_like(right)], axis=1).astype(np.int64)
    categories = pairs.index.get_level_values("category").to_numpy(object)
    columns, names = _by_group(counts, categories), _unique(categories)
    points = mme.points(columns.sum(axis=0).reshape(len(names), -1))
    parts = dict(zip(names, points.tolist(), strict=True))
    for group, known in (("perception", PERCEPTION), ("cognition", COGNITION)):
        if there := [parts[name] for name in names if name in known]:
            parts[group] = math.fsum(there)
    parts["other_share"] = 100 * float((frame["said"] == mme.OTHER).mean())
    score, most = math.fsum(points), mme.MOST * len(names)
    pictures = pairs.index.get_level_values("cluster").to_numpy()
    if score in (0.0, most):
        low, high = _without_spread(score > 0, pictures)
        return Found(score, (most * low, most * high), len(frame), parts)
    drawn = drawn_sums(columns, pictures)
    draws = None
    if drawn is not None:
        draws = mme.points(drawn.reshape(len(drawn), len(names), -1)).sum(axis=1)
    return Found(score, percentiles(draws), len(frame), parts)


def _circular(frame: pd.DataFrame) -> Found:
    """The share of questions that are answered right in every order of their options (CircularEval
    of MMBench, Liu et al. 2023); the number of a question's order is in its id.
    """
    ids = np.array([int(path.rpartition("#")[2]) for path in frame["path"]])
    together = frame.assign(number=ids % TURN).groupby("number", sort=False)
    each = together.agg({"score": "min", "cluster": "first", "index": "first"})
    share = share_of(each, clustered=True)
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


def _without_spread(all_right: bool, pictures: np.ndarray) -> tuple[float, float]:
    """The interval where all is right, or nothing, so that draws are all alike: a trial a picture,
    as of shares; in [0, 1].
    """
    trials = len(np.unique(pictures))
    return wilson_interval(trials if all_right else 0, trials)


def _unique(names: np.ndarray) -> list[str]:
    """The names, each once, as they come."""
    return list(dict.fromkeys(map(str, names)))


def _by_group(counts: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Columns of each group beside one another: (n, k) -> (n, groups * k), 0 in other groups'."""
    own = [np.where((groups == name)[:, None], counts, 0) for name in _unique(groups)]
    return np.concatenate(own, axis=1)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
