"""A bootstrap that draws sources of answers, such as pictures."""

import numpy as np

from asap.report.statistics import LEVEL

DRAWS = 2_000


def drawn_sums(counts: np.ndarray, clusters: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """Sums of `counts` (n, k), integers, over `DRAWS` draws of as many sources as there are.

    clusters (n,): names each row's source. (DRAWS, k) int64; None of one source, whose draws are
    all alike. The same seed and sources give the same draws, so differences of two rows are paired.
    """
    names, inverse = np.unique(clusters, return_inverse=True)
    groups = len(names)
    if groups < 2:
        return None
    summed = np.zeros((groups, counts.shape[1]), np.int64)
    np.add.at(summed, inverse, counts)
    rng, found = np.random.default_rng(seed), np.empty((DRAWS, counts.shape[1]), np.int64)
    for i in range(DRAWS):  # one draw at a time: all at once are DRAWS x groups numbers
        found[i] = np.bincount(rng.integers(groups, size=groups), minlength=groups) @ summed
    return found


def percentiles(draws: np.ndarray | None) -> tuple[float, float]:
    """The percentile interval of a number's draws, without those where it is not defined, NaN.

    (-inf, inf) without draws, and where it is not defined in half of them.
    """
    known = np.empty(0) if draws is None else draws[~np.isnan(draws)]
    if len(known) < DRAWS / 2:
        return -np.inf, np.inf
    low, high = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
