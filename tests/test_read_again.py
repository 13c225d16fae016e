"""Only complete readings are final: what failed to be read is read again by the next run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from outcomes import outcome
from PIL import Image, ImageFilter
from samples import open_data, small_run
from timm.data import create_transform

import asap.errors
from asap.calibrate import calibrate
from asap.calibrate.calibration_set import CalibrationSet
from asap.data.crops.file import Crops
from asap.data.digits import render as digits
from asap.data.images import image_files as pictures
from asap.data.images.decoding import UnreadableImage
from asap.experiment import accuracy_rows
from asap.experiment.pipeline import run
from asap.measure.accuracy import evaluate
from asap.measure.session import Session
from asap.methods.registry import build, code_of, find
from asap.spec.run_spec import MethodSpec, RunSpec

TO_32 = create_transform(32, interpolation="bicubic", crop_pct=0.9)
DENSE, TOME = {"method": "dense"}, {"method": "tome", "with": {"r": 4}}
ASAP, K4 = {"method": "asap", "with": {"tau": 2.0}}, {"tau": 2.0, "clusters": 4, "pool": False}
BLUR = ImageFilter.GaussianBlur(9)


def scenes(root: Path, n: int = 12, change: Callable = lambda picture: picture) -> Path:
    """The first scenes of the digits as BMP files, all of one size."""
    for i in range(n):
        scene = digits.scene("evaluation", 0, i)
        file = root / str(scene.label) / f"{i:05d}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        change(Image.fromarray(scene.image)).save(file)
    return root


def spec_of(results: Path, root: Path, *rows: dict, **data) -> RunSpec:
    images = {"name": "folder", "path": str(root), **data}
    return small_run(results, *(rows or [DENSE]), title="Again", data=images, batch_size=10)


@pytest.fixture
def unreadable(monkeypatch) -> Callable[..., None]:
    """`unreadable("00003")` makes files with such names fail from now on; without a name, none."""
    real, failing = pictures.open_rgb, []

    def opening(file, *rest):
        if any(name in str(file) for name in failing):
            raise UnreadableImage("truncated or damaged (Input/output error)")
        return real(file, *rest)

    def set_failing(*names: str) -> None:
        failing[:] = names

    monkeypatch.setattr(pictures, "open_rgb", opening)
    return set_failing


@pytest.fixture
def opened(monkeypatch) -> list[int]:
    """Grows by the position of every picture that is opened."""
    found: list[int] = []
    real = pictures.ImageFiles.open
    monkeypatch.setattr(pictures.ImageFiles, "open", lambda s, i: found.append(i) or real(s, i))
    return found


@pytest.mark.parametrize("cache", [None, "auto"])
def test_two_folders_of_equal_names_and_sizes_are_two_data_sets(cache, tmp_path):
    """In one results folder, and with one folder of crops."""
    sharp = scenes(tmp_path / "a")
    blurred = scenes(tmp_path / "b", change=lambda picture: picture.filter(BLUR))
    for one, other in zip(
        sorted(sharp.rglob("*.bmp")), sorted(blurred.rglob("*.bmp")), strict=True
    ):
        assert one.stat().st_size == other.stat().st_size
    found = [
        run(spec_of(tmp_path / results, root, cache=cache))[1][0].accuracy
        for results, root in (("both", sharp), ("both", blurred), ("own", blurred))
    ]
    assert found[0]["key"] != found[1]["key"] == found[2]["key"]
    assert found[0]["top1"] > found[1]["top1"] == found[2]["top1"]


@pytest.mark.parametrize("cache", [None, "auto"])
def test_a_damaged_picture_that_is_repaired_at_the_same_size_is_read(cache, tmp_path):
    root = scenes(tmp_path / "set")
    file = root / "3" / next(iter(sorted((root / "3").iterdir()))).name
    good = file.read_bytes()
    file.write_bytes(bytes(len(good)))
    spec = spec_of(tmp_path / "run", root, cache=cache)
    assert run(spec)[1][0].accuracy["n_failed"] == 1
    file.write_bytes(good)
    _, (result,) = run(spec)
    assert (result.accuracy["n"], result.accuracy["n_failed"]) == (12, 0)


@pytest.mark.parametrize(
    ("rows", "cache"), [((DENSE,), None), ((DENSE,), "auto"), ((ASAP, {**ASAP, "with": K4}), None)]
)
def test_a_failure_that_passes_costs_one_image_and_leaves_nothing(
    rows, cache, unreadable, tmp_path, monkeypatch
):
    root = scenes(tmp_path / "set")
    spec, whole = (spec_of(tmp_path / name, root, *rows, cache=cache) for name in ("a", "b"))
    run(whole)
    unreadable("00003", "00007", "00008")
    found = run(spec)[1]
    assert {(r.accuracy["n"], r.accuracy["n_failed"]) for r in found} == {(9, 3)}
    first = outcome(spec.results)
    assert outcome(spec.results) == first and run(spec)[1][0].accuracy["n_failed"] == 3
    assert outcome(spec.results) == first  # they still fail: the records stand

    evaluated: list[int] = []
    real = evaluate

    def counting(model, data, cell, *how):
        lacking = [12 - sum(stop - start for start, stop, _ in cell.shards())]
        evaluated.extend(lacking)
        return real(model, data, cell, *how)

    monkeypatch.setattr(accuracy_rows, "evaluate", counting)
    unreadable("00007")
    found = run(spec)[1]
    assert {(r.accuracy["n"], r.accuracy["n_failed"]) for r in found} == {(11, 1)}
    assert evaluated == [2] * len(rows)
    unreadable()
    run(spec)
    assert evaluated == [2] * len(rows) + [1] * len(rows)
    one, other = outcome(spec.results), outcome(whole.results)
    assert one == other


def test_an_unfinished_run_reads_again_what_failed(unreadable, tmp_path, monkeypatch):
    root = scenes(tmp_path / "set")
    spec = replace(spec_of(tmp_path / "run", root), shard_seconds=0.0001)
    unreadable("00000", "00003", "00005")

    def killed(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(accuracy_rows, "_record", killed)
        run(spec)
    assert len(list(spec.results.rglob("shard-*"))) == 2
    unreadable()
    _, (result,) = run(spec)
    assert (result.accuracy["n"], result.accuracy["n_failed"]) == (12, 0)


def test_images_that_stay_unreadable_are_tried_once_a_run(unreadable, opened, tmp_path):
    root = scenes(tmp_path / "set")
    spec = spec_of(tmp_path / "run", root, DENSE, TOME)
    unreadable("00003")
    run(spec)
    opened.clear()
    run(spec)
    assert len(opened) == 1


def test_when_none_can_be_evaluated_the_next_run_tries_all(unreadable, tmp_path):
    root = scenes(tmp_path / "set")
    spec = spec_of(tmp_path / "run", root, cache="auto")
    unreadable(".bmp")
    with pytest.raises(asap.errors.RequestError, match="none of the 12 images"):
        run(spec)
    unreadable()
    assert run(spec)[1][0].accuracy["n"] == 12


# ---- the crop cache


def crops_of(cache: Path, data) -> dict[str, bytes]:
    (folder,) = (path for path in cache.iterdir() if "." not in path.name)
    assert isinstance(data.crops, Crops) and data.crops.path.parent == folder
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_crop_that_failed_is_made_by_the_next_run(unreadable, opened, tmp_path):
    root, cache = scenes(tmp_path / "set", 12), tmp_path / "cache"

    def crops(place: Path = cache):
        return open_data("folder", TO_32, (8, 8), path=str(root), cache=place)

    unreadable("00003", "00007")
    assert sum(s.error is not None for s in crops()) == 2
    before = crops_of(cache, crops())
    unreadable("00007")
    opened.clear()
    data = crops()
    assert sum(s.error is not None for s in data) == 1
    assert set(opened) == {i for i in range(12) if data.whole.source.paths[i][-9:-4] in
                           ("00003", "00007")}  # fmt: skip
    unreadable()
    assert all(s.error is None for s in crops())
    after = crops_of(cache, crops())
    assert after == crops_of(tmp_path / "new", crops(tmp_path / "new")) != before
    assert {path.name[16:] for path in cache.iterdir()} == {"", ".lock"}


def test_an_open_cache_reads_what_failed_from_its_file(unreadable, tmp_path):
    """As in the run that goes on with a build that was killed, or where the cache is read-only."""
    root = scenes(tmp_path / "set", 12)
    unreadable("00003")
    data = open_data("folder", TO_32, (8, 8), path=str(root), cache=tmp_path / "cache")
    assert sum(s.error is not None for s in data) == 1
    unreadable()
    assert all(s.error is None for s in data)


# ---- calibration


def test_a_preset_without_some_images_is_searched_again_when_they_can_be_read(
    unreadable, tmp_path, monkeypatch
):
    root, training = scenes(tmp_path / "set", 10), scenes(tmp_path / "train", 12)
    spec = spec_of(tmp_path / "run", root, {"method": "random_drop", "with": {}})
    how = replace(spec.calibrate, macs_pct=-30.0, path=str(training), grid={"keep": [0.5, 0.6]})
    spec = replace(spec, calibrate=how)
    searches: list[int] = []
    real = CalibrationSet.measure
    monkeypatch.setattr(
        CalibrationSet,
        "measure",
        lambda self, *rest: searches.append(len(self)) or real(self, *rest),
    )
    unreadable("00003")
    calibrate(spec)
    assert set(searches) == {11}
    searches.clear()
    calibrate(spec)
    assert searches == []
    unreadable()
    (row,) = calibrate(spec)
    assert set(searches) == {12} and "unread" not in row.files[0].read_text()


def test_presets_of_other_images_have_names_of_their_own(tmp_path, monkeypatch):
    root = scenes(tmp_path / "set", 10)
    spec = spec_of(tmp_path / "run", root, {"method": "random_drop", "with": {}})

    def calibrated(name: str, change: Callable) -> list[Path]:
        if not (tmp_path / name).exists():
            scenes(tmp_path / name, 10, change)
        path = str(tmp_path / name)
        how = replace(spec.calibrate, macs_pct=-30.0, path=path, grid={"keep": [0.5, 0.6]})
        (row,) = calibrate(replace(spec, calibrate=how))
        return [*row.files]

    calibrated("one", lambda picture: picture)
    second = calibrated("two", lambda picture: picture.filter(BLUR))
    assert [path.stem for path in second] == ["digits_vit-random-drop-macs-30"] * 2
    monkeypatch.setattr(CalibrationSet, "measure", None)  # both are there
    first = calibrated("one", lambda picture: picture)
    assert calibrated("two", lambda picture: picture) == second != first
    assert len(list((tmp_path / "run" / "calibration").iterdir())) == 4


# ---- what else is in a key


def test_a_method_of_ones_own_is_known_by_its_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).resolve().parents[1] / "examples" / "norm_top_k.py").read_text()
    keys = []
    for name, more in (("mine", ""), ("same", ""), ("other", "\nX = 1\n")):
        (tmp_path / f"{name}.py").write_text(text + more)
        keys.append(code_of(find(name)))
    assert keys[0] == keys[1] != keys[2] and code_of(find("tome")) is None
    row = MethodSpec.of("mine", {"k": 24}, "mine")
    spec = replace(spec_of(tmp_path / "run", scenes(tmp_path / "set", 10)), rows=(row,))
    assert Session(spec).identity(build("mine", {"k": 24}))["methods"]["vision"]["code"] == keys[0]
