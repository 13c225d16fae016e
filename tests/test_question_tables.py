"""Tables of questions: scores by category, corrected and corrupted answers, rows and costs."""

import csv
import io
from pathlib import Path

import pytest
from made_questions import FULL, ROWS, answers, asked

from asap.cli.compare import summary
from asap.cli.report import _write
from asap.errors import RequestError
from asap.publish.all_records import group_of, is_current, label_of
from asap.records.versions import ENGINE_VERSION
from asap.report.disagreement import compare
from asap.report.figures.charts import charts
from asap.report.latex import to_latex
from asap.report.printed import printed
from asap.report.result_table import _left_out, build_table
from asap.report.scalars import curves, scalars
from asap.report.table_parts import parts


def lines(rows) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(build_table(rows).to_csv())))


def test_scores_rows_and_costs_are_columns_of_the_csv() -> None:
    full, zipped, fast = lines(ROWS)
    assert [float(r["top1"]) for r in (full, zipped, fast)] == pytest.approx(
        [100 * 11 / 12, 75.0, 100 * 11 / 12]
    )
    assert (zipped["score_presence"], zipped["score_count"]) == ("87.5", "50.0")
    assert (zipped["n_presence"], zipped["f1_presence"], zipped["yes_share_presence"]) == (
        "8", pytest.approx("88.88888888888889"), "62.5",
    )  # fmt: skip
    assert float(zipped["yes_share_presence_popular"]) == 25.0
    assert float(zipped["average"]) == 68.75 and float(full["relative"]) == 100
    assert float(zipped["relative"]) == pytest.approx(100 * 68.75 / 93.75)
    assert (zipped["visual_rows"], zipped["layer_visual_rows"], zipped["kv_mib"]) == (
        "14.0", "14.0", "0.21875",
    )  # fmt: skip
    assert float(zipped["gmacs_prefill_pct"]) == pytest.approx(100 * 14 / 64)
    assert (full["gmacs_tower"], zipped["gmacs_tower_pct"]) == ("1.0", "100.0")
    assert float(zipped["macs_pct_of_dense"]) == pytest.approx(100 * 1.154 / 1.704)


def test_answers_are_paired_with_the_unreduced_models() -> None:
    _, zipped, fast = lines(ROWS)
    assert (zipped["mcnemar_c"], zipped["mcnemar_b"], zipped["n_paired"]) == ("0", "2", "12")
    assert (fast["mcnemar_c"], fast["mcnemar_b"], fast["mcnemar_p"]) == ("1", "1", "1.0")
    assert float(zipped["top1_delta"]) == pytest.approx(-100 * 2 / 12)
    assert float(zipped["top1_delta_lo"]) < float(zipped["top1_delta"])


def test_the_page_has_scores_and_rows_in_parts_of_their_own_and_no_speeds() -> None:
    found = parts(build_table(ROWS))
    assert [part.title for part in found] == [
        "Accuracy and cost", "Scores by category", "Rows and cost of the language model",
        "Tokens and sinks",
    ]  # fmt: skip
    text = "\n".join(part.to_markdown() for part in found)
    for said in (
        "cost per question", "against full, paired", "corrected", "presence F1", "says yes (%)",
        "Questions about 4 pictures: 8 presence, 4 count.", "(21.9 %)", "questions that share a",
    ):  # fmt: skip
        assert said in text or said.split(" (")[0] in to_html_heads(found), said
    assert "img/s" not in text and "Throughput" not in text
    assert "VisionZip" in to_latex(found)
    heads = [column.group for column in found[0].columns]
    assert sorted(heads, key=heads.index) == heads  # each group is one run of columns


def to_html_heads(found) -> str:
    return " ".join(column.group for part in found for column in part.columns)


def test_a_terminal_shows_rows_and_says_of_what() -> None:
    said = printed(build_table(ROWS), "Questions", 120)
    assert "right" in said and "rows in" in said and "top-1" not in said
    assert "presence" in said and all(len(line) <= 120 for line in said.split("\n"))
    assert "VisionZip" in printed(build_table(ROWS), "Questions", 80)


def test_no_relative_score_over_other_questions() -> None:
    other = asked("tome", "ToMe", set(), 14.0)
    about = {**other.measured["questions"], "categories": {"count": {"score": 1.0, "n": 1}}}
    about["categories"]["count"] |= {"lo": None, "hi": None}
    other = other.with_records(accuracy={**other.measured, "questions": about})
    table = build_table([FULL, other])
    assert table.rows[1].values.get("relative") is None
    assert any("do not have the questions" in note for note in table.rows[1].notes["relative"])


