"""The crop cache: bit for bit what timm gives, whole or not there, and never in the way."""

import copy
import errno
import logging
import os
import pickle
import re
import shutil
import threading
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from samples import open_data, same
from timm.data import create_transform
from torchvision import transforms

from asap.data.crops import build as crop_build
from asap.data.crops import cache as crop_cache
from asap.data.crops.cache import CachedCrops, identity_of
from asap.data.crops.file import Crops, Entry, index_of, manifest_of
from asap.data.crops.transform_split import split
from asap.data.imagenet.validation import ImageNet
from asap.data.loading import loader
from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.measure.timed_images import load_pictures
from asap.records.key import key_of
from asap.spec.run_spec import BackboneSpec, DataSpec, MethodSpec, RunSpec
from tests.fake_imagenet import DAMAGED, FakeImageNet

TO_32 = create_transform(32, interpolation="bicubic", crop_pct=0.9)
FAKE = FakeImageNet.make(66, 5)  # six of each kind


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    made = FAKE.folders(tmp_path_factory.mktemp("set"))
    FAKE.kaggle_csv(made / "boxes.csv", {n: [(3, 5, 30, 33)] for n in list(FAKE.files)[::2]})
    return made


@pytest.fixture(autouse=True)
def few_processes(monkeypatch):
    """Chunks of 16 crops, made in this process but where a test says otherwise."""
    monkeypatch.setattr(crop_build, "CHUNK", 16)
    monkeypatch.setattr(crop_cache, "cores", lambda: 0)


@pytest.fixture
def told(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("asap"), "propagate", True)
    caplog.set_level(logging.INFO, "asap")
    return caplog


def opened(root: Path, cache: Path | None, transform=TO_32, **more):
    return open_data("imagenet", transform, (8, 8), path=str(root), cache=cache, **more)


def all_same(one, other) -> bool:
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))


def with_labels(root: Path) -> Path:
    lines = [f"{FAKE.name(n)} {FAKE.wnid(n)}\n" for n in FAKE.files]
    (root / "val.txt").write_text("".join(lines))
    return root


def names(folder: Path) -> set[str]:
    """What lies in a cache folder, without keys."""
    return {path.name[16:] for path in folder.iterdir()}


def key(folder: Path) -> str:
    (complete,) = (path.name for path in folder.iterdir() if "." not in path.name)
    return complete


# ---- samples


@pytest.mark.parametrize("layout", ["folders", "tar", "parquet"])
def test_samples_are_those_of_the_files_whatever_the_layout(layout, root, tmp_path, monkeypatch):
    """CMYK, grey, turned, progressive, truncated and so on; masks, digests and errors too."""
    monkeypatch.setattr(crop_cache, "cores", lambda: 2 if layout == "parquet" else 0)
    stored = with_labels(getattr(FAKE, layout)(tmp_path / "set"))
    boxes = str(root / "boxes.csv")
    plain = opened(root, None, boxes=boxes)
    data = opened(stored, tmp_path / "cache", boxes=boxes)
    assert isinstance(data, CachedCrops) and all_same(data, plain)
    assert sum(s.error is not None for s in data) == 12 and data.has_masks
    errors = [s.error for s in data if s.error]
    assert all(e.startswith(tuple(DAMAGED.values())) for e in errors)
    assert 0 < sum(s.mask is not None for s in data) < 33  # turned ones have none
    for said in ("name", "classes", "n_classes", "digest", "label_digest", "scored", "description"):
        assert getattr(data, said) == getattr(plain, said)
    assert list(data.reading_order) == list(range(66))
    assert names(tmp_path / "cache") == {"", ".lock"}
    files = {path.name for path in (tmp_path / "cache" / key(tmp_path / "cache")).iterdir()}
    assert files == {"manifest.json", "index.parquet", "crops.u8"}


def test_the_bytes_are_pillows_own(root, tmp_path):
    """The oracle without torchvision: Pillow resizes to 35, and the middle is cut out."""
    opened(root, tmp_path)
    crops = np.fromfile(tmp_path / key(tmp_path) / "crops.u8", np.uint8).reshape(-1, 32, 32, 3)
    paths = ImageNet(root, TO_32).source.paths
    for number in [n for n, kind in FAKE.kinds.items() if kind == "rgb"]:  # 50 x 40
        small = Image.open(root / "val" / FAKE.path(number)).resize((43, 35), Image.BICUBIC)
        expected = np.asarray(small.crop((6, 2, 38, 34)))
        assert np.array_equal(crops[paths.index(FAKE.path(number))], expected)


