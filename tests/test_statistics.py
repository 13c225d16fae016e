"""Intervals and paired comparisons against closed forms, published values and simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import counted
from scipy import stats

from asap.errors import RequestError
from asap.report.statistics import (
    mean_interval,
    paired_difference,
    share_interval,
    wilson_interval,
)


def frame(right, clusters=None, ids=None, **columns):
    """Predictions of images of class 0; `right`: 1 = at first, 5 = among five, 0 = not."""
    n = len(right)
    tops = {1: [0, 1, 2, 3, 4], 5: [1, 2, 3, 4, 0], 0: [1, 2, 3, 4, 5]}
    values = {
        "index": list(range(n)),
        "id": list(range(n)) if ids is None else ids,
        "label": [0] * n,
        "other_labels": [[]] * n,
        "cluster": list(range(n)) if clusters is None else clusters,
        "top5": [tops[int(r)] for r in right],
        "stop_block": [0] * n,
        "tokens": [[5, 5, 5]] * n,
        "macs_backbone": [10**9] * n,
        "macs_method": [0] * n,
        "object_share": [math.nan] * n,
        "object_recall": [math.nan] * n,
        "sink_on_object": [math.nan] * n,
        "error": [None] * n,
    }
    return pd.DataFrame(values | columns)


# The first four rows are the worked examples of Newcombe (1998), method 3, to his four decimals.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 1 - 0.1611, 1.0),
    ],
)
def test_wilson_published(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses(successes, n):
    with pytest.raises(ValueError, match="expected"):
        wilson_interval(successes, n)


def test_clustered_by_hand():
    # mean 1/2, cluster sums of residuals 1, -1, 0: variance 3/2 * 2 / 36 = 1/12, t(0.975, 2)
    values, clusters = np.array([1, 1, 0, 0, 1, 0]), np.array([7, 7, 3, 3, 9, 9])
    half = 4.302653 * math.sqrt(1 / 12)
    assert mean_interval(values, clusters) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-6)
    assert share_interval(values > 0, clusters) == (0.0, 1.0)  # clipped to what a share can be


def test_singleton_clusters_are_the_t_interval():
    values = np.random.default_rng(0).normal(size=23)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values, np.arange(23)) == pytest.approx(tuple(expected), rel=1e-12)


def test_doubling_every_image_changes_nothing_when_clustered():
    hits = np.random.default_rng(1).random(40) < 0.7
    once = share_interval(hits, np.arange(40))
    twice = share_interval(np.repeat(hits, 2), np.repeat(np.arange(40), 2))
    assert twice == pytest.approx(once, rel=1e-12)


def test_unanimous_clusters_keep_a_width():
    hits, clusters = np.ones(300, dtype=bool), np.arange(300) % 20
    assert share_interval(hits, clusters) == wilson_interval(20, 20)


def test_one_cluster_says_nothing():
    assert share_interval(np.array([True, False]), np.zeros(2)) == (0.0, 1.0)


def test_coverage_with_shared_sources():
    """50 sources of 8 images, with a source effect: only the clustered interval covers."""
    rng, clusters = np.random.default_rng(5), np.repeat(np.arange(50), 8)
    covered = {"clustered": 0, "independent": 0}
    for _ in range(400):
        chance = np.repeat(rng.beta(1.4, 0.6, size=50), 8)  # mean 0.7
        hits = rng.random(400) < chance
        for name, groups in (("clustered", clusters), ("independent", None)):
            low, high = share_interval(hits, groups)
            covered[name] += low <= 0.7 <= high
    assert 0.91 <= covered["clustered"] / 400 <= 0.98
    assert covered["independent"] / 400 < 0.8


def test_coverage_of_the_paired_difference():
    """Independent images, 6 % lost and 2 % won by the method: the true difference is -4 points."""
    rng, covered = np.random.default_rng(6), 0
    for _ in range(300):
        draw = rng.random(200)
        before, after = frame(draw < 0.86), frame((draw >= 0.06) & (draw < 0.88))
        low, high = paired_difference(before, after, clustered=False).interval
        covered += low <= -4.0 <= high
    assert 0.91 <= covered / 300 <= 0.99


def test_mcnemar_by_hand():
    # b = 5, c = 1: p = 2 * (C(6,0) + C(6,1)) / 2^6 = 14/64.
    # Bonett and Price: (6/12, 2/12), difference -1/3, variance (8/12 - 1/9) / 12 = 5/108.
    before = frame([1, 1, 1, 1, 1, 0, 1, 1, 0, 0])
    after = frame([0, 0, 0, 0, 0, 1, 1, 1, 0, 0])
    found = paired_difference(before, after, clustered=False)
    half = 1.959964 * math.sqrt(5 / 108)
    assert (found.n, found.n_clusters, found.b, found.c) == (10, 10, 5, 1)
    assert found.p == pytest.approx(14 / 64, rel=1e-12)
    assert found.difference == pytest.approx(-40.0)
    assert found.interval == pytest.approx((100 * (-1 / 3 - half), 100 * (-1 / 3 + half)), rel=1e-6)


def test_paired_clustered_by_hand():
    # Sums of the differences in 8 clusters of 2: -2 0 0 0 0 0 +1 -1, mean -1/8, so residual sums
    # -7/4, five of 1/4, 5/4, -3/4: squares 5.5, variance 8/7 * 5.5 / 16^2; t(0.975, 7) = 2.364624.
    clusters = np.repeat(np.arange(8), 2)
    before = frame([1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0], clusters)
    after = frame([0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 0, 0], clusters)
    found = paired_difference(before, after, clustered=True)
    assert (found.n, found.n_clusters, found.b, found.c) == (16, 8, 3, 1)
    half = 100 * 2.364624 * math.sqrt(8 / 7 * 5.5 / 256)
    assert found.difference == -12.5
    assert found.interval == pytest.approx((-12.5 - half, -12.5 + half), rel=1e-6)
    assert found.p == pytest.approx(0.625)  # 3 against 1: 2 * (1 + 4) / 16


def test_paired_interval_stays_possible():
    before, after = frame([1, 1, 0, 0], [0, 0, 1, 1]), frame([0, 0, 0, 1], [0, 0, 1, 1])
    assert paired_difference(before, after, clustered=True).interval == (-100.0, 100.0)


def test_paired_matches_by_id_and_leaves_out_the_unreadable():
    before = frame([1, 0, 1], ids=[30, 10, 20])
    after = frame([0, 1, 0], ids=[10, 20, 30], error=[None, None, "truncated"])
    after.at[2, "top5"] = []
    found = paired_difference(before, after, clustered=False)
    # image 10 wrong in both, 20 right in both, 30 unreadable once
    assert (found.n, found.b, found.c) == (2, 0, 0)
    assert found.difference == 0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (frame([1, 1], ids=[0, 5]), "different images"),
        (frame([1, 1, 1]), "different images"),
        (frame([1, 1], ids=[1, 1]), "twice"),
        (frame([1, 1], label=[0, 3]), "labels"),
        (frame([1, 1], error=["gone", "gone"]), "nothing to compare"),
    ],
)
def test_paired_refuses(other, message):
    with pytest.raises(RequestError, match=message) as caught:
        paired_difference(frame([1, 1]), other, clustered=False)
    assert "\n" not in str(caught.value)


outcomes = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.integers(0, 6)), min_size=2, max_size=60
)


@settings(max_examples=150, deadline=None)
@given(outcomes, st.booleans(), st.randoms(use_true_random=False))
def test_paired_properties(rows, clustered, random):
    before, after, clusters = zip(*rows, strict=True)
    one, two = frame(before, clusters), frame(after, clusters)
    found = paired_difference(one, two, clustered)
    assert found.difference == pytest.approx(100 * (sum(after) - sum(before)) / len(rows))
    assert found.interval[0] - 1e-9 <= found.difference <= found.interval[1] + 1e-9
    assert 0 < found.p <= 1

    swapped = paired_difference(two, one, clustered)
    assert (swapped.b, swapped.c, swapped.p) == (found.c, found.b, found.p)
    assert swapped.interval == pytest.approx((-found.interval[1], -found.interval[0]))

    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = paired_difference(one.iloc[order], two, clustered)
    assert (shuffled.b, shuffled.c, shuffled.difference) == (found.b, found.c, found.difference)
    assert shuffled.interval == found.interval


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_properties(trial):
    successes, n = trial
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert low < high
    mirrored = wilson_interval(n - successes, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)
    if 0 < successes < n:  # the bounds solve the score equation |p - share| = z sqrt(p (1-p) / n)
        for bound in (low, high):
            score = abs(bound - successes / n) / math.sqrt(bound * (1 - bound) / n)
            assert score == pytest.approx(1.9599639845, rel=1e-6)


def test_summarise_by_hand():
    table = frame(
        [1, 1, 5, 0, 1],
        stop_block=[3, 0, 3, 2, -1],
        tokens=[[5, 4, 2], [5, 5, 5], [5, 4, 3], [5, 3, 3], []],
        # a float32 or float64 sum of the numerators would lose these units
        macs_backbone=[2**53 + 1, 2**53 + 1, 2**53 + 1, 2**53 + 1, -1],
        macs_method=[4, 0, 4, 0, -1],
        object_share=[0.5, 0.25, 0.25, 0.5, math.nan],
        object_recall=[1.0, math.nan, 0.5, 0.0, math.nan],
        sink_on_object=[1.0, math.nan, 0.0, 0.0, math.nan],
        error=[None, None, None, None, "truncated file"],
    )
    found = counted(table, clustered=False)
    assert (found["n"], found["n_failed"]) == (4, 1)
    assert (found["correct1"], found["correct5"]) == (2, 3)
    assert (found["top1"], found["top5"]) == (50.0, 75.0)
    assert found["top1_interval"] == pytest.approx([100 * x for x in wilson_interval(2, 4)])
    assert found["gmacs_backbone"] == (2**53 + 1) / 1e9
    assert found["gmacs_method"] == 2e-9
    assert found["tokens_mean"] == [5.0, 4.0, 3.25]
    assert found["final_tokens_mean"] == 3.25
    assert found["stop_histogram"] == {"0": 1, "2": 1, "3": 2}
    assert found["missed_share"] == 0.25
    assert found["object_share"] == 0.375
    assert found["object_recall"] == 0.5
    assert found["sink_on_object"] == pytest.approx(1 / 3)
    assert found["clustered"] is False


def test_summarise_deviation_and_dense():
    table = frame(
        [1, 1, 1], macs_backbone=[10**9, 2 * 10**9, 3 * 10**9], macs_method=[0, 0, 3 * 10**9]
    )
    found = counted(table, clustered=False, reduces=False)
    assert found["gmacs_sd"] == pytest.approx(math.sqrt((4 + 1 + 9) / 2))  # 1, 2, 6 about 3
    assert found["missed_share"] is None
    assert found["object_share"] is None
    assert found["object_recall"] is None
    assert found["sink_on_object"] is None


def test_summarise_uses_clusters():
    table = frame([1, 1, 1, 0, 0, 1], clusters=[0, 0, 1, 1, 2, 2])
    hits, clusters = np.array([1, 1, 1, 0, 0, 1], dtype=bool), np.array([0, 0, 1, 1, 2, 2])
    expected = [100 * bound for bound in share_interval(hits, clusters)]
    assert counted(table, clustered=True)["top1_interval"] == expected
    assert counted(table, clustered=False)["top1_interval"] != expected


def test_summarise_fewer_than_five_classes_and_row_order():
    table = frame([1, 1], top5=[[1, 0], [0, 1]], object_recall=[0.1, 0.7])
    found = counted(table, clustered=False)
    assert (found["correct1"], found["correct5"]) == (1, 2)
    assert counted(table.iloc[::-1], clustered=False) == found


def test_summarise_refuses_nothing_read():
    with pytest.raises(RequestError, match="none of the 2 images"):
        counted(frame([1, 1], error=["gone", "gone"]), clustered=False)
