"""The table over benchmarks: averages, the gate of each column, the paper's numbers beside ours."""

import csv
import io
from dataclasses import replace

import pytest
from made_questions import FULL as OWN
from made_questions import ROWS, answers
from made_scores import FULL, MODEL, lost, paper_block, row
from test_configs import spec_of

from asap.cli.compare import summary
from asap.errors import RequestError
from asap.report import paper
from asap.report.benchmarks.named import BENCHMARKS, average, in_order, named
from asap.report.disagreement import compare
from asap.report.figures.charts import charts
from asap.report.latex import to_latex
from asap.report.manifest import manifest_of
from asap.report.page import Section, render_page
from asap.report.printed import printed
from asap.report.result import Result, unmeasured
from asap.report.result_table import build_table
from asap.report.table_parts import parts
from asap.spec.run_spec import DataSpec

COLUMNS = {one.data: one.column for one in BENCHMARKS}
# Rows whose printed average or share the table contradicts, with what it should print.
CONTRADICTED = {
    ("llava15", "ToMe", "64"): (49.8, 68.5),
    ("llava15", "FastV", "64"): (50.0, 68.9),
    ("llava15", "SparseVLM", "64"): (60.8, 83.7),
    ("llava15", "ASAP (Ours) + Hybrid", "64"): (70.5, 97.1),
    ("composition", "+ VisPruner", "64"): (69.2, 95.4),
    ("composition", "+ VisPruner (Diffusion Dist)", "64"): (70.0, 96.4),
    ("composition", "+ ASAP + VisPruner (ASAP Hybrid)", "64"): (70.5, 97.1),
}


def table_of(results, name="llava15"):
    return build_table(results, paper_table=name)


def lines(results, name="llava15") -> dict[str, dict[str, str]]:
    found = csv.DictReader(io.StringIO(table_of(results, name).to_csv()))
    return {line["method"]: line for line in found}


def notes(results, label, key, name="llava15") -> str:
    found = next(r for r in table_of(results, name).rows if r.values["method"] == label)
    return " ".join(found.notes.get(key, ()))


@pytest.mark.parametrize("name", ["llava15", "llava_next", "composition"])
def test_the_papers_averages_are_those_of_its_columns(name) -> None:
    base = None
    for printed_row in paper.paper_table(name):
        numbers = {
            one.column: float(printed_row[one.column])
            for one in BENCHMARKS
            if printed_row.get(one.column)
        }
        found = average(numbers)
        base = base or found
        key = (name, printed_row["method"], printed_row["tokens"])
        avg, share = CONTRADICTED.get(
            key, (float(printed_row["avg"]), float(printed_row["rel_pct"]))
        )
        assert found == pytest.approx(avg, abs=0.1001)
        rounded = 100 * round(found, 1) / round(base, 1)  # the paper divides what it prints
        assert rounded == pytest.approx(share, abs=0.1001), key
        if key in CONTRADICTED:
            printed_numbers = float(printed_row["avg"]), float(printed_row["rel_pct"])
            away = (found - printed_numbers[0], 100 * found / base - printed_numbers[1])
            assert max(map(abs, away)) > 0.05


def test_a_row_for_each_method_and_a_column_for_each_benchmark() -> None:
    found = lines(paper_block(COLUMNS))
    assert len(found) == 16 and next(iter(found)) == "Full"
    full, tome = found["Full"], found["ToMe, 128"]
    assert [float(full[c]) for c in COLUMNS.values()] == list(FULL.values())
    assert (tome["mme"], tome["mme_lo"], tome["mme_n"], tome["mme_split"]) == (
        "1343.0", "1342.0", "100", "test",
    )  # fmt: skip
    assert float(tome["avg"]) == pytest.approx(
        (52.4 + 1343 / 20 + 62.8 + 59.6 + 50 + 63 + 53.3) / 7
    )
    assert float(tome["rel_pct"]) == pytest.approx(80.38, abs=0.01)
    assert (tome["paper_avg"], tome["paper_pope"], float(tome["pope_minus_paper"])) == (
        "58.3", "62.8", 0.0,
    )  # fmt: skip
    assert full["paper_rel_pct"] == "100.0" and full["pope_comparable"] == "yes"
    assert float(tome["visual_rows"]) == 128 and float(tome["macs_pct_of_dense"]) < 100
    assert tome["pope_key"] == "pope-ToMe, 128-62.8"