def test_workers_and_timing_read_the_cache(root, tmp_path):
    data, plain = opened(root, tmp_path), opened(root, None)
    order = np.random.default_rng(0).permutation(66).tolist()
    found = [s for batch in loader(data, order, 8, 2) for s in batch]
    assert all(same(s, plain[i]) for s, i in zip(found, order, strict=True))
    assert same(pickle.loads(pickle.dumps(data))[7], plain[7])
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    one, other = (load_pictures(d, 9, mean, std) for d in (data, plain))
    assert one.ids == other.ids and torch.equal(one.pixels, other.pixels)


def test_a_second_opening_decodes_nothing(root, tmp_path, monkeypatch):
    expected = list(opened(root, tmp_path))
    monkeypatch.setattr("asap.data.images.image_files.open_rgb", None)
    assert all_same(list(opened(root, tmp_path)), expected)


def test_predictions_and_key_are_the_same_byte_for_byte(root, tmp_path):
    found = []
    for cache, results in ((None, "plain"), ("auto", "auto"), (str(tmp_path / "own"), "own")):
        spec = RunSpec(
            title="fake",
            backbone=BackboneSpec("test_vit", "random"),
            data=DataSpec("imagenet", str(root), cache=cache),
            rows=(MethodSpec.of("dense", {}, "Dense"),),
            results=tmp_path / results,
            limit=22,
            device="cpu",
        )
        run(spec)
        files = sorted((tmp_path / results).glob("runs/*/*.parquet"))
        found.append([(file.parent.name, file.name, file.read_bytes()) for file in files])
        assert len(files) == 2
    assert found[0] == found[1] == found[2]
    assert names(tmp_path / "auto" / "cache") == names(tmp_path / "own") == {"", ".lock"}


def test_what_is_held_is_the_index_and_never_crops(tmp_path):
    """Ten times the images: a few bytes more for each, of 3,072 that a crop has."""
    held, peaks = [], []
    for n in (300, 3000):
        (folder := tmp_path / str(n)).mkdir()
        index = index_of([Entry(zlib.crc32(bytes(3072)), 50, 40, True, None)] * n)
        (folder / "index.parquet").write_bytes(index)
        (folder / "manifest.json").write_bytes(manifest_of({}, (32, 32, 3), n, index))
        with (folder / "crops.u8").open("wb") as file:
            file.truncate(n * 3072)
        tracemalloc.start()
        crops = Crops(folder, {}, (32, 32, 3), n)
        assert not any(crops.read(i).any() for i in range(n))
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        held.append(now)
        peaks.append(peak)
    assert held[1] - held[0] < 2700 * 64 and peaks[1] - peaks[0] < 2700 * 512


# ---- a part of the images


def test_a_limit_caches_its_images_only_unless_all_are_there(root, tmp_path):
    part = opened(root, tmp_path, limit=7)
    assert all_same(part, plain := opened(root, None, limit=7))
    assert part.digest == plain.digest and part.description == plain.description
    assert (tmp_path / key(tmp_path) / "crops.u8").stat().st_size == 7 * 32 * 32 * 3
    assert same(part.whole[1], plain.whole[1])  # not in the cache: from its file
    opened(root, tmp_path / "all")
    assert all_same(opened(root, tmp_path / "all", limit=7), plain)
    assert names(tmp_path / "all") == {"", ".lock"}
    assert all_same(opened(root, tmp_path / "all", limit=66), opened(root, None))


# ---- interruptions


def interrupt(monkeypatch, after: int) -> list[int]:
    """KeyboardInterrupt at the decoding of picture number `after`; the positions decoded."""
    seen: list[int] = []
    real = ImageNet.open

    def counting(data, i):
        if len(seen) == after:
            raise KeyboardInterrupt
        seen.append(i)
        return real(data, i)

    monkeypatch.setattr(ImageNet, "open", counting)
    return seen


