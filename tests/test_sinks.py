"""Dashboards and figures: they hold what the records hold, and can never cost a result."""

import errno
import io
import json
import logging
import math
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb_file
from made import methods, reads, record
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import asap
from asap.measure.record_parts import describe, method_of_record
from asap.publish.mirrors import tensorboard, wandb
from asap.report.example_table import Example, example_of, example_of_clip
from asap.report.figures import ImagePanel, scene_panels
from asap.report.figures.clip_panels import clip_animation, frame_panels
from asap.report.figures.point_labels import place_labels
from asap.report.result import Result
from asap.report.scalars import curves, scalars

pytestmark = pytest.mark.painted

NAN = float("nan")


def cell(label="ToMe", top1=80.0, macs=1.5, key="00c0ffee00c0ffee", name="tome", ours=False):
    about = {"key": key, "identity": {"methods": methods(name, {"r": 4})}, "gmacs_method": 0.25}
    about |= {"tokens_mean": [65.0, 40.0, 15.0], "final_tokens_mean": 15.0, "missed_share": 0.5}
    accuracy = record(name, top1, macs, **about, precision="float32")
    errors = [None, None, "torn"]
    frame = pd.DataFrame({"index": range(3), "mass": [[1.0, 3.0], [2.0, NAN], []], "error": errors})
    speed = {
        "key": "speed",
        "precision": "float32",
        "images_per_s": {"median": 321.0},
        "ratio_fused": {"median": 1.25},
        "ratio_eager": None,
    }
    records = {"accuracy": accuracy, "throughput": speed}
    return Result(label, ours=ours, records=records, read=reads(frame))


