"""Numbers of answers to yes/no questions, of which yes is the positive class."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from asap.records.question_schema import NO
from asap.report.bootstrap import DRAWS, drawn_sums, percentiles
from asap.report.statistics import finite, wilson_interval


@dataclass(frozen=True)
class Counts:
    """Answers by what they say, and whether it is right."""

    true_yes: int
    false_yes: int
    false_no: int
    true_no: int

    @classmethod
    def of(cls, said: np.ndarray, right: np.ndarray) -> "Counts":
        """said, right: whether the answer, and the right answer, is yes; (n,) bool each."""
        true, false, missed = (int(part.sum()) for part in _parts(said, right))
        return cls(true, false, missed, len(said) - true - false - missed)

    @property
    def n(self) -> int:
        return self.true_yes + self.false_yes + self.false_no + self.true_no

    @property
    def accuracy(self) -> float:
        """In [0, 1], as all of these."""
        return _ratio(self.true_yes + self.true_no, self.n)

    @property
    def precision(self) -> float:
        """Share of right ones among answers of yes; NaN without any."""
        return _ratio(self.true_yes, self.true_yes + self.false_yes)

    @property
    def recall(self) -> float:
        """Share of answers of yes where yes is right; NaN where it never is."""
        return _ratio(self.true_yes, self.true_yes + self.false_no)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN if yes is never said and never right."""
        return _ratio(2 * self.true_yes, 2 * self.true_yes + self.false_yes + self.false_no)

    @property
    def yes_share(self) -> float:
        """Share of yes among the answers."""
        return _ratio(self.true_yes + self.false_yes, self.n)

    @property
    def labels_yes_share(self) -> float:
        """Share of yes among the right answers."""
        return _ratio(self.true_yes + self.false_no, self.n)


def says_yes(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Whether each answer of a table, and the right answer, is yes; (n,) bool each.

    POPE's rule: an answer that says neither yes nor no counts as yes. One that is not finite counts
    as wrong.
    """
    right = np.array([answers[0] != NO for answers in frame["answers"]])
    return np.where(finite(frame), frame["said"].to_numpy(object) != NO, ~right), right


def f1_interval(
    said: np.ndarray, right: np.ndarray, clusters: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of F1 by a bootstrap that draws sources of answers, such as pictures.

    said, right: as of `Counts.of`; clusters (n,): names each answer's source. An F1 of 0 or 1 has
    no spread to draw from: then Wilson's with one trial a source, as of shares. (-inf, inf) of one
    source, and where F1 is not defined in half of the draws.
    """
    f1, groups = Counts.of(said, right).f1, len(np.unique(clusters))
    if f1 in (0.0, 1.0) and groups > 1:
        return wilson_interval(groups if f1 else 0, groups)
    return percentiles(f1_draws(said, right, clusters, seed))


def f1_draws(
    said: np.ndarray, right: np.ndarray, clusters: np.ndarray, seed: int = 0
) -> np.ndarray:
    """F1 of `DRAWS` draws of as many sources as there are, (DRAWS,) float64, NaN if not defined.

    The same seed and sources give the same draws, so differences of two rows are paired. All NaN
    of one source.
    """
    drawn = drawn_sums(f1_counts(said, right), clusters, seed)
    return np.full(DRAWS, np.nan) if drawn is None else f1_of(drawn)


def f1_counts(said: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Per answer what F1 counts: true yes, false yes, and no where yes is right; (n, 3) int64."""
    return np.stack(_parts(said, right), axis=1).astype(np.int64)


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 from sums of `f1_counts` (..., 3); NaN where it is not defined."""
    twice = 2 * counts[..., 0]
    with np.errstate(invalid="ignore"):
        return twice / (twice + counts[..., 1] + counts[..., 2])


def _parts(said: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True yes, false yes, and no where yes is right; (n,) bool each."""
    return said & right, said & ~right, ~said & right


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
