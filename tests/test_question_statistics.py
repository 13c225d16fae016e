"""Paired comparisons of answers with a score: of 0 and 1 as of classes, in part by Student's t."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from asap.errors import RequestError
from asap.report.statistics import finite, hits, leads, paired_difference


def asked(scores: list[float], clusters: list[int] | None = None, **columns: object):
    n = len(scores)
    values = {
        "id": list(range(n)),
        "question": [f"question {i} ?" for i in range(n)],
        "answers": [["yes"]] * n,
        "cluster": list(range(n)) if clusters is None else clusters,
        "score": scores,
        "gap": [1.5] * n,
        "error": [None] * n,
    }
    return pd.DataFrame(values | columns)


def classes(right: list[bool], clusters: list[int] | None = None):
    """The same answers as those of images."""
    n = len(right)
    values = {"id": list(range(n)), "label": [0] * n, "other_labels": [[]] * n}
    values |= {"cluster": list(range(n)) if clusters is None else clusters, "error": [None] * n}
    return pd.DataFrame({**values, "top5": [[0 if r else 1] for r in right]})


@pytest.mark.parametrize("clustered", [False, True])
def test_answers_that_are_right_or_wrong_are_paired_as_classes_are(clustered: bool) -> None:
    before, after = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    sources = [0, 0, 1, 1, 2, 2]
    found = paired_difference(asked(before, sources), asked(after, sources), clustered)
    same = paired_difference(
        classes([s == 1 for s in before], sources),
        classes([s == 1 for s in after], sources),
        clustered,
    )
    assert found == same and (found.b, found.c, found.partial) == (2, 1, False)


def test_answers_right_in_part_have_students_p_and_interval() -> None:
    before, after = [0.3, 1.0, 0.6, 0.0, 1.0], [0.6, 1.0, 0.0, 0.3, 0.9]
    found = paired_difference(asked(before), asked(after), clustered=False)
    change = np.array(after) - before
    test: Any = stats.ttest_1samp(change, 0.0)
    low, high = test.confidence_interval(0.95)
    assert found.partial and (found.b, found.c) == (2, 2)
    assert found.difference == pytest.approx(100 * change.mean())
    assert found.interval == pytest.approx((100 * low, 100 * high))
    assert found.p == pytest.approx(test.pvalue, rel=1e-9)


def test_pictures_with_equal_questions_count_once() -> None:
    """Three questions of a picture that change alike say no more than one of them."""
    before, after = [0.3, 0.6, 0.0, 1.0], [0.6, 0.3, 0.5, 1.0]
    one = paired_difference(asked(before), asked(after), clustered=False)
    thrice = paired_difference(
        asked(before * 3, [0, 1, 2, 3] * 3), asked(after * 3, [0, 1, 2, 3] * 3), clustered=True
    )
    assert thrice.interval == pytest.approx(one.interval) and thrice.p == pytest.approx(one.p)
    assert (thrice.n, thrice.n_clusters) == (12, 4)


def test_no_difference_and_one_picture_say_nothing() -> None:
    same = paired_difference(asked([0.3, 0.6]), asked([0.3, 0.6]), clustered=True)
    assert same.difference == 0 and same.p == 1 and same.interval[0] < 0 < same.interval[1]
    one = paired_difference(asked([0.3, 0.6], [7, 7]), asked([1.0, 1.0], [7, 7]), clustered=True)
    assert one.p == 1 and one.interval == (-100.0, 100.0)


@pytest.mark.parametrize(
    "other",
    [
        {"question": ["another ?", "question 1 ?"]},
        {"answers": [["no"], ["yes"]]},
        {"id": [5, 6]},
    ],
)
def test_other_questions_are_refused(other: dict) -> None:
    with pytest.raises(RequestError):
        paired_difference(asked([1.0, 0.0]), asked([1.0, 0.0], **other), clustered=False)


def test_questions_and_classes_are_not_compared() -> None:
    with pytest.raises(RequestError, match="cannot be compared"):
        paired_difference(asked([1.0]), classes([True]), clustered=False)


def test_only_a_full_score_is_right_and_an_infinite_gap_leads_nothing() -> None:
    frame = asked([1.0, 0.9, 0.0], gap=[2.0, math.nan, 0.5], finite=[1, 0, 1])
    assert hits(frame)[0].tolist() == [True, False, False]
    assert finite(frame).tolist() == [True, False, True]
    assert leads(frame, alone=0.0).tolist() == [2.0, -math.inf, 0.5]