@pytest.fixture
def quiet_wandb(monkeypatch, tmp_path):
    for name in ("DIR", "DATA_DIR", "CACHE_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return tmp_path / "dashboards"


def log(result, mode, folder, **more):
    target = wandb.WandbTarget(mode, "asap", None, "demo", folder)
    return wandb.log_result(result, {"method": "tome", "r": 4}, target, **more)


def read_when_complete(folder, key, complete):
    """The only run of a key, once W&B's own process has written what `complete` waits for."""
    deadline = time.monotonic() + 120
    while True:
        (file,) = folder.glob(f"wandb/offline-run-*-{key}/run-{key}.wandb")
        run = wandb_file.read(file)
        if complete(run):
            return run
        assert time.monotonic() < deadline, f"not complete: {run}"
        time.sleep(0.05)


def test_scalars_and_curves_by_hand():
    found = scalars(cell())
    assert found["gmacs"] == 1.75
    assert (found["top1_lo"], found["top1_hi"]) == (76.0, 83.0)
    assert (found["images_per_s"], found["ratio_fused"]) == (321.0, 1.25)
    assert "ratio_eager" not in found
    assert "object_recall" not in found
    assert curves(cell())["tokens"] == {1: 65.0, 2: 40.0, 3: 15.0}
    assert curves(cell())["mass"] == {1: 1.5, 2: 3.0}  # block 2: one image was still unreduced


def test_curves_of_a_method_without_mass():
    masses = [[NAN, NAN], [NAN, NAN]]
    frame = pd.DataFrame({"index": [0, 1], "mass": masses, "error": [None, None]})
    result = Result("ToMe", read=reads(frame))
    assert curves(result) == {"mass": {}}
    assert scalars(result) == {}


def example():
    picture = np.zeros((4, 6, 3), np.uint8)
    return Example({"input": picture, "sink": picture}, "seven", "one", 5, 3, 20)


@pytest.mark.process
def test_wandb_offline_reads_back(quiet_wandb, tmp_path):
    record = tmp_path / "record"
    record.mkdir()
    (record / "accuracy.json").write_text("{}")
    key = "00c0ffee00c0ffee"
    two = [example(), example()]
    assert log(cell(), "offline", quiet_wandb, record=record, examples=lambda: two)
    run = read_when_complete(quiet_wandb, key, lambda r: "top1" in r["summary"] and r["artifacts"])
    assert run["run"] == {
        "id": key, "group": "demo", "job_type": "eval", "name": "ToMe digits_vit",
        "tags": ["digits_vit", "tome", "float32"],
    }  # fmt: skip
    assert {k: run["config"][k] for k in ("method", "r")} == {"method": "tome", "r": 4}
    expected = {"top1": 80.0, "gmacs": 1.75, "images_per_s": 321.0, "ratio_fused": 1.25}
    assert {k: run["summary"][k] for k in expected} == expected
    rows = [row for row in run["history"] if "block" in row]
    tokens = {row["block"]: row["block/tokens"] for row in rows if "block/tokens" in row}
    mass = {row["block"]: row["block/mass"] for row in rows if "block/mass" in row}
    assert tokens == {1: 65.0, 2: 40.0, 3: 15.0}
    assert mass == {1: 1.5, 2: 3.0}
    shape = run["summary"]["examples/nrows"], run["summary"]["examples/ncols"]
    assert shape == (2, 7)
    named = {a.name: a for a in run["artifacts"]}
    (reference,) = named[f"record-{key}"].manifest.contents
    assert reference.ref == (record / "accuracy.json").as_uri()


@pytest.mark.process
def test_wandb_has_clips_as_animations(quiet_wandb):
    frames = np.stack([np.full((8, 6, 3), shade, np.uint8) for shade in (10, 200)])
    clip = Example({"input": frames, "kept tokens": frames}, "left", "up", "3 0", "4 -1", "9 9")
    assert log(cell(), "offline", quiet_wandb, examples=lambda: [clip])
    run = read_when_complete(quiet_wandb, "00c0ffee00c0ffee", lambda r: r["artifacts"])
    (table,) = (a for a in run["artifacts"] if a.type == "run_table")
    files = [Path(e.local_path) for e in table.manifest.contents if e.path.endswith(".gif")]
    assert files
    for file in files:
        with Image.open(file) as shown:
            assert (shown.n_frames, shown.size) == (2, (6, 8))  # type: ignore[attr-defined]


@pytest.mark.process
def test_wandb_writes_a_run_once(quiet_wandb):
    for _ in range(2):
        assert log(cell(), "offline", quiet_wandb)
    folders = quiet_wandb.glob("wandb/offline-run-*-00c0ffee00c0ffee")
    assert len(list(folders)) == 1
    assert log(cell(top1=81.0), "offline", quiet_wandb)  # another number is written again
    folders = quiet_wandb.glob("wandb/offline-run-*-00c0ffee00c0ffee")
    assert len(list(folders)) >= 1
    assert len(list((quiet_wandb / "mirrored").iterdir())) == 1


def test_wandb_disabled_writes_nothing(quiet_wandb):
    assert log(cell(), "disabled", quiet_wandb)
    assert not quiet_wandb.exists()


def expect_one_warning(caplog, text):
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert text in record.getMessage()
    assert "\n" not in record.getMessage()


def test_wandb_online_without_a_key_warns(quiet_wandb, caplog):
    assert not log(cell(), "online", quiet_wandb)
    expect_one_warning(caplog, "no API key")


def test_wandb_that_cannot_be_reached_is_asked_once(quiet_wandb, caplog, monkeypatch):
    asked = []

    def refuse(**given):
        asked.append(given["id"])
        raise TimeoutError("nobody answers")

    monkeypatch.setattr("wandb.init", refuse)
    for key in ("1111111111111111", "2222222222222222", "1111111111111111"):
        assert not log(cell(key=key), "offline", quiet_wandb)
    assert asked == ["1111111111111111"]
    expect_one_warning(caplog, "nobody answers (its record is kept; later rows are not tried: ")


def test_wandb_not_installed_warns(quiet_wandb, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert not log(cell(), "offline", quiet_wandb)
    expect_one_warning(caplog, "ToMe was not logged")


def test_wandb_unwritable_folder_warns(quiet_wandb, caplog, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert not log(cell(), "offline", tmp_path / "file" / "folder")
    expect_one_warning(caplog, "was not logged")


@pytest.mark.process
def test_wandb_failing_half_way_warns_and_finishes(quiet_wandb, caplog, monkeypatch):
    def fail(run, result):
        raise RuntimeError("the disk\nis full")

    monkeypatch.setattr(wandb, "_write", fail)
    assert not log(cell(key="1111111111111111"), "offline", quiet_wandb)
    expect_one_warning(caplog, "the disk is full")
    monkeypatch.undo()
    import wandb as library

    assert library.run is None


def test_a_disk_that_is_full_for_wandb_only_is_one_line(quiet_wandb, caplog, capsys, monkeypatch):
    """W&B's log files lie there too: of each line that cannot be written, logging would tell.

    Seen so with 1 MB of memory as the disk: 3,000 lines of traceback beside the warning.
    """

    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    handler = logging.StreamHandler(Full())

    def write(*_):
        logging.getLogger("wandb").warning("a line of W&B's own log")
        raise OSError(errno.ENOSPC, "No space left on device")

    logging.getLogger("wandb").addHandler(handler)
    try:
        monkeypatch.setattr(wandb, "_log", write)
        assert not log(cell(), "offline", quiet_wandb)
        assert "ToMe was not logged: OSError: [Errno 28] No space left" in caplog.text
        assert capsys.readouterr().err == ""
        logging.getLogger("wandb").warning("logging tells of its errors as before")
        assert "--- Logging error ---" in capsys.readouterr().err
    finally:
        logging.getLogger("wandb").removeHandler(handler)


def test_nothing_recorded_warns(quiet_wandb, caplog, tmp_path):
    empty = Result("Lost")
    assert not log(empty, "offline", quiet_wandb)
    expect_one_warning(caplog, "there is no record")
    caplog.clear()
    assert not tensorboard.log_result(empty, {}, tmp_path)
    expect_one_warning(caplog, "there is no record")


def test_tensorboard_reads_back_and_replaces(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for top1 in (10.0, 80.0):  # the second time replaces the first
        assert tensorboard.log_result(cell(top1=top1), {"method": {"r": 4}}, tmp_path)
    (file,) = (tmp_path / "00c0ffee00c0ffee").iterdir()
    events = EventAccumulator(str(file.parent))
    events.Reload()
    assert [event.value for event in events.Scalars("summary/top1")] == [80.0]
    tokens = [(event.step, event.value) for event in events.Scalars("block/tokens")]
    assert tokens == [(1, 65.0), (2, 40.0), (3, 15.0)]


def test_tensorboard_not_installed_warns(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert not tensorboard.log_result(cell(), {}, tmp_path)
    expect_one_warning(caplog, "ToMe was not logged")


def panel(stop_block=3):
    image = np.random.default_rng(0).integers(0, 255, (30, 45, 3)).astype(np.uint8)
    values = np.linspace(0, 1, 6)
    maps = (values, values, np.arange(6) % 3, values > 0.4) if stop_block else [np.full(6, NAN)] * 4
    return ImagePanel(image, "3", "8", (2, 3), 4 if stop_block else -1, *maps, stop_block, 5)


def test_scene_panels_are_the_same_bytes_each_time(tmp_path):
    panels = [panel(), panel(stop_block=0)]  # the second has no maps to draw
    one = scene_panels(panels, tmp_path / "one" / "scenes.svg")
    two = scene_panels(panels, tmp_path / "two" / "scenes")
    assert [path.suffix for path in one] == [".svg", ".png"]
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert scene_panels([panel(stop_block=0)], tmp_path / "three")
    with pytest.raises(ValueError, match="at least one image"):
        scene_panels([], tmp_path / "four")


def test_clips_are_drawn_frame_by_frame_and_in_motion(tmp_path):
    clips = [(panel(), panel(0), panel()), (panel(),)]  # the second stays at its only frame
    one, two = (frame_panels(clips, tmp_path / name / "frames") for name in "ab")
    moving = [clip_animation(clips, tmp_path / name / "clips") for name in "ab"]
    for first, second in zip([*one, *moving[0]], [*two, *moving[1]], strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert [path.suffix for path in moving[0]] == [".svg", ".png", ".webp"]
    with Image.open(moving[0][2]) as shown, Image.open(moving[0][1]) as first:
        assert shown.n_frames == 3 and shown.info["loop"] == 0  # type: ignore[attr-defined]
        still = np.asarray(first.convert("RGB")).astype(int)
        off = []
        for moment in range(3):
            shown.seek(moment)
            off.append(float(np.abs(np.asarray(shown.convert("RGB")) - still).mean()))
    assert off[0] < 5 and off[1] > 2 * off[0]  # WebP's loss; what changes
    for draw in (frame_panels, clip_animation):
        with pytest.raises(ValueError, match="at least one"):
            draw([], tmp_path / "none")


def test_a_clip_is_an_example_with_a_value_for_each_frame():
    made = example_of_clip([example_of(panel()), example_of(panel(0))])
    assert (made.stop_block, made.sink, made.tokens) == ("3 0", "4 -1", "5 5")
    assert {picture.shape for picture in made.pictures.values()} == {(2, 30, 45, 3)}
    assert (made.pictures["kept tokens"][1] == made.pictures["input"][1]).all()


def test_labels_of_crowded_points_do_not_overlap():
    figure = Figure(figsize=(8, 6))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = [(1.0 + 0.001 * i, 2.0 + 0.001 * i) for i in range(6)] + [(2.0, 3.0)]
    axes.plot(*zip(*points, strict=True), "o")
    axes.margins(0.4)
    place_labels(axes, points, [f"method {i}" for i in range(7)], [])
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == 7
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[i + 1 :])


def test_a_method_is_made_again_from_its_record() -> None:
    for method in (asap.methods.PPT(threshold=math.inf, r=(3, 2, 1)), asap.methods.Asap(tau=2.0)):
        written = json.loads(json.dumps(describe(method), allow_nan=False))
        assert method_of_record(written) == method
