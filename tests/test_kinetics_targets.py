"""The make target on Kinetics, run as make would, on a few small clips with random weights."""

import csv
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from fake_kinetics import FakeKinetics, encoded
from in_process import quick, run_here
from test_configs import spec_of

from asap.backbones.video_head import build_head, save_head
from asap.measure.session import Session
from asap.records.store import Store

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("kinetics_clip_vit_large", "kinetics_clip_vit_large_224")
STEMS = {f"clip-vit-l-14-at-{size}-pixels-on-kinetics-400": size for size in (336, 224)}
SMALL = (
    "backbone.weights=random", "+backbone.model_args.embed_dim=24",
    "+backbone.model_args.num_heads=3", "+backbone.model_args.img_size=64",
    "+backbone.model_args.patch_size=4", "batch_size=16", "workers=0", "device=cpu", "head.heads=4",
    "data.frames=4",
)  # fmt: skip
FAST = (
    "calibrate.images=2", "calibrate.window=90", "measure.rounds=3", "measure.seconds=0.001",
    "measure.throughput_images=4", "calibrate.grid={tau: [1.0], clusters: [2], threshold: [0.0]}",
)  # fmt: skip
FEW = (
    "rows=[{method: dense}, {method: tome, with: {r: 8}}, {method: asap, with: {tau: 1.0}}]",
    "measure.throughput=false",
)
Run = Callable[..., str]


@pytest.fixture(scope="module")
def made() -> FakeKinetics:
    return FakeKinetics.make(6, train=4, encode=encoded)


@pytest.fixture
def call(tmp_path: Path, capsys) -> Iterator[Run]:
    """`call(*arguments)`: what asap.run prints with them and `SMALL`, in this process."""

    def run(*arguments: str, results: str = "results") -> str:
        done = run_here(*SMALL, *arguments, f"results={tmp_path / results}", capsys=capsys)
        assert not done.code, done.err
        return " ".join((done.out + done.err).split())

    with quick():
        yield run