def test_every_form_of_the_table_can_be_made() -> None:
    results = paper_block(COLUMNS)
    table = table_of(results)
    first, second = parts(table)
    assert "61.9 [60.9, 62.9]" in first.to_markdown() and "1862 [1861, 1863]" in first.to_markdown()
    assert "the metric of gqa" in first.to_markdown()
    assert "denominator of 69.0" in second.to_markdown()
    assert "Baseline gate, GQA: passed" in second.to_markdown()
    latex = to_latex([first, second])
    assert "VizWiz" in latex
    for name in {result.label for result in results}:  # each row has its name, in both parts
        assert latex.count(f"\n{name} & ") == 2, name
    for width in (80, 120):
        said = printed(table, "LLaVA-1.5", width)
        assert max(map(len, said.split("\n"))) <= width
        assert "Ours minus the paper's" in said and "Hybrid" in said
    there, absent = charts(results, {})
    assert there == [] and "one benchmark" in absent["Accuracy against MACs"]
    page = render_page([Section("All", results, paper_table="llava15")], {}, "All")
    assert "Scores, rows and costs" in page and "the paper has no numbers" not in page
    assert manifest_of("All", [], results).rows[0].data == "gqa"


def test_a_column_whose_full_model_is_not_the_papers_is_not_comparable() -> None:
    results = paper_block(COLUMNS, gqa=0.5, pope=0.51, mme=-20.0)
    found = lines(results)
    full, tome = found["Full"], found["ToMe, 64"]
    assert full["gqa_comparable"] == full["mme_comparable"] == "yes"
    assert float(tome["gqa_minus_paper"]) == pytest.approx(0.5)
    assert full["pope_comparable"].startswith(
        "no: failed (the full model has 86.41, published 85.9"
    )
    assert tome["pope_minus_paper"] == "" and tome["paper_pope"] == "52.5"
    assert "the gate of POPE failed" in notes(results, "ToMe, 64", "pope_minus_paper")
    marked = table_of(results).column_notes
    assert "Not comparable" in marked["pope"][-1] and "Not comp" not in marked["gqa"][-1]
    assert tome["avg_minus_paper"] == "" and float(tome["avg"]) > 0
    assert "the gate of POPE is not passed." in notes(results, "ToMe, 64", "avg_minus_paper")


@pytest.mark.parametrize(
    ("data", "about", "said"),
    [
        ("pope", {"n": 20}, "20 of 100 questions"),
        ("vqav2", {"split": "val"}, "is of test-dev, not val"),
        ("scienceqa", {"split": "val", "n_expected": None}, "is of test, not val"),
        ("vizwiz", {"score": None, "status": "not scored here"}, "test: not scored here"),
    ],
)
def test_numbers_of_other_questions_are_not_compared(data, about, said) -> None:
    score = about.pop("score", FULL[data])
    results = [row("gqa", "Full", FULL["gqa"]), row(data, "Full", score, **about)]
    found = lines(results)["Full"]
    column = named(data).column
    assert found[f"{column}_comparable"] == f"no: not applicable ({_reason(said, data)})"
    assert found[f"{column}_minus_paper"] == ""


def _reason(said: str, data: str) -> str:
    return f"the published number {said}" if data in ("vqav2", "scienceqa") else said


def test_averages_are_over_the_questions_of_the_full_row_alone() -> None:
    def two(label: str, score: float | None = 50.0, **about):
        return [row("gqa", label, 60.0), row("pope", label, score, **about)]

    results = [
        *two("Full"), *two("fewer", n=90), *two("split", split="val"), *two("none", None),
        *two("same", 25.0), row("gqa", "missing", 60.0), lost("pope", "missing", "no pictures"),
    ]  # fmt: skip
    found = lines(results)
    assert float(found["Full"]["avg"]) == 55 and float(found["Full"]["rel_pct"]) == 100
    assert float(found["same"]["rel_pct"]) == pytest.approx(100 * 42.5 / 55)
    for label in ("fewer", "split", "none", "missing"):
        assert found[label]["avg"] == found[label]["rel_pct"] == ""
    assert "POPE is over 90 questions (test), 100 (test) in" in notes(results, "fewer", "avg")
    assert "No record of POPE: no pictures." in notes(results, "missing", "pope")
    assert "POPE has no number" in notes(results, "none", "rel_pct")


def test_a_benchmark_that_is_not_scored_is_in_no_average() -> None:
    results = [
        row("gqa", "Full", 60.0), row("vqav2", "Full", None),
        row("gqa", "Half", 30.0), row("vqav2", "Half", None),
    ]  # fmt: skip
    found = lines(results)
    assert (found["Full"]["avg"], found["Half"]["rel_pct"]) == ("60.0", "50.0")
    table = table_of(results)
    assert "Mean over GQA. Without VQAv2" in " ".join(table.column_notes["avg"])
    assert "(test-dev) is not scored here. The right" in notes(results, "Half", "vqav2")
    assert "VQAv2 (test-dev)" in parts(table)[0].to_markdown()


