"""The commands a user types, on small data: exit codes, files, and what the tables say.

The commands are forked; a job for a cluster is a process that submitit starts.
"""

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from forked import run
from PIL import Image

import asap.experiment.throughput_rows
from asap.data.imagenet.validation import synsets
from asap.measure.timing import ThroughputPlan

pytestmark = [pytest.mark.process, pytest.mark.painted]

QUICK = ("measure.throughput_images=2", "measure.panels=1")
DEMO = ("experiment=demo", "data.images=12", "batch_size=6", *QUICK)


@pytest.fixture(scope="module", autouse=True)
def short_timing() -> Iterator[None]:
    """Two laps of each model: by the protocol, warming up alone takes ten seconds."""
    plan = ThroughputPlan(2, 0.001, discard=0, short=True, warmup_seconds=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asap.experiment.throughput_rows, "_plan", lambda session: plan)
        yield


def table(results: Path, stem: str) -> dict[str, dict[str, str]]:
    with (results / "tables" / f"{stem}.csv").open(newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    results = tmp_path_factory.mktemp("demo")
    done = run(*DEMO, f"results={results}")
    assert done.returncode == 0, done.stderr
    return results, done.stdout


def test_the_demo_writes_its_table_and_figures(demo: tuple[Path, str]) -> None:
    results, printed = demo
    rows = table(results, "demo")
    assert len(rows) == 15
    assert rows["ToMe"]["paper_row"] == "ToMe" and not rows["EViT"]["paper_row"]
    assert all(row["n"] == "12" for row in rows.values())
    names = ["demo-scenes.png", "demo-scenes.svg", "demo-accuracy-macs.png", "demo-walk.svg"]
    for name in names:
        assert (results / "figures" / name).stat().st_size > 1000
        assert name in printed
    assert (results / "report.html").stat().st_size > 100_000
    words = " ".join(printed.split())
    assert "The paper's premise is a sink in the background." in words
    assert "A short version: an indication, not a measurement." in words


def test_a_second_demo_evaluates_nothing(demo: tuple[Path, str]) -> None:
    results, _ = demo
    before = {p: p.stat().st_mtime_ns for p in (results / "runs").rglob("*.json")}
    again = run(*DEMO, f"results={results}")
    assert again.returncode == 0
    assert {p: p.stat().st_mtime_ns for p in (results / "runs").rglob("*.json")} == before
    assert "12 images" not in again.stdout.split("Accuracy and cost")[0]


def test_the_report_makes_tables_of_all_records(demo: tuple[Path, str]) -> None:
    results, _ = demo
    done = run(str(results), module="asap.report")
    assert done.returncode == 0, done.stderr
    written = [Path(line.strip()) for line in done.stdout.splitlines() if line.endswith(".csv")]
    (path,) = [path for path in written if not path.stem.endswith("-timm")]
    assert len(path.read_text().splitlines()) == 16
    page = (results / "report.html").read_text()
    assert "<h2>" not in page  # the demo's rows are all there is: one section, in the run's order
    assert page.count('<section id="s1"') == 1 and "evenly spaced ones" in page
    assert page.index("ASAP (pool.)") < page.index("Random anchor")
    assert "it was not measured" not in page  # the records of speed are found again


def test_the_imagenet_experiment_on_a_folder_in_its_layout(tmp_path: Path) -> None:
    """Real JPEG files, random weights: the table stands beside the paper's and says so."""
    rng = np.random.default_rng(0)
    for wnid in synsets()[10:13]:
        folder = tmp_path / "imagenet" / "val" / wnid
        folder.mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            name = folder / f"ILSVRC2012_val_{wnid}_{i}.JPEG"
            Image.fromarray(pixels).resize((280, 240)).save(name)
    done = run(
        "experiment=imagenet_deit_base", "backbone=deit_tiny", "backbone.weights=random",
        "rows=[{method: dense}, {method: tome, with: {r: 11}}]",
        f"data.path={tmp_path}/imagenet", "batch_size=3", *QUICK, f"results={tmp_path}/results",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "6 of 50,000 images" in done.stdout
    assert "The weights are random" in done.stdout
    rows = table(tmp_path / "results", "deit-base-on-imagenet-1k")
    assert rows["Dense"]["paper_top1"] == "72.2"
    assert rows["ToMe"]["paper_top1"] == "71.15"
    assert float(rows["Dense"]["gmacs_backbone"]) == pytest.approx(1.2536832)


def test_a_multirun_on_a_cluster_ends_in_one_table(tmp_path: Path) -> None:
    """submitit's local executor: the job runs in a process of its own, as on SLURM.

    Its files have a folder that is there: submitit makes one named after a job only when it has
    started the job, which may look for it sooner while a disk is busy.
    """
    launcher = "hydra/launcher=submitit_local"
    files = f"hydra.launcher.submitit_folder={tmp_path}/submitit"
    given = ("-m", launcher, files, "method=tome", "method.r=2", "limit=16", f"results={tmp_path}")
    command = [sys.executable, "-m", "asap.run", *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path, "digits-vit-on-digits--multirun")
    assert [(label, row["n"]) for label, row in rows.items()] == [
        ("Dense", "16"),
        ("ToMe r=2", "16"),
    ]
    assert not list(tmp_path.glob("multirun/jobs-*"))


def test_help_lists_what_there_is() -> None:
    printed = run("--help").stdout
    for word in ("digits_vit", "deit_base", "random_anchor", "imagenet", "demo", "precision"):
        assert word in printed