@pytest.mark.parametrize("torn", [b"", b"[[40, [1, 2, 3", b"\0\0\n", b'[[40, "x"]]\n'])
def test_a_killed_build_continues(torn, root, tmp_path, monkeypatch):
    """With another layout of the same files, whose pictures are read in another order."""
    place = tmp_path / "cache"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, 40)
        opened(root, place)
    assert names(place) == {".building", ".lock"}
    (journal,) = place.glob("*.building/journal.jsonl")
    assert len(journal.read_text().splitlines()) == 2  # chunks of 16; 8 more were under way
    with journal.open("ab") as file:
        file.write(torn)
    archive = with_labels(FAKE.tar(tmp_path / "archive"))
    with monkeypatch.context() as patch:
        seen = interrupt(patch, -1)
        data = opened(archive, place)
        assert len(seen) == 66 - 32 and not set(seen) & set(range(32))
    assert all_same(data, opened(root, None))
    opened(root, fresh := tmp_path / "fresh")
    for name in ("manifest.json", "index.parquet", "crops.u8"):
        one, other = (folder / key(folder) / name for folder in (place, fresh))
        assert one.read_bytes() == other.read_bytes()


def test_two_at_once_make_it_once(root, tmp_path, monkeypatch):
    """One that comes when it is made tries again, and only, what could not be read."""
    seen, found = interrupt(monkeypatch, -1), []
    threads = [
        threading.Thread(target=lambda: found.append(opened(root, tmp_path))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3 and names(tmp_path) == {"", ".lock"}
    tried = Counter(seen)
    plain = list(opened(root, None))
    assert tried.keys() == set(range(66))
    assert {i for i, times in tried.items() if times > 1} <= {s.index for s in plain if s.error}
    assert all(all_same(list(data), plain) for data in found)


def test_a_full_disk_is_told_before_and_during(root, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
        with pytest.raises(RequestError, match=r"needs 0.20 MB in .*, where 0.00 MB are free: .*"):
            opened(root, tmp_path)
    assert names(tmp_path) == {".lock"}

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(crop_build.os, "fsync", full)
        with pytest.raises(RequestError, match=r"crops.u8 .*No space left.*data.cache=/path") as e:
            opened(root, tmp_path)
    assert "\n" not in str(e.value) and names(tmp_path) == {".building", ".lock"}
    assert all_same(opened(root, tmp_path), opened(root, None))


def test_a_folder_that_cannot_be_made_is_one_clear_line(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        RequestError, match=r"cannot be used \(.*another folder with data.cache=/path"
    ):
        opened(root, tmp_path / "file" / "cache")


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_that_vanish_stop_the_build(workers, tmp_path, monkeypatch):
    monkeypatch.setattr(crop_cache, "cores", lambda: workers)
    data = ImageNet(FAKE.folders(tmp_path / "set"), TO_32)
    assert data.digest
    (tmp_path / "set").rename(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match=r"^.*/set.* has vanished: .*$") as error:
        crop_cache.cached(data, tmp_path / "cache", None)
    assert "\n" not in str(error.value) and names(tmp_path / "cache") == {".building", ".lock"}


# ---- damage


def spoil(file: Path, at: int, to: bytes) -> None:
    content = file.read_bytes()
    assert content[at : at + len(to)] != to
    file.write_bytes(content[:at] + to + content[at + len(to) :])


DAMAGE = {
    "manifest is garbage": lambda folder: (folder / "manifest.json").write_bytes(b"{"),
    "manifest of others": lambda folder: spoil(folder / "manifest.json", 13, b"9"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "index is changed": lambda folder: spoil(folder / "index.parquet", 20, b"\1\2\3\4"),
    "no index": lambda folder: (folder / "index.parquet").unlink(),
    "crops are cut": lambda folder: os.truncate(folder / "crops.u8", 99),
    "no crops": lambda folder: (folder / "crops.u8").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_set_aside_and_made_anew(damage, root, tmp_path, told):
    opened(root, tmp_path)
    DAMAGE[damage](tmp_path / key(tmp_path))
    told.clear()
    assert all_same(opened(root, tmp_path), opened(root, None))
    (warning,) = [r.getMessage() for r in told.records if r.levelno == logging.WARNING]
    assert re.search(r"is damaged \(.*\): set aside as \w+\.damaged", warning)
    assert names(tmp_path) == {"", ".damaged", ".lock"}


def test_a_damaged_crop_is_decoded_again_and_the_cache_made_anew_later(root, tmp_path, told):
    data, plain = opened(root, tmp_path), opened(root, None)
    good = (file := tmp_path / key(tmp_path) / "crops.u8").read_bytes()
    readable = [s.index for s in plain if s.error is None]
    for i in readable[:2]:
        spoil(file, i * 32 * 32 * 3 + 1000, bytes([good[i * 32 * 32 * 3 + 1000] ^ 1]))
    told.clear()
    assert all_same(data, plain)
    assert [r.getMessage() for r in told.records] == [m for m in told.messages if "checksum" in m]
    assert len(told.records) == 1  # told once
    assert all_same(opened(root, tmp_path), plain) and "set aside" in told.text
    assert (tmp_path / key(tmp_path) / "crops.u8").read_bytes() == good
    file.unlink()  # under an open data set
    assert all_same(data, plain)


# ---- what names a cache


def test_the_key_covers_every_ingredient(root, tmp_path, monkeypatch):
    def name(transform=TO_32, positions=None, where=root) -> str:
        data = ImageNet(where, transform)
        return key_of(identity_of(data, split(transform), positions))

    keys = [name(), name(positions=(1, 2)), name(positions=(1, 3))]
    keys += [
        name(
            create_transform(**{"input_size": 32, "interpolation": "bicubic", "crop_pct": 0.9, **c})
        )
        for c in (
            {"input_size": 48},
            {"input_size": 48, "crop_pct": 1.0},
            {"crop_pct": 0.875},
            {"interpolation": "bilinear"},
            {"crop_mode": "squash"},
            {"crop_mode": "border"},
            {"crop_mode": "border", "mean": (0.1, 0.2, 0.3)},  # the border's colour
        )
    ]
    for library in crop_cache.versions():
        with monkeypatch.context() as patch:
            patch.setattr(crop_cache, "versions", lambda x=library: {**REAL(), x: "0"})
            keys.append(name())
    grown = FAKE.folders(tmp_path / "set")
    file = next((grown / "val").rglob("*.JPEG"))
    file.write_bytes(file.read_bytes() + b"x")
    keys.append(name(where=grown))
    file.rename(file.with_name("ILSVRC2012_val_00049999.JPEG"))
    keys.append(name(where=grown))
    assert len(set(keys)) == len(keys) and set(REAL()) == {
        "pillow", "libjpeg", "libjpeg_turbo", "torchvision", "timm",
    }  # fmt: skip
    assert name() == keys[0]


REAL = crop_cache.versions


def test_the_key_leaves_out_what_is_done_to_the_bytes(root, tmp_path):
    """Backbones that differ in mean and deviation alone share their crops."""
    opened(root, tmp_path)
    other = create_transform(
        32, interpolation="bicubic", crop_pct=0.9, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    assert all_same(opened(root, tmp_path, other), opened(root, None, other))
    assert names(tmp_path) == {"", ".lock"}


def one_that_draws():
    other = copy.deepcopy(TO_32)
    other.transforms.insert(0, transforms.RandomHorizontalFlip())
    return other


REFUSED = {
    "draws": one_that_draws,
    "training": lambda: create_transform(32, is_training=True),
    "bytes": lambda: create_transform(32, normalize=False),
    "plain": lambda: transforms.ToTensor(),
    "pads": lambda: transforms.Compose([transforms.Pad(2), *TO_32.transforms]),
    "no crop": lambda: transforms.Compose([TO_32.transforms[0], *TO_32.transforms[2:]]),
    "floats first": lambda: transforms.Compose(TO_32.transforms[2:] + TO_32.transforms[:2]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_transform_that_cannot_be_taken_apart_is_refused(what, root, tmp_path):
    with pytest.raises(RequestError, match=r"cannot be cached \(.*\): set data.cache=null"):
        opened(root, tmp_path / "cache", REFUSED[what]())
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(3, 32, 32), (3, 24, 40)])
def test_every_crop_mode_of_timm_is_split(mode, size, root, tmp_path):
    transform = create_transform(size, interpolation="bicubic", crop_pct=0.9, crop_mode=mode)
    part = opened(root, tmp_path, transform, limit=11)
    assert all_same(part, opened(root, None, transform, limit=11))


def test_scenes_have_no_cache(tmp_path):
    with pytest.raises(RequestError, match=r"data\.cache='x' is not for data=digits"):
        open_data("digits", TO_32, (8, 8), cache="x")