def test_the_papers_average_is_over_the_same_benchmarks() -> None:
    found = lines(paper_block({"gqa": "gqa", "mme": "mme"}))
    full, tome = found["Full"], found["ToMe, 64"]
    assert float(full["paper_avg"]) == pytest.approx((61.9 + 93.1) / 2)
    assert float(tome["paper_rel_pct"]) == pytest.approx(100 * (48.6 + 46.1) / (61.9 + 93.1))
    assert float(tome["avg_minus_paper"]) == pytest.approx(0)
    text = notes(paper_block({"gqa": "gqa", "mme": "mme"}), "ToMe, 64", "paper_avg")
    assert "Recomputed" in text


def test_a_terminal_shows_no_differences_where_none_is_formed() -> None:
    results = [row("gqa", "Full", 61.9, n=20), row("pope", "Full", 85.9, n=20)]
    said = printed(table_of(results), "LLaVA-1.5", 120)
    assert "Ours minus" not in said and "Baseline gate, POPE: not applicable (20 of 100" in said
    assert "61.9" in said and "[60.9" not in said


def test_answers_that_are_cut_are_said_where_they_are_many() -> None:
    def cut(n: int) -> str:
        one = row("pope", "Full", 80.0)
        about = {**one.measured["questions"], "n_cut": n}
        found = one.with_records(accuracy={**one.measured, "questions": about, "n": 300})
        return notes([row("gqa", "Full", 60.0), found], "Full", "pope")

    assert "More than 1 %" in cut(4) and cut(3) == ""


def test_other_tables_of_the_paper_are_found_by_their_names() -> None:
    rel = paper.published("anchor_llava_next", MODEL, "Random", False)
    assert rel == {"gqa": 53.3, "pope": 79.6, "mme": 1481, "sqa_img": 66.9, "avg_rel_pct": 89.4}
    assert paper.published("llava15", MODEL, "ToMe", False) is None  # at 128 and at 64
    tome = paper.published("llava15", MODEL, "ToMe, 64", False) or {}
    pooling = paper.published("composition", MODEL, "Only Pooling", False) or {}
    assert (tome["pope"], pooling["avg"]) == (52.5, 72.3)
    assert paper.full_row("anchor_llava_next")["gqa"] == 64.2
    assert not paper.in_table("llava15", "llava")  # the bundled one is not the paper's


def test_the_bundled_model_is_not_set_beside_the_paper() -> None:
    results = [
        replace(r.with_records(accuracy={**r.measured, "backbone": "llava"}), on="llava")
        for r in paper_block({"gqa": "gqa", "pope": "pope"})
    ]
    table = table_of(results)
    assert len(parts(table)) == 1
    assert "not applicable" in " ".join(table.remarks) and "paper_gqa" not in table.to_csv()


def test_questions_of_ones_own_are_columns_without_the_papers_numbers() -> None:
    other = {**OWN.measured, "data": "questions b.jsonl, 12 questions about 4 pictures"}
    other["identity"] = {**other["identity"], "data": {"content": "b", "labels": "b"}}
    own = [*ROWS, OWN.with_records(accuracy=other)]
    found = lines(own)
    assert float(found["Full"]["avg"]) == pytest.approx(100 * 11 / 12)
    assert found["VisionZip"]["avg"] == "" and "questions_b_jsonl" in found["Full"]
    assert [b.title for b in in_order([named("x"), named("mme"), named("gqa")])] == [
        "GQA", "MME", "x",
    ]  # fmt: skip


def test_a_row_without_a_record_does_not_make_a_table_over_benchmarks() -> None:
    """Neither of questions of one's own nor of a manifest that does not know what was asked."""
    for data in (None, "digits_qa", "questions a.jsonl"):
        gone = Result("ToMe", reason="failed: a defect", data=data)
        table = build_table([*ROWS, gone])
        assert table.title == "Results" and table.rows[-1].values["method"] == "ToMe"
    one, gone = row("gqa", "Full", 60.0), Result("ToMe", reason="record x is gone", data="gqa")
    assert build_table([one, gone]).title == "Results"
    results = [one, row("pope", "Full", 60.0), Result("ToMe", reason="record x is gone")]
    assert "No record of POPE: record x is gone." in notes(results, "ToMe", "pope")


def test_a_row_without_a_record_names_its_benchmark_whatever_its_title() -> None:
    spec = replace(spec_of("task=vlm"), data=DataSpec("pope", title="A copy"))
    results = [row("pope", "Full", 86.0), row("gqa", "Full", 60.0), unmeasured(spec, spec.rows[0])]
    assert "No record of GQA: it was not run." in notes(results, spec.rows[0].label, "gqa")


