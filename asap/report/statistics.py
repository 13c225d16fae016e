"""Counts, intervals and paired comparisons from the answers of examples.

Every count is an integer over the whole set, never an average of averages. Intervals are at 95 %.
Images that share a source (`cluster`) are not independent: then the variance is the cluster-robust
sandwich and the quantile is Student's t with (clusters - 1) degrees of freedom.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from asap.errors import RequestError
from asap.records.tables import lists, matrix

LEVEL = 0.95
_COMPARED = ["id", "label", "other_labels", "cluster", "top5", "error"]


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of `other` minus `reference` on the same images, in percentage points.

    b: images only the reference has right; c: images only the other has right; p: McNemar's exact
    two-sided test, which takes images as independent even where the interval does not.
    """

    n: int
    n_clusters: int
    difference: float
    interval: tuple[float, float]
    b: int
    c: int
    p: float


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share of `n` independent trials, in [0, 1]. ValueError if
    impossible.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"successes={successes} of n={n}: expected 0 <= successes <= n and n >= 1")
    z = special.ndtri((1 + LEVEL) / 2)
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == n else float(centre + half)
    return low, high


def mean_interval(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Cluster-robust interval of the mean of `values` (n,), `clusters` (n,) naming each value's
    source.

    The variance is G/(G-1) * sum over clusters of (sum of residuals)^2 / n^2; with one value a
    cluster it is the usual s^2/n. One cluster says nothing about the spread between clusters:
    (-inf, inf).
    """
    values = np.asarray(values, dtype=np.float64)
    _, inverse = np.unique(clusters, return_inverse=True)
    totals = np.bincount(inverse, weights=values - values.mean())
    groups = len(totals)
    if groups < 2:
        return -math.inf, math.inf
    error = math.sqrt(groups / (groups - 1) * float(totals @ totals)) / len(values)
    half = float(special.stdtrit(groups - 1, (1 + LEVEL) / 2)) * error
    return float(values.mean()) - half, float(values.mean()) + half


def share_interval(hits: np.ndarray, clusters: np.ndarray | None = None) -> tuple[float, float]:
    """Interval of the share of true `hits` (n,) bool, in [0, 1]: Wilson's, or cluster-robust given
    `clusters`.

    If all hits agree the sandwich has no spread to work with: then Wilson's with one trial a
    cluster.
    """
    successes, n = int(hits.sum()), len(hits)
    if clusters is None:
        return wilson_interval(successes, n)
    if successes in (0, n):
        groups = len(np.unique(clusters))
        return wilson_interval(groups if successes else 0, groups)
    low, high = mean_interval(hits, clusters)
    return max(low, 0.0), min(high, 1.0)


def evaluated(answers: pd.DataFrame) -> pd.DataFrame:
    """The rows of images that could be read."""
    readable = answers["error"].isna()
    return answers if readable.all() else answers[readable]


def finite(answers: pd.DataFrame) -> np.ndarray:
    """Per row of an image that could be read: is its answer finite, (n,) bool."""
    return lists(answers, "top5")[1] > 0


def hits(answers: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Per row: is the first prediction right, is one of the (up to) five; (n,) bool each.

    Right is the label, and any other label that the row accepts. An answer that is not finite names
    no class, so it is wrong.
    """
    answered = finite(answers)
    first, any5 = np.zeros(len(answered), bool), np.zeros(len(answered), bool)
    if answered.any():
        right = _right(answers[answered])
        first[answered], any5[answered] = right[:, 0], right.any(axis=1)
    return first, any5


def _right(answers: pd.DataFrame) -> np.ndarray:
    """Of rows that name a class: which of their (up to) five classes are right, (n, k) bool."""
    top = matrix(answers, "top5")
    right = top == answers["label"].to_numpy()[:, None]
    others, lengths = lists(answers, "other_labels")
    rows = np.repeat(np.arange(len(top)), lengths)
    np.logical_or.at(right, rows, top[rows] == others[:, None])
    return right


def leads(answers: pd.DataFrame, alone: float) -> np.ndarray:
    """First logit minus second, (n,) float64; `alone` for a model of one class, -inf for an answer
    that is not finite.
    """
    answered = finite(answers)
    found = np.full(len(answered), -np.inf)
    top = matrix(answers[answered], "top5_logits").astype(np.float64)
    found[answered] = top[:, 0] - top[:, 1] if top.shape[1] > 1 else alone
    return found


def paired_difference(
    reference: pd.DataFrame, other: pd.DataFrame, clustered: bool, without: Collection[int] = ()
) -> PairedDifference:
    """Compare two frames of answers image by image, matched by `id`; an image unreadable in either
    is left out, and those with an id in `without`.

    Raises RequestError if the frames are not over the same images with the same labels.
    """
    reference, other = matched(reference[_COMPARED], other[_COMPARED], without)
    before, after = hits(reference)[0], hits(other)[0]
    b, c, n = int((before & ~after).sum()), int((~before & after).sum()), len(before)
    groups = reference["cluster"].to_numpy() if clustered else np.arange(n)
    n_clusters = len(np.unique(groups))
    if clustered and b + c:
        low, high = mean_interval(after.astype(np.int64) - before, groups)
    else:  # without discordant pairs the sandwich has no spread to work with
        low, high = _bonett_price(b, c, n_clusters)
    interval = (100 * max(low, -1.0), 100 * min(high, 1.0))
    return PairedDifference(n, n_clusters, 100 * (c - b) / n, interval, b, c, _mcnemar(b, c))


def _mcnemar(b: int, c: int) -> float:
    """The exact test's p-value for b images lost and c gained."""
    if b + c == 0:
        return 1.0
    from scipy import stats  # takes longer to import than a small run to evaluate

    return float(stats.binomtest(b, b + c, 0.5).pvalue)


def matched(
    one: pd.DataFrame, two: pd.DataFrame, without: Collection[int] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of two frames of answers by `id`, without images unreadable in either and without
    those of these ids.

    Raises RequestError if they are not over the same images with the same labels.
    """
    for frame in (one, two):
        if not frame["id"].is_unique:
            raise RequestError(
                "answers hold an image twice, so they cannot be compared by id: delete their "
                "record's folder and evaluate again"
            )
    one, two = one.sort_values("id"), two.sort_values("id")
    if not np.array_equal(one["id"].to_numpy(), two["id"].to_numpy()):
        common = len(np.intersect1d(one["id"], two["id"]))
        raise RequestError(
            f"answers are over different images ({len(one)} and {len(two)}, {common} in "
            f"common): "
            "compare runs over the same data and limit"
        )
    if not _same_labels(one, two):
        raise RequestError("answers give the same images different labels: use one label set")
    readable = one["error"].isna().to_numpy() & two["error"].isna().to_numpy()
    if without:
        readable &= ~one["id"].isin(list(without)).to_numpy()
    if not readable.any():
        raise RequestError("no image was read in both runs: there is nothing to compare")
    return one[readable], two[readable]


def _same_labels(one: pd.DataFrame, two: pd.DataFrame) -> bool:
    """Whether the same is right for each row."""
    pairs = zip(lists(one, "other_labels"), lists(two, "other_labels"), strict=True)
    labels = np.array_equal(one["label"].to_numpy(), two["label"].to_numpy())
    return labels and all(np.array_equal(*pair) for pair in pairs)


def _bonett_price(b: int, c: int, n: int) -> tuple[float, float]:
    """Adjusted Wald interval of a paired difference of shares (Bonett and Price 2012): one more
    image in each discordant cell, so that it has a width and its coverage where few images differ.
    """
    lost, won, total = (b + 1) / (n + 2), (c + 1) / (n + 2), n + 2
    half = special.ndtri((1 + LEVEL) / 2) * math.sqrt((lost + won - (won - lost) ** 2) / total)
    return won - lost - float(half), won - lost + float(half)
