"""Yes/no answers that a row corrects and corrupts: which, how many, in words and in a CSV."""

import csv
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_questions import ASKED, FULL, answers, asked
from made_scores import row as score_row
from matplotlib.patches import Rectangle

from asap.errors import RequestError
from asap.report.figures.charts import charts
from asap.report.figures.flip_counts import draw_flip_counts, flip_counts
from asap.report.flips import (
    CORRECTED,
    CORRUPTED,
    NEGATIVE,
    NEITHER,
    POSITIVE,
    YES_NO,
    all_flips,
    chosen,
    flips_of,
    in_words,
    to_csv,
)
from asap.report.result import Result
from asap.tasks.scoring.rules import SAID

N = 4 * len(ASKED)  # questions of the made rows, of which every third is not a yes/no question
ASKED_SO = [i for i in range(N) if i % 3 < 2]


def row(wrong: set[int], label: str = "ASAP", **columns: Any) -> Result:
    made = asked("visionzip", label, wrong)
    frame = answers(wrong, **columns)
    return replace(made, read={**made.read, "answers": lambda: frame})


@settings(max_examples=30)
@given(*(st.sets(st.integers(0, N - 1)) for _ in range(2)))
def test_every_answer_that_only_one_row_has_right_is_a_flip_of_its_kind(
    first: set[int], second: set[int]
) -> None:
    found = flips_of(row(first, "Full"), row(second))
    assert found is not None
    expected = {
        (flip, error): [] for flip in (CORRECTED, CORRUPTED) for error in (NEGATIVE, POSITIVE)
    }
    for i in ASKED_SO:
        if (i in first) != (i in second):
            flip = CORRECTED if i in first else CORRUPTED
            expected[flip, NEGATIVE if i % 3 == 0 else POSITIVE].append(i)
    for (flip, error), positions in expected.items():
        own = found.questions[
            (found.questions["flip"] == flip) & (found.questions["error"] == error)
        ]
        # The made gap is the position + 1, of a yes above 0: a flip moves it by twice that.
        assert own["index"].tolist() == sorted(positions, reverse=True)
        assert found.count(flip, error) == len(positions)
    paired = found.paired
    assert paired.n == len(ASKED_SO) and not paired.partial
    assert (paired.c, paired.b) == tuple(
        sum(len(expected[flip, e]) for e in (NEGATIVE, POSITIVE)) for flip in (CORRECTED, CORRUPTED)
    )


def test_a_flip_has_both_answers_and_their_gaps() -> None:
    found = flips_of(FULL, row({3}, visual_rows=[14] * N))
    assert found is not None
    back, gone = found.questions.to_dict("records")
    told = ("index", "said_before", "said_after", "gap_before", "gap_after", "answer")
    assert [back[name] for name in told] == [1, "yes", "no", 2.0, -2.0, "no"]
    assert [gone[name] for name in told] == [3, "yes", "no", 4.0, -4.0, "yes"]
    assert (back["flip"], back["error"]) == (CORRECTED, POSITIVE)
    assert (gone["flip"], gone["error"]) == (CORRUPTED, NEGATIVE)
    assert (gone["rows_before"], gone["rows_after"]) == (64, 14)
    assert in_words(found, "Full", "ASAP") == (
        "Of 8 yes/no questions, ASAP corrects 1 answer of Full (0 false negatives and 1 false "
        "positive) and corrupts 1 (1 new false negative and 0 new false positives); McNemar's "
        "exact p = 1."
    )


def test_an_answer_of_mme_that_says_neither_is_no_false_positive() -> None:
    """It is wrong whatever is right; POPE reads it as yes, so there it is what it was."""
    said = ["other" if i in (0, 1) else "yes" for i in range(N)]
    kinds = {"yes_no": [NEGATIVE, POSITIVE], "mme": [NEITHER, NEITHER]}
    for kind, errors in kinds.items():
        rows = (row(wrong, said=said, kind=[kind] * N) for wrong in (set(), {0, 1}))
        found = flips_of(*rows)
        assert found is not None and set(found.questions["flip"]) == {CORRUPTED}
        assert found.questions.sort_values("index")["error"].tolist() == errors
        told = in_words(found, "Full", "ASAP")
        assert ("0 new false positives and 2 new answers of neither" in told) == (kind == "mme")
        assert "(0 false negatives and 0 false positives)" in told
    rows = [replace(FULL, read=row(set(), kind=["mme"] * N, said=said).read)]
    data = flip_counts([*rows, row({0, 1}, "x", said=said, kind=["mme"] * N)])
    assert data[f"{CORRUPTED} {NEITHER}"].tolist() == [2]
    assert f"{CORRECTED} {NEITHER}" not in data
    bars = [p.get_width() for p in draw_flip_counts(data).axes[0].patches if p.get_width()]  # pyright: ignore
    assert bars == [-2]
    ticks = draw_flip_counts(data).axes[0].get_xticks()
    assert all(tick == round(tick) for tick in ticks)