def test_rows_that_are_answered_in_other_ways_are_in_tables_of_their_own() -> None:
    def row(order: str, limit: int | None, picture: str = "pad"):
        full = asked("dense", "Full", set())
        identity = {**full.measured["identity"], "preprocessing": {"picture": picture}}
        identity["answer"] = {"order": order, "max_new_tokens": limit}
        return full.with_records(accuracy={**full.measured, "identity": identity})

    usual, *others = row("method", None), row("spatial", None), row("method", 4)
    cropped = row("method", None, "crop")
    groups = [group_of(one.measured, "questions") for one in (usual, *others, cropped)]
    assert len(set(groups)) == 4
    more = [group[len(groups[0]) :] for group in groups[1:]]
    assert more == [("order spatial",), ("max_new_tokens 4",), ("picture crop",)]
    pictures = {"preprocessing": {"anyres": "native"}, "answer": {"crops": "crop"}}
    other = usual.with_records(
        accuracy={**usual.measured, "identity": {**usual.measured["identity"], **pictures}}
    )
    assert group_of(other.measured, "questions")[-2:] == ("crops crop", "anyres native")
    assert "LLaVA-NeXT's own crops" in " ".join(build_table([other]).caption)
    assert "crops" not in " ".join(build_table([usual]).caption)
    for other, said in ((others[0], "way to answer"), (others[1], "way to"), (cropped, "preproc")):
        with pytest.raises(RequestError, match=f"one table holds one {said}"):
            build_table([usual, other])


def test_yes_and_no_without_subsets_have_an_f1_too() -> None:
    about = dict(FULL.measured["questions"])
    about["yes_no"] = {"presence": {"all": about["yes_no"]["presence"]["all"]}}
    row = FULL.with_records(accuracy={**FULL.measured, "questions": about | {"pictures": 1}})
    text = "\n".join(part.to_markdown() for part in parts(build_table([row])))
    assert "presence F1" in text and "about 1 picture:" in text


def test_partial_scores_have_students_p() -> None:
    found = answers({2})
    found["score"] = [0.3, *found["score"][1:]]
    row = asked("tome", "ToMe", {2})
    row = type(row)("ToMe", records=row.records, read={"answers": lambda: found})
    table = build_table([FULL, row])
    assert any("Student" in note for note in table.rows[1].notes["mcnemar_p"])


def test_a_dashboard_gets_scores_and_rows_of_every_layer() -> None:
    found = scalars(ROWS[1])
    assert (found["visual_rows"], found["score_count"], found["average"]) == (14.0, 50.0, 68.75)
    assert found["yes_share_presence_popular"] == 25.0 and "precision_presence" not in found
    assert curves(ROWS[1])["language_rows"] == {1: 26.0, 2: 26.0}


def test_a_row_of_the_language_stage_is_not_the_baseline() -> None:
    assert [row.is_dense for row in ROWS] == [True, False, False]
    assert [row.reducing["name"] for row in ROWS] == ["dense", "visionzip", "fastv"]


def test_two_rows_are_compared_question_by_question() -> None:
    found = compare(ROWS[0], ROWS[1])
    assert (found.paired.b, found.paired.c, len(found.images)) == (2, 0, 2)
    shown = {row["question"]: row for row in found.images.to_dict("records")}
    one = shown["is it 0 count  ?"]
    assert (one["label"], one["first"], one["second"]) == ("two", "two", "one")
    assert found.images["sureness"].is_monotonic_decreasing
    said = summary(found)
    assert "only the first is right on 2 questions" in said and "right 91.67 %" in said


def test_a_label_has_the_options_of_both_stages() -> None:
    record = {
        "label": "Both",
        "identity": {
            "engine": ENGINE_VERSION,
            "methods": {
                "vision": {"name": "tome", "options": {"r": 3}, "version": 1},
                "language": {"name": "fastv", "options": {"layer": 1, "rank": 5}, "version": 1},
            },
        },
    }
    assert label_of(record) == "Both r=3 layer=1 rank=5"
    old = {**record["identity"]["methods"]["language"], "version": 99}
    methods = {**record["identity"]["methods"], "language": old}
    assert is_current(record["identity"] | {"methods": {}})
    assert not is_current(record["identity"] | {"methods": methods})


def test_accuracy_is_drawn_against_the_rows_of_the_language_model_too() -> None:
    found, _ = charts(ROWS, {})
    by_name = {chart.name: chart for chart in found}
    rows = by_name["accuracy-rows"].data
    assert (
        rows["layer_visual_rows"].tolist() == [64.0, 14.0, 40.0]
        and rows.attrs["accuracy"] == "right"
    )
    assert rows["front"].tolist() == [False, True, True]  # FastV is as right as the full model
    axes = by_name["accuracy-rows"].figure().axes[0]
    assert "per question" in axes.get_xlabel() and axes.get_ylabel().startswith("right")
    assert "GMACs per question" in by_name["accuracy-macs"].figure().axes[0].get_xlabel()


def test_questions_that_a_row_leaves_out_could_not_be_answered() -> None:
    assert "that some row of this table could not answer: a.png#1." in _left_out(
        {1: "a.png#1"}, "questions"
    )


def test_tables_of_all_records_of_questions_have_no_columns_of_classes(tmp_path: Path) -> None:
    names = [path.name for path in _write(tmp_path, ("llava", "scenes"), ROWS)]
    assert names == ["all-llava-scenes.md", "all-llava-scenes.csv", "all-llava-scenes.tex"]