@pytest.fixture
def heads(tmp_path: Path, made: FakeKinetics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads with random weights, where the target looks for them."""
    root = made.folders(tmp_path / "for the head")
    for name, variable in zip(NAMES, ("HEAD", "HEAD_224"), strict=True):
        asked = (f"experiment={name}", f"data.path='{root}'", *SMALL)
        config = Session(spec_of(*asked, f"results={tmp_path / 'results'}")).head_config
        assert config is not None
        torch.manual_seed(3)
        save_head(tmp_path / f"{name}.safetensors", build_head(config), config)
        monkeypatch.setenv(variable, str(tmp_path / f"{name}.safetensors"))


def command_of(data: Path, *given: str) -> list[str]:
    """The arguments of asap.run in what make would do."""
    command = ["make", "-n", "kinetics-clip-vit-large", f"KINETICS={data}", *given]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in printed.splitlines() if " -m asap.run " in line]
    return shlex.split(line.split(" -m asap.run ")[1])


def rows_of(folder: Path, stem: str) -> list[dict[str, str]]:
    text = (folder / "tables" / f"{stem}.csv").read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.usefixtures("heads")
def test_the_target_makes_the_papers_block_at_both_resolutions(
    call: Run, made: FakeKinetics, tmp_path: Path
) -> None:
    root = made.cvdf(tmp_path / "it's k400")
    said = call(*command_of(root), *FAST)
    assert "Baseline gate, ClipViT-Large: not applicable (the weights are random" in said
    assert "on 2 calibration clips" in said and "4 frames, 3 alternating rounds" in said
    assert "images" not in said
    for stem in STEMS:
        rows = rows_of(tmp_path / "results", stem)
        assert [row["method"] for row in rows] == [
            "Dense", "ToMe", "PPT", "Random anchor", "ASAP w/o accumulation", "ASAP (prun.)",
            "ASAP (pool.)", "ASAP quiet anchor (ours)",
        ]  # fmt: skip
        assert [row["paper_top1_delta"] for row in rows if row["paper_top1_delta"]] == [
            "-2.6", "-4.85", "-0.65", "-0.21",
        ]  # fmt: skip
        assert {row["n"] for row in rows} == {"6"} and {row["frames"] for row in rows} == {"4"}
        for row in rows:
            assert float(row["gmacs_per_frame"]) == pytest.approx(float(row["infer_gmacs"]) / 4)
            assert row["infer_samples_per_sec"] and float(row["clips_per_sec"]) > 0
            assert float(row["decoded_clips_per_sec"]) > 0 and float(row["gmacs_head"]) > 0
        sinks = {row["method"] for row in rows if row["sink_distance"]}
        assert "ASAP (pool.)" in sinks and "Dense" not in sinks
        text = (tmp_path / "results" / "tables" / f"{stem}.md").read_text("utf-8")
        assert "to be read as not measured" in text and "Frames and clips" in text


@pytest.mark.usefixtures("heads")
def test_every_layout_gives_the_same_records(call: Run, made: FakeKinetics, tmp_path: Path) -> None:
    found: dict[str, dict[str, tuple[pd.DataFrame, pd.DataFrame]]] = {}
    for layout in FakeKinetics.LAYOUTS:
        root = getattr(made, layout)(tmp_path / layout)
        call(f"experiment={NAMES[0]}", f"data.path={root}", *FEW, results=f"of {layout}")
        cells = Store(tmp_path / f"of {layout}" / "runs").cells()
        found[layout] = {cell.key: (cell.answers(), cell.traces()) for cell in cells}
    first = found.pop("folders")
    assert len(first) == 3
    for tables in found.values():
        assert tables.keys() == first.keys()
        for key, both in tables.items():
            for one, other in zip(both, first[key], strict=True):
                pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.usefixtures("heads")
def test_without_training_clips_costs_are_met_on_a_slice_that_is_left_out(
    call: Run, made: FakeKinetics, tmp_path: Path
) -> None:
    without = FakeKinetics({**made.clips, "train": []}, made.content, made.positions)
    root = without.folders(tmp_path / "k400")
    rows = "rows=[{method: dense}, {method: tome, macs_pct: -30}]"
    grid = "calibrate.grid={r: [8]}"
    said = call(f"experiment={NAMES[0]}", f"data.path={root}", *FEW[1:], *FAST[:2], rows, grid)
    assert "without the 3 of the calibration" in said
    (cell, _) = Store(tmp_path / "results" / "runs").cells()
    assert len(cell.answers()) == 3


def test_one_head_is_trained_for_all_rows_and_found_again(
    call: Run, made: FakeKinetics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without HEAD it is trained on the training clips; workers that read ahead change nothing."""
    monkeypatch.delenv("HEAD", raising=False)
    root = made.folders(tmp_path / "k400")
    asked = (f"experiment={NAMES[0]}", f"data.path={root}", *FEW, "head.epochs=1")
    call(*asked)
    store = Store(tmp_path / "results" / "runs")
    files = list(store.root.glob("*/head.safetensors"))
    assert len(files) == 1 and len(store.cells()) == 4
    before = {cell.key: cell.record("accuracy") for cell in store.cells()}
    call(*asked, "title=again")
    assert {cell.key: cell.record("accuracy") for cell in store.cells()} == before
    call(*asked, "workers=2", f"head.file={files[0]}", results="by workers")
    other = Store(tmp_path / "by workers" / "runs")
    assert {cell.key for cell in other.cells()} == {k for k, found in before.items() if found}
    for cell in other.cells():
        alone = store.cell(cell.key)
        for one, same in ((cell.answers, alone.answers), (cell.traces, alone.traces)):
            pd.testing.assert_frame_equal(one(), same(), check_exact=True)


def test_without_a_folder_make_says_which_ones_there_are() -> None:
    command = ["make", "kinetics-clip-vit-large"]
    failed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 2 and "KINETICS is empty" in failed.stderr
    assert all(word in failed.stderr for word in ("CVDF", "PySlowFast", "mmaction2", "OpenDataLab"))
