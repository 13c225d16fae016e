"""The numbers of benchmarks that are no mean of scores: POPE's mean F1, MME's points, MMBench's
share of questions that are right in every turn of their options.

Each is a function of sums over answers, so that a bootstrap that draws pictures gives its interval,
and that of the difference of two rows, which are drawn alike.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from asap.report.bootstrap import drawn_sums, percentiles
from asap.report.statistics import matched
from asap.report.yes_no import f1_counts, f1_of, says_yes

MOST = 200.0  # points of a category of MME
TURN = 1_000_000  # what a turn of the options adds to the number of a question of MMBench


@dataclass(frozen=True)
class Number:
    """counts (n, k) int64: what each row adds to the sums; pictures (n,): of each row; of: from
    sums (..., k) to the number (...), NaN where it is not defined.
    """

    counts: Int[np.ndarray, "n k"]
    pictures: np.ndarray
    of: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        return float(self.of(self.counts.sum(axis=0)))

    def draws(self) -> Float[np.ndarray, "draws"] | None:
        """The number of each draw of pictures; None of one picture."""
        drawn = drawn_sums(self.counts, self.pictures)
        return None if drawn is None else self.of(drawn)


@dataclass(frozen=True)
class NumberDifference:
    """A number of one row minus that of another, over the same questions, in the number's unit.

    interval: at 95 %; None where pictures drawn anew say nothing: of one picture, of so few that
    half of the draws lack a subset or a category, and where the difference is the same in all.
    """

    difference: float
    interval: tuple[float, float] | None


def number_difference(
    name: str, reference: pd.DataFrame, other: pd.DataFrame, without: Collection[int] = ()
) -> NumberDifference | None:
    """`other` minus `reference`, two tables of answers to the questions of a benchmark, without
    the questions of these ids. None for a benchmark whose number is a mean of scores, and where a
    number is not defined.

    RequestError if they are not over the same questions.
    """
    if name not in NUMBERS:
        return None
    before, after = (NUMBERS[name](frame) for frame in matched(reference, other, without))
    difference = after.value - before.value
    if math.isnan(difference):
        return None
    drawn = before.draws(), after.draws()
    interval = None
    if drawn[0] is not None and drawn[1] is not None:
        change = drawn[1] - drawn[0]
        low, high = percentiles(change)
        interval = (low, high) if np.isfinite([low, high]).all() and low < high else None
    return NumberDifference(difference, interval)


def mean_f1(frame: pd.DataFrame) -> Number:
    """The mean over the subsets of F1, of which yes is the positive class, in percent. POPE (Li et
    al. 2023).
    """
    counts, subsets = f1_counts(*says_yes(frame)), frame["subset"].to_numpy(object)
    columns, names = by_group(counts, subsets), unique(subsets)
    return Number(
        columns,
        frame["cluster"].to_numpy(),
        lambda sums: 100 * f1_of(sums.reshape(*sums.shape[:-1], len(names), -1)).mean(axis=-1),
    )


def points(frame: pd.DataFrame) -> Number:
    """The sum over the categories of `points_of`. MME (Fu et al. 2023)."""
    counts, categories, pictures = pairs(frame)
    n = len(unique(categories))
    return Number(
        by_group(counts, categories),
        pictures,
        lambda sums: points_of(sums.reshape(*sums.shape[:-1], n, 4)).sum(axis=-1),
    )


def right_in_every_turn(frame: pd.DataFrame) -> Number:
    """The share of questions that are right in every turn of their options, in percent.
    CircularEval of MMBench (Liu et al. 2023).
    """
    each = turned(frame)
    right = (each["score"] == 1).to_numpy(np.int64)
    return Number(
        np.stack([right, np.ones_like(right)], axis=1),
        each["cluster"].to_numpy(),
        lambda sums: 100 * sums[..., 0] / sums[..., 1],
    )


NUMBERS: dict[str, Callable[[pd.DataFrame], Number]] = {
    "pope": mean_f1,
    "mme": points,
    "mmbench": right_in_every_turn,
}


def pairs(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each picture of MME: what `points_of` counts (n, 4), its category, its cluster."""
    asked = frame[["category", "cluster"]].assign(right=frame["score"] == 1)
    found = asked.groupby(["category", "cluster"], sort=False)["right"].agg(["sum", "size"])
    right, questions = found["sum"].to_numpy(), found["size"].to_numpy()
    both = (right == questions) & (questions > 1)
    counts = np.stack([right, questions, both, np.ones_like(right)], axis=1).astype(np.int64)
    categories = found.index.get_level_values("category").to_numpy(object)
    return counts, categories, found.index.get_level_values("cluster").to_numpy()


def points_of(
    counts: Int[np.ndarray, "*draws categories 4"],
) -> Float[np.ndarray, "*draws categories"]:
    """Each category's points, of `MOST`: right questions plus pictures with both right, in percent.

    counts: right questions, questions, pictures with both right, pictures. NaN without questions.
    """
    right, questions, both, pictures = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * right / questions + 100 * both / pictures


def turned(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each question of MMBench, whose number is in the ids of its turns: the lowest score
    of its turns, the first turn's cluster and index.
    """
    ids = np.array([int(path.rpartition("#")[2]) for path in frame["path"]])
    together = frame.assign(number=ids % TURN).groupby("number", sort=False)
    return together.agg({"score": "min", "cluster": "first", "index": "first"})


def unique(names: np.ndarray) -> list[str]:
    """The names, each once, as they come."""
    return list(dict.fromkeys(map(str, names)))


def by_group(counts: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Columns of each group beside one another: (n, k) -> (n, groups * k), 0 in other groups'."""
    own = [np.where((groups == name)[:, None], counts, 0) for name in unique(groups)]
    return np.concatenate(own, axis=1)
