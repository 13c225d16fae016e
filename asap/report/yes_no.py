"""Numbers of answers to yes/no questions, of which yes is the positive class."""

import math
from dataclasses import dataclass

import numpy as np

from asap.report.statistics import LEVEL, wilson_interval

DRAWS = 2_000  # of the bootstrap


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
    draws = f1_draws(said, right, clusters, seed)
    known = draws[~np.isnan(draws)]
    if len(known) < DRAWS / 2:
        return -math.inf, math.inf
    low, high = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def f1_draws(
    said: np.ndarray, right: np.ndarray, clusters: np.ndarray, seed: int = 0
) -> np.ndarray:
    """F1 of `DRAWS` draws of as many sources as there are, (DRAWS,) float64, NaN if not defined.

    The same seed and sources give the same draws, so differences of two rows are paired. All NaN
    of one source.
    """
    names, inverse = np.unique(clusters, return_inverse=True)
    groups = len(names)
    if groups < 2:
        return np.full(DRAWS, np.nan)
    parts = [np.bincount(inverse[part], minlength=groups) for part in _parts(said, right)]
    counts, rng = np.stack(parts, axis=1), np.random.default_rng(seed)
    found = np.empty((DRAWS, len(parts)), np.int64)
    for i in range(DRAWS):  # one draw at a time: all at once are DRAWS x groups numbers
        found[i] = np.bincount(rng.integers(groups, size=groups), minlength=groups) @ counts
    twice = 2 * found[:, 0]
    with np.errstate(invalid="ignore"):
        return twice / (twice + found[:, 1] + found[:, 2])


def _parts(said: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True yes, false yes, and no where yes is right; (n,) bool each."""
    return said & right, said & ~right, ~said & right


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
