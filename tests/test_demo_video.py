"""The demo of videos as a user types it, on a few clips: head, tables, pictures, controls."""

import csv
from pathlib import Path

import pytest
from forked import run
from PIL import Image

pytestmark = [pytest.mark.process, pytest.mark.painted]

FEW = ("data.videos=8", "head.epochs=2")
ROWS = "rows=[{method: dense}, {method: tome, with: {r: 4}}, {method: asap, with: {tau: 3.0}}]"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    done = run(
        "experiment=demo_video", *FEW, ROWS, "measure.panels=2", f"results={folder}",
        "log.wandb=offline", "log.examples=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def rows_of(results: Path, stem: str) -> dict[str, dict[str, str]]:
    with (results / "tables" / f"{stem}.csv").open(newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_every_method_has_its_accuracy_and_what_changes_between_frames(results: Path) -> None:
    rows = rows_of(results, "demo-of-videos")
    assert list(rows) == ["Dense", "ToMe", "ASAP (pool.)"]
    assert {(row["n"], row["frames"]) for row in rows.values()} == {("8", "8")}
    assert float(rows["ToMe"]["flops_pct"]) < -20
    assert float(rows["ASAP (pool.)"]["sink_distance"]) > 0 and rows["Dense"]["kept_overlap"] == ""
    moved = {float(row["frame_difference"]) for row in rows.values()}
    assert len(moved) == 1 and moved.pop() > 1


def test_the_clips_are_drawn_and_the_page_has_their_animation(results: Path) -> None:
    with Image.open(results / "figures" / "demo-of-videos-clips.webp") as moving:
        assert moving.n_frames == 8  # type: ignore[attr-defined]
    for name in ("frames.png", "frames.svg", "clips.png"):
        assert (results / "figures" / f"demo-of-videos-{name}").stat().st_size > 10_000
    page = (results / "report.html").read_text("utf-8")
    assert page.count('data-moving="data:image/webp') == page.count('class="play"') == 1


def test_a_second_run_trains_and_evaluates_nothing(results: Path) -> None:
    def written() -> dict[Path, int]:
        made = [*(results / "runs").rglob("*.*"), *results.rglob("*.mp4")]
        return {path: path.stat().st_mtime_ns for path in made}

    before = written()
    done = run("experiment=demo_video", *FEW, ROWS, "measure.panels=2", f"results={results}")
    assert done.returncode == 0, done.stderr
    assert written() == before


def test_the_controls_have_heads_of_their_own(results: Path) -> None:
    for name, stem in (
        ("demo_video_mean", "demo-of-videos--linear-head-on-the-mean-of-the-frames"),
        ("demo_video_middle", "demo-of-videos--middle-frame-alone"),
    ):
        done = run(f"experiment={name}", *FEW, f"results={results}")
        assert done.returncode == 0, done.stderr
        assert rows_of(results, stem)["Dense"]["n"] == "8"
    assert len(list((results / "runs").glob("*/head.safetensors"))) == 3
    assert len(list(results.rglob("*.mp4"))) == 16