def test_answers_that_are_not_finite_or_could_not_be_read_are_no_flips() -> None:
    finite = [int(i != 1) for i in range(N)]
    error = ["the picture is gone" if i == 3 else None for i in range(N)]
    found = flips_of(FULL, row({0}, finite=finite, error=error))
    assert found is not None
    assert found.paired.n == len(ASKED_SO) - 2 and found.questions["index"].tolist() == [0]
    assert flips_of(FULL, row(set(), finite=[0] * N)) is None


def test_without_yes_no_questions_there_are_no_flips() -> None:
    other = ["exact"] * N
    assert flips_of(row({1}, kind=other), row(set(), kind=other)) is None
    with pytest.raises(RequestError, match="different labels"):
        flips_of(FULL, row(set(), question=["?"] * N))


def test_every_rule_that_hears_yes_or_no_has_flips() -> None:
    assert set(YES_NO) == set(SAID)


def test_gaps_that_are_not_known_stand_last() -> None:
    gaps = [float("nan") if i == 9 else 0.0 for i in range(N)]
    found = flips_of(row(set(), "Full"), row({0, 6, 9}, yes_no_gap=gaps))
    assert found is not None and found.questions["index"].tolist() == [6, 0, 9]


def test_rows_are_compared_with_the_full_model_of_their_own_block() -> None:
    def of(model: str, one: Result) -> Result:
        return one.with_records(accuracy={**one.measured, "backbone": model})

    first, second = of("a", asked("dense", "Full", {0})), of("b", asked("dense", "Full", {1}))
    found = all_flips([second, of("a", row(set())), of("c", row(set())), first, of("b", row({0}))])
    assert [(one.backbone, flips.questions["index"].tolist()) for one, flips in found] == [
        ("a", [0]), ("b", [1, 0]),
    ]  # fmt: skip


def test_the_chart_has_both_directions_of_every_row_and_is_of_one_set_of_questions() -> None:
    rows = [FULL, row({1, 3, 4, 6}, "worse"), row(set(), "better")]
    data = flip_counts(rows)
    assert data["label"].tolist() == ["worse", "better"] and set(data["n"]) == {8}
    columns = [
        f"{flip} {error}" for flip in (CORRECTED, CORRUPTED) for error in (NEGATIVE, POSITIVE)
    ]
    assert data[columns].to_numpy().tolist() == [[0, 0, 2, 1], [0, 1, 0, 0]]
    bars = [
        (bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width())
        for bar in draw_flip_counts(data).axes[0].patches
        if isinstance(bar, Rectangle) and bar.get_width()
    ]
    assert sorted(bars) == [(0, -2, -1), (0, 0, -2), (1, 0, 1)]
    (chart,) = [one for one in charts(rows, {})[0] if one.name == "flip-counts"]
    assert chart.data.equals(data)
    assert flip_counts([FULL, row({1})]).empty and flip_counts([]).empty
    other = [score_row("gqa", label, 1.0) for label in ("Full", "other")]
    assert flip_counts([*other, *rows]).empty


kinds = st.sampled_from([(f, e) for f in (CORRECTED, CORRUPTED) for e in (NEGATIVE, POSITIVE)])


@settings(max_examples=30)
@given(st.lists(st.tuples(kinds, st.integers(0, 5)), max_size=20), st.integers(0, 6))
def test_kinds_are_shown_in_turn_and_no_picture_twice(
    flips: list[tuple[tuple[str, str], int]], count: int
) -> None:
    flips = sorted(flips, key=lambda one: one[0])
    frame = pd.DataFrame(
        {
            "flip": [f for (f, _), _ in flips], "error": [e for (_, e), _ in flips],
            "cluster": [cluster for _, cluster in flips],
        }
    )  # fmt: skip
    shown = chosen(frame, count)
    assert shown["cluster"].is_unique and shown.index.is_monotonic_increasing
    assert len(shown) == min(count, frame["cluster"].nunique())
    apart = frame.assign(cluster=np.arange(len(frame)))  # every flip has a picture of its own
    each = chosen(apart, count).groupby(["flip", "error"]).size()
    left = apart.groupby(["flip", "error"]).size().sub(each, fill_value=0)
    for kind, n in each.items():
        assert all(each.get(k, 0) >= n - 1 or left[k] == 0 for k in left.index), kind


def test_all_rows_are_in_one_table_in_their_order() -> None:
    rows = [FULL, row({4}, "a, b", text=[*["no\nway"] * 5, *["yes"] * (N - 5)]), row({1}, "same")]
    found = all_flips(rows)
    assert [one.label for one, _ in found] == ["a, b", "same"]
    lines = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert [(one["row"], one["flip"], one["index"]) for one in lines] == [
        ("a, b", CORRECTED, "1"), ("a, b", CORRUPTED, "4"),
    ]  # fmt: skip
    assert lines[0]["said_after"] == "no way" and lines[0]["gap_before"] == "2.0000"
    assert [lines[0][name] for name in ("id", "rows_after")] == ["101", "64"]
    assert all_flips([row({1})]) == [] == all_flips([])
    assert to_csv(found[1:]).count("\n") == 1, "no flip: the head alone"