def test_a_number_that_is_not_defined_is_no_server_s() -> None:
    """As F1 over few questions may be."""
    results = [row("gqa", "Full", 60.0), row("pope", "Full", None, status="scored")]
    told = notes(results, "Full", "pope")
    assert "has no number over these questions" in told and "server" not in told
    assert "test: no number over these questions" in table_of(results).remarks[-1]


def test_records_that_do_not_belong_together_are_refused() -> None:
    one, two = row("gqa", "Full", 60.0), row("pope", "Full", 60.0)
    other = row("pope", "ToMe", 50.0)
    identity = {**other.measured["identity"], "data": {"content": "x", "labels": "pope"}}
    changed = other.with_records(accuracy={**other.measured, "identity": identity})
    with pytest.raises(RequestError, match="one table holds one data set"):
        build_table([one, two, changed])
    half = other.with_records(accuracy={**other.measured, "precision": "fp16"})
    with pytest.raises(RequestError, match="one table holds one precision"):
        build_table([one, two, half])
    again = row("pope", "Full", 61.0)
    with pytest.raises(RequestError, match="two rows 'Full' of pope"):
        build_table([one, two, again])


def test_a_difference_of_numbers_has_its_interval_or_a_reason() -> None:
    def pope(label: str, score: float, wrong: set[int]):
        found = answers(wrong, subset=["random"] * 12)
        return replace(row("pope", label, score), read={"answers": lambda: found})

    full, alike = pope("Full", 85.0, {1}), pope("ToMe, 64", 85.0, {1})
    other = pope("ToMe, 32", 80.0, {0, 1, 4, 7})
    table = table_of([full, alike, other])
    lines_of = list(csv.DictReader(io.StringIO(table.to_csv())))
    low, middle, high = (float(lines_of[2][f"pope_delta{end}"]) for end in ("_lo", "", "_hi"))
    assert low < middle < high and middle < 0
    assert (lines_of[1]["pope_delta"], lines_of[1]["pope_delta_lo"]) == ("0.0", "")
    assert "the same difference" in " ".join(table.rows[1].notes["pope_delta"])
    text = "\n".join(part.to_markdown() for part in parts(table))
    assert "Δ POPE, 95 % interval" in text and f"{middle:+.2f} [{low:+.2f}, {high:+.2f}]" in text
    assert "Δ POPE" in printed(table, "POPE", 140) and "Avg" in text
    said = summary(compare(full, other))
    assert f"POPE, second - first: {middle:+.2f}" in said
    assert "Δ GQA" not in table_of([row("gqa", "Full", 61.0)]).to_csv()


def test_the_only_category_of_a_benchmark_is_not_shown_beside_its_number() -> None:
    def titles(score: float, categories: int) -> list[str]:
        one = row("gqa", "Full", score)
        about = dict(one.measured["questions"])
        about["categories"] = {
            name: {"score": 61.0, "lo": 60.0, "hi": 62.0, "n": 9}
            for name in ("gqa", "more")[:categories]
        }
        record = {**one.measured, "questions": about}
        return [c.title for c in table_of([one.with_records(accuracy=record)]).columns]

    assert "GQA" in titles(61.0, 1) and not {"gqa", "Avg"} & set(titles(61.0, 1))
    assert {"gqa", "more", "Avg"} <= set(titles(61.0, 2))
    assert "gqa" in titles(59.0, 1)  # as of MMBench, whose turns are right more often


def test_one_benchmark_alone_has_its_number_its_parts_and_the_papers() -> None:
    parts_of = {"perception": 1500.0, "OCR & text": 140.0}
    results = [
        row("mme", "Full", 1850.0, parts=parts_of),
        row("mme", "ToMe, 64", 900.0, parts=parts_of, paper="ToMe, 64"),
    ]
    table = table_of(results)
    line, tome = csv.DictReader(io.StringIO(table.to_csv()))
    assert (tome["paper_mme"], tome["mme_minus_paper"]) == ("922.0", "-22.0")
    assert (line["mme"], line["mme_perception"], line["mme_ocr_text"]) == (
        "1850.0", "1500.0", "140.0",
    )  # fmt: skip
    titles = [part.title for part in parts(table)]
    assert "Parts of the benchmark's number" in titles and "Beside the paper" in titles
    text = "\n".join(part.to_markdown() for part in parts(table))
    assert "The metric of mme; 100 questions (test)." in text
    assert "1850 [1849, 1851]" in text and "GQA" not in text and "-22" in text
    assert "Baseline gate, MME: passed" in text
    assert line["comparable"] == "yes" and "1850" in printed(table, "MME", 120)
