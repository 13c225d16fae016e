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
_MATCHED = ["id", "cluster", "error"]
_CLASSES = ["label", "other_labels", "top5"]
_QUESTIONS = ["question", "answers", "score"]


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of `other` minus `reference` on the same examples, in percentage points.

    b: examples only the reference has right; c: examples only the other has right; p: McNemar's
    exact two-sided test, which takes examples as independent even where the interval does not. Of
    answers that may be right in part (`partial`) b and c are those that score less and more, and p
    is of Student's t test of the mean difference, with the clusters of the interval.
    """

    n: int
    n_clusters: int
    difference: float
    interval: tuple[float, float]
    b: int
    c: int
    p: float
    partial: bool = False


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
    mean, error, groups = _mean_error(values, clusters)
    if groups < 2:
        return -math.inf, math.inf
    half = float(special.stdtrit(groups - 1, (1 + LEVEL) / 2)) * error
    return mean - half, mean + half


def _mean_error(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float, int]:
    """Mean of the values, its cluster-robust standard error (inf of one cluster), clusters."""
    values = np.asarray(values, dtype=np.float64)
    _, inverse = np.unique(clusters, return_inverse=True)
    totals = np.bincount(inverse, weights=values - values.mean())
    groups = len(totals)
    if groups < 2:
        return float(values.mean()), math.inf, groups
    error = math.sqrt(groups / (groups - 1) * float(totals @ totals)) / len(values)
    return float(values.mean()), error, groups


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
    """Per row of an example that could be read: is its answer finite, (n,) bool."""
    if are_questions(answers):
        return answers["finite"].to_numpy() == 1
    return lists(answers, "top5")[1] > 0


def hits(answers: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Per row: is the first prediction right, is one of the (up to) five; (n,) bool each.

    Right is the label, and any other label that the row accepts. An answer that is not finite names
    no class, so it is wrong. The answer to a question is right if its score is 1, and has no five.
    """
    if are_questions(answers):
        right = scores(answers) == 1
        return right, right
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


def are_questions(answers: pd.DataFrame) -> bool:
    """Whether these are texts with a score, not classes."""
    return "score" in answers


def scores(answers: pd.DataFrame) -> np.ndarray:
    """Per row: how right its answer is, (n,) float64 in [0, 1]; of classes 1 or 0."""
    if are_questions(answers):
        return answers["score"].to_numpy(np.float64)
    return hits(answers)[0].astype(np.float64)


def leads(answers: pd.DataFrame, alone: float) -> np.ndarray:
    """First logit minus second, (n,) float64; `alone` for a model of one class, -inf for an answer
    that is not finite. Of the answer to a question those of its first word.
    """
    if are_questions(answers):
        return np.nan_to_num(answers["gap"].to_numpy(np.float64), nan=-np.inf)
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
    used = [*_MATCHED, *(_QUESTIONS if are_questions(reference) else _CLASSES)]
    if are_questions(reference) != are_questions(other):
        raise RequestError("answers to questions and classes of images cannot be compared")
    reference, other = matched(reference[used], other[used], without)
    before, after = scores(reference), scores(other)
    change = after - before
    partial = not np.isin([before, after], (0.0, 1.0)).all()
    b, c, n = int((change < 0).sum()), int((change > 0).sum()), len(before)
    groups = reference["cluster"].to_numpy() if clustered else np.arange(n)
    n_clusters = len(np.unique(groups))
    if (clustered or partial) and b + c:
        low, high = mean_interval(change, groups)
    else:  # without discordant pairs the sandwich has no spread to work with
        low, high = _bonett_price(b, c, n_clusters)
    interval = (100 * max(low, -1.0), 100 * min(high, 1.0))
    p = _student(change, groups) if partial else _mcnemar(b, c)
    difference = 100 * math.fsum(change) / n
    return PairedDifference(n, n_clusters, difference, interval, b, c, p, partial)


def _student(change: np.ndarray, groups: np.ndarray) -> float:
    """The two-sided p-value of a mean difference of 0, given each difference's source."""
    mean, error, n_groups = _mean_error(change, groups)
    if n_groups < 2 or mean == 0:
        return 1.0
    if error == 0:
        return 0.0
    return 2 * float(special.stdtr(n_groups - 1, -abs(mean) / error))


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
    """Whether the same is right for each row; of questions also whether they are the same."""
    if are_questions(one):
        asked, right = ([list(f[name]) for f in (one, two)] for name in ("question", "answers"))
        return asked[0] == asked[1] and [*map(list, right[0])] == [*map(list, right[1])]
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
