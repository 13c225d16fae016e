"""The demo of questions as a user types it, on a few scenes; and what is recorded of the whole."""

import csv
from pathlib import Path

import pytest
import wandb_file
import yaml
from forked import run

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "results" / "bench" / "cpu" / "demo_vlm"
FEW = ("experiment=demo_vlm", "data.pictures=2", "measure.panels=1")
SOME = (
    "rows=[{method: dense}, {method: fastv, with: {layer: 1, rank: 7}}, "
    "{method: asap, with: {tau: 3.0, miss: force}}]"
)


def config() -> dict:
    text = (ROOT / "configs" / "experiment" / "demo_vlm.yaml").read_text("utf-8")
    return yaml.safe_load(text)


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(path: Path) -> dict[str, dict[str, str]]:
    return {row["method"]: row for row in lines(path)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    done = run(*FEW, f"results={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def test_every_method_has_scores_rows_and_costs_beside_the_unreduced_model(results: Path) -> None:
    rows = table(results / "tables" / "demo-of-vlm-questions.csv")
    assert len(rows) == len(config()["rows"]) == 26
    assert {row["n"] for row in rows.values()} == {rows["Full"]["n"]}
    for name, row in rows.items():
        budget = 14 if "14" in name else 7
        if row["extension"] == "0" and name not in ("Full", "ASAP (pool.)"):
            at_most = budget if "V" not in name or "Vi" in name else 64
            assert float(row["visual_rows"]) <= at_most, name
        for key in ("score_presence", "f1_presence", "yes_share_presence", "average", "kv_mib"):
            assert row[key], (name, key)
        if name != "Full":
            assert row["mcnemar_p"] and row["top1_delta_lo"] and row["relative"], name
            assert float(row["flops_pct"]) < 0, name
    assert float(rows["FastV, 7"]["layer_visual_rows"]) == (64 + 3 * 7) / 4
    assert float(rows["VisionZip, 14"]["gmacs_prefill_pct"]) < 40


def test_pictures_and_the_page_have_the_answers(results: Path) -> None:
    for name in ("answers", "side-by-side", "walk", "accuracy-rows"):
        assert (results / "figures" / f"demo-of-vlm-questions-{name}.png").is_file()
    page = (results / "report.html").read_text("utf-8")
    for said in (
        "Scores by category",
        "Accuracy against rows in the language model",
        "corrected",
    ):
        assert said in page, said


def test_a_second_run_answers_nothing_and_dashboards_get_every_row(results: Path) -> None:
    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (results / "runs").rglob("*.*")}

    before = written()
    done = run(
        *FEW, SOME, f"results={results}", "title=Some", "log.wandb=offline", "log.examples=1",
        "log.tensorboard=true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert before.items() <= written().items()
    runs = [wandb_file.read(path) for path in (results / "wandb").rglob("*.wandb")]
    logged = {one["config"]["method"]: one for one in runs}
    assert set(logged) == {"dense", "fastv", "asap"}
    assert logged["fastv"]["config"]["language.rank"] == 7
    for one in runs:
        assert one["summary"]["yes_share_presence"] >= 0 and one["summary"]["average"] > 0
    assert len(list((results / "tensorboard").rglob("events.out.tfevents.*"))) == 3


def test_rows_are_compared_and_reported_from_their_records(results: Path) -> None:
    rows = ("demo of vlm questions", "Full", "FastV, 7")
    told = run(*rows, f"--results={results}", module="asap.compare")
    assert told.returncode == 0, told.stderr
    assert "points, 95 % interval" in told.stdout and "questions, only the second" in told.stdout
    made = run(f"results={results}", module="asap.report")
    assert made.returncode == 0, made.stderr
    assert "Demo of VLM questions" in (results / "report.html").read_text("utf-8")


def test_flips_are_counted_listed_and_drawn(results: Path) -> None:
    """Of a method that shows its sink, and of one that shows only what it keeps."""
    every = lines(results / "tables" / "demo-of-vlm-questions-flips.csv")
    for label in ("ASAP (prun.), 7", "VisionZip, 7"):
        told = run(
            "demo of vlm questions", "Full", label, "--images=1", f"--results={results}",
            module="asap.compare",
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        flips = [row for row in every if row["row"] == label]
        assert flips, "a scene of this budget flips an answer"
        (line,) = [one for one in told.stdout.splitlines() if one.startswith("Of ")]
        corrects = sum(row["flip"] == "corrected" for row in flips)
        assert f"{label} corrects {corrects} " in line
        assert f"and corrupts {len(flips) - corrects} (" in line
        files = [Path(one.strip()) for one in told.stdout.splitlines() if "-flips." in one]
        assert sorted(path.suffix for path in files) == [".csv", ".png", ".svg"]
        assert lines(next(f for f in files if f.suffix == ".csv")) == flips


def test_the_recorded_table_has_every_row_and_the_premise_holds_in_it() -> None:
    rows = table(RECORDED / "table.csv")
    assert [row["label"] for row in config()["rows"] if "label" in row] == list(rows)[:24]
    assert len(rows) == 26 and rows["Full"]["n"] == rows["ToMe, 7"]["n"]
    full, objects, others = (
        {k: float(rows[name][f"score_{k}"]) for k in ("presence", "count", "leftmost")}
        for name in ("Full", *list(rows)[-2:])
    )
    assert full["presence"] >= 93 and full["count"] >= 93 and full["leftmost"] >= 85
    assert all(objects[k] >= full[k] - 5 and others[k] <= full[k] - 15 for k in full)


def test_the_points_are_those_that_were_found() -> None:
    said = (RECORDED / "points.txt").read_text("utf-8")
    chosen = [line.split("chosen: ")[1] for line in said.splitlines() if "chosen: " in line]
    points = config()["points"]
    assert chosen == [
        f"tau={points[name]['tau']:g} K={points[name]['clusters']}" for name in ("asap", "quiet")
    ]
