"""ImageNet: four layouts that give the same samples, records and errors; variants; boxes."""

import json
import pickle
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import prepare_imagenet
import pytest
import torch
from PIL import Image
from samples import data_spec, open_data, same
from timm.data import ImageDataset, create_transform
from timm.data.real_labels import RealLabelsImagenet
from torchvision.datasets.imagenet import ARCHIVE_META

from asap.data.imagenet import validation as imagenet
from asap.data.imagenet.boxes import Boxes
from asap.data.imagenet.layouts import recognise
from asap.data.imagenet.validation import ImageNet
from asap.data.images.geometry import map_of
from asap.data.loading import loader
from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.report.statistics import hits
from asap.spec.run_spec import BackboneSpec, MethodSpec, RunSpec
from asap.tasks.classification import best_classes
from tests.fake_imagenet import DAMAGED, WNIDS, FakeImageNet, hub_names

TO_32 = create_transform(32, interpolation="bicubic", crop_pct=0.9)
FAKE = FakeImageNet.make(220)
FEW = FakeImageNet.make(33, 5)
FIRST = min(FEW.files)


def packed_flat(root: Path) -> Path:
    FAKE.devkit(root, packed=True)
    return FAKE.flat(root)


def kaggle(root: Path) -> Path:
    FAKE.flat(root, "ILSVRC/Data/CLS-LOC/val")
    FAKE.kaggle_csv(root / "LOC_val_solution.csv", {n: [(1, 1, 9, 9)] for n in FAKE.files})
    return root


def all_numbers() -> range:
    return range(1, 50_001)


def archive(root: Path) -> Path:
    FAKE.devkit(root)
    return FAKE.tar(root)


def hub(root: Path) -> Path:
    return FAKE.parquet(root)


def hub_cache(root: Path) -> Path:
    FAKE.parquet(root / "snapshots" / "abc")
    return root


LAYOUTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "folders": ("folders", lambda root: FAKE.folders(root)),
    "flat with the packed devkit": ("flat", packed_flat),
    "flat as Kaggle has it": ("flat", kaggle),
    "archive": ("tar", archive),
    "snapshot": ("parquet", hub),
    "snapshot in a cache": ("parquet", hub_cache),
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> dict[str, ImageNet]:
    """The same images in every layout."""
    made = {}
    for name, (kind, make) in LAYOUTS.items():
        root = make(tmp_path_factory.mktemp(name.replace(" ", "-")))
        assert recognise(root).kind == kind
        made[name] = ImageNet(root, TO_32)
    return made


# ---- four layouts


def test_the_folders_are_read_as_timm_reads_them(opened):
    """The oracle of all layouts: names, classes and kinds as written, pixels by timm."""
    data = opened["folders"]
    numbers = sorted(FAKE.files, key=lambda n: (FAKE.wnid(n), n))
    theirs = ImageDataset(str(data.source.root), transform=TO_32, class_map=dict_of_classes())
    assert [theirs.filename(i) for i in range(len(theirs))] == [FAKE.path(n) for n in numbers]
    for i, (number, sample) in enumerate(zip(numbers, data, strict=True)):
        assert (sample.index, sample.source) == (i, FAKE.path(number))
        assert sample.label == WNIDS.index(FAKE.wnid(number))
        if (kind := FAKE.kinds[number]) in DAMAGED:
            assert sample.error.startswith(DAMAGED[kind])
        else:
            assert torch.equal(sample.image, theirs[i][0]) and theirs[i][1] == sample.label


def dict_of_classes() -> dict[str, int]:
    return {wnid: label for label, wnid in enumerate(WNIDS)}


@pytest.mark.parametrize("layout", list(LAYOUTS)[1:])
def test_every_layout_gives_the_same_samples_and_the_same_record(layout, opened):
    first, data = opened["folders"], opened[layout]
    assert data.digest == first.digest and data.label_digest == first.label_digest
    assert data.description == first.description == "ImageNet-1k validation, 220 of 50,000 images"
    assert data.classes == tuple(WNIDS) and data.scored is None and not data.has_masks
    assert all(same(one, other) for one, other in zip(data, first, strict=True))


@pytest.mark.parametrize("layout", ["archive", "snapshot"])
def test_workers_read_every_layout_in_any_order(layout, opened):
    data, order = opened[layout], np.random.default_rng(0).permutation(40).tolist()
    found = [s for batch in loader(data, order, 8, 2) for s in batch]
    assert all(same(s, data[i]) for s, i in zip(found, order, strict=True))
    assert same(pickle.loads(pickle.dumps(data))[7], data[7])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_reading_order_is_the_order_on_disk(layout, opened, monkeypatch):
    data = opened[layout]
    assert sorted(data.reading_order) == list(range(len(data)))
    if layout == "archive":
        offsets = [data.source._members[i].offset for i in data.reading_order]
        assert offsets == sorted(offsets)
    if layout == "snapshot":
        read = []
        group = imagenet_parquet()._group
        monkeypatch.setattr(imagenet_parquet(), "_group", lambda *a: read.append(a) or group(*a))
        for i in data.reading_order:
            data.source.read(i)
        assert len(read) == len(set(read)) == 3 * 5  # 3 files of 73 or 74 rows, 16 a group


def imagenet_parquet():
    from asap.data.imagenet import parquet

    return parquet


def test_opening_keeps_names_and_no_contents(tmp_path):
    """Ten times the bytes in as many files: what is held stays the same."""
    held = []
    for size, name in ((1, "one"), (10, "ten")):
        fake = FakeImageNet({n: b"x" * 20_000 * size for n in range(1, 20)}, {}, FAKE.wnids)
        fake.tar(tmp_path / name)
        text = "".join(f"{fake.name(n)} {fake.wnid(n)}\n" for n in fake.files)
        (tmp_path / name / "val.txt").write_text(text)
        fake.parquet(tmp_path / name / "hub")
        for root in (tmp_path / name, tmp_path / name / "hub"):
            tracemalloc.start()
            data = ImageNet(root, TO_32)
            assert len(data.digest) == 64
            data[0], data[len(data) - 1]
            if hasattr(data.source, "_kept"):
                assert len(data.source._kept[2]) <= 16  # one row group, whatever the set's size
                data.source._kept = None
            held.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()
    assert abs(held[2] - held[0]) < 50_000 and abs(held[3] - held[1]) < 50_000


# ---- labels


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("val.txt", lambda n: f"{FEW.name(n)} {WNIDS.index(FEW.wnid(n))}\n"),
        ("labels.txt", lambda n: f"val/{FEW.name(n)}\t{FEW.wnid(n)}\n"),
        ("labels.csv", lambda n: f"{FEW.name(n)},{FEW.wnid(n)},some words\n"),
    ],
)
def test_labels_files_of_every_form_agree_with_the_devkit(name, line, tmp_path):
    FEW.flat(tmp_path / "a")
    head = "filename,label,what\n" if name.endswith("csv") else ""
    (tmp_path / "a" / name).write_text(head + "".join(map(line, FEW.files)))
    FEW.flat(tmp_path / "b" / "val")
    FEW.devkit(tmp_path / "b")
    sets = [ImageNet(tmp_path / name, TO_32) for name in "ab"]
    assert len({(data.digest, data.label_digest) for data in sets}) == 1
    assert sets[0].labels == [WNIDS.index(path.split("/")[0]) for path in sets[0].source.paths]


def test_ids_in_the_order_of_the_images_are_labels(tmp_path):
    FEW.flat(tmp_path)
    every = [*FEW.wnids, *[WNIDS[0]] * (50_000 - len(FEW.wnids))]
    (tmp_path / "ids.txt").write_text("".join(f"{wnid}\n" for wnid in every))
    data = ImageNet(tmp_path, TO_32, labels=str(tmp_path / "ids.txt"))
    assert len(data) == 33 and [s.source.split("/")[0] for s in data] == [
        WNIDS[i] for i in data.labels
    ]
    assert {s.source for s in data} == {FEW.path(n) for n in FEW.files}


def test_a_listed_file_that_is_not_there_is_counted_and_strict_refuses(tmp_path):
    FEW.flat(tmp_path)
    gone = min(FEW.files)
    (tmp_path / FEW.name(gone)).unlink()
    (tmp_path / "val.txt").write_text("".join(f"{FEW.name(n)} {FEW.wnid(n)}\n" for n in FEW.files))
    data = ImageNet(tmp_path, TO_32)
    assert len(data) == len(FEW.files)
    (sample,) = [s for s in data if s.source == FEW.path(gone)]
    assert sample.error == "missing: it is listed and not there" and sample.image is None
    with pytest.raises(RequestError, match=r"data.strict=true: .*ILSVRC2012_val_0000"):
        ImageNet(tmp_path, TO_32, strict=True)


@pytest.mark.parametrize("layout", ["folders", "archive", "snapshot"])
def test_strict_refuses_a_part_in_every_layout_and_names_the_first(layout, opened, tmp_path):
    root = LAYOUTS[layout][1](tmp_path)
    first = next(n for n in all_numbers() if n not in FAKE.files)
    with pytest.raises(RequestError, match=f"49,780 of 50,000 .*{FAKE.name(first)}, "):
        ImageNet(root, TO_32, strict=True)


def test_a_few_absent_images_are_told_and_a_chosen_subset_is_not(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("asap.data.imagenet.validation.log.propagate", True)
    monkeypatch.setattr(imagenet, "N_IMAGES", max(FEW.files))
    monkeypatch.setattr(imagenet, "_FEW", 1.0)
    ImageNet(FEW.folders(tmp_path), TO_32)
    assert f"{max(FEW.files) - 33:,} of {max(FEW.files):,} validation images are not" in caplog.text
    caplog.clear()
    monkeypatch.setattr(imagenet, "_FEW", 0.001)
    ImageNet(tmp_path, TO_32)
    assert caplog.text == ""


# ---- refusals


def lines(root: Path, text: str) -> Path:
    FEW.flat(root)
    (root / "val.txt").write_text(text)
    return root


def with_label(root: Path, number: int) -> Path:
    """One more flat image, with a label: its number alone is wrong."""
    (root / FEW.name(number)).write_bytes(FEW.files[FIRST])
    return lines(root, "".join(f"{FEW.name(n)} {WNIDS[0]}\n" for n in [*FEW.files, number]))


def cut(root: Path) -> Path:
    file = FEW.devkit(root) / "ILSVRC2012_img_val.tar"
    FEW.tar(root)
    file.write_bytes(file.read_bytes()[:20_000])
    return root


def added(root: Path, *names: str) -> Path:
    """Class folders with one more file of each name."""
    for name in names:
        (FEW.folders(root) / "val" / name).parent.mkdir(exist_ok=True)
        (root / "val" / name).write_bytes(FEW.files[FIRST])
    return root


def unsorted(root: Path) -> Path:
    """Empty class folders, and all images beside them."""
    (root / "val" / WNIDS[0]).mkdir(parents=True)
    FEW.flat(root, "val")
    return root


def twice(root: Path, n: int) -> Path:
    return added(root, *(f"{FEW.wnid(n)}/{FEW.name(n)[:-5]}{end}" for end in (".JPEG", ".jpg")))


def in_two_classes(root: Path, n: int) -> Path:
    return added(root, *(f"{wnid}/{FEW.name(n)}" for wnid in WNIDS[:2]))


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda root: root, "holds no image"),
    "no labels": (lambda root: FEW.flat(root), "33 of 33 images have no label"),
    "a label that is none": (lambda r: lines(r, f"{FEW.name(1)} n00000000\n"), "line 1 of the lab"),
    "a label too large": (lambda r: lines(r, f"{FEW.name(1)} 1000\n"), "line 1 of the labels file"),
    "running numbers": (
        lambda r: lines(r, f"{FEW.name(3)} 3\n{FEW.name(4)} 4\n"), "numbers the images",
    ),
    "devkit numbers alone": (lambda r: lines(r, "490\n361\n"), "line 1 of the labels file"),
    "twice the same": (lambda r: lines(r, f"{FEW.name(1)} 2\n" * 2), "lists an image twice"),
    "an empty list": (lambda r: lines(r, "\n"), "is empty"),
    "a cut archive": (cut, "cannot be used after"),
    "a label of another order": (lambda r: FEW.parquet(r, shift=1), "which is n0"),
    "classes of another order": (lambda r: FEW.parquet(r, names=hub_names()[::-1]), "states 1,000"),
    "twice in its class": (lambda r: twice(r, 41), r"val holds .*_00000041.JPEG twice: leave one"),
    "in two classes": (lambda r: in_two_classes(r, 41), r"val holds .*_00000041.JPEG twice: leave"),
    "half sorted": (
        lambda r: added(r, FEW.name(41), FEW.name(42)[:-5] + ".jpg"),
        r"^2 validation images, such as .*_00000041.JPEG, lie in .*/val beside .*: sort them into",
    ),
    "nothing sorted": (lambda r: unsorted(r), "^33 validation images, such as .* move them away$"),
    "number 0": (lambda r: added(r, f"{WNIDS[0]}/{FEW.name(0)}"), "holds .*_00000000.* 1 to 50,00"),
    "number 50,001": (lambda r: added(r, f"{WNIDS[0]}/{FEW.name(50_001)}"), "_00050001.* 1 to 50,"),
    "number 0, flat": (lambda r: with_label(r, 0), "holds .*_00000000.* 1 to 50,00"),
    "number 50,001, flat": (lambda r: with_label(r, 50_001), "holds .*_00050001.* 1 to 50,00"),
    "too few classes": (lambda r: FEW.parquet(r, names=hub_names()[:10]), "states 10 classes"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_the_validation_set_is_one_clear_line(case, tmp_path):
    make, message = REFUSED[case]
    with pytest.raises(RequestError, match=message) as error:
        ImageNet(make(tmp_path), TO_32)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_copies_beside_the_class_folders_of_what_is_in_them_are_not_read(tmp_path):
    FEW.folders(tmp_path)
    FEW.flat(tmp_path, "val")
    assert len(ImageNet(tmp_path, TO_32)) == len(FEW.files)


def test_a_wrong_folder_names_the_four_layouts_and_the_variable(tmp_path):
    for root in (None, "", tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RequestError) as error:
            open_data("imagenet", TO_32, (4, 4), path=None if root is None else str(root))
        for part in ("IMAGENET", "val/<wnid>/*.JPEG", "ILSVRC2012_val_*.JPEG with the devkit",
                     "ILSVRC2012_img_val.tar", "validation-*.parquet"):  # fmt: skip
            assert part in str(error.value)


@pytest.mark.parametrize("how", ["cut", "cut in a header", "header", "joined"])
def test_an_archive_that_does_not_end_as_it_should_is_refused(how, tmp_path):
    """`tarfile` gives its first images without a word: half of the set would be evaluated."""
    place = FAKE.devkit(FAKE.tar(tmp_path)) / "ILSVRC2012_img_val.tar"
    content = bytearray(place.read_bytes())
    with tarfile.open(place) as archive:
        header = archive.getmembers()[len(FAKE.files) // 2].offset
    if how.startswith("cut"):
        del content[header + (100 if how == "cut in a header" else 0) :]
    elif how == "header":
        content[header + 150] ^= 1
    else:
        content += bytes(content)
    place.write_bytes(content)
    with pytest.raises(RequestError, match=r"cannot be used after \d+ images \(it") as error:
        ImageNet(tmp_path, TO_32)
    assert "give the complete, uncompressed" in str(error.value)


def test_a_damaged_devkit_is_named(tmp_path):
    FEW.flat(tmp_path)
    FEW.devkit(tmp_path)
    (tmp_path / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").write_bytes(b"x" * 200)
    with pytest.raises(RequestError, match=r"devkit .* cannot be used"):
        ImageNet(tmp_path, TO_32)


def test_a_snapshot_without_file_names_is_read_under_names_of_its_own(tmp_path):
    data = ImageNet(FEW.parquet(tmp_path, 1, paths=False), TO_32)
    assert sorted(data.labels) == sorted(WNIDS.index(FEW.wnid(n)) for n in FEW.files)
    assert all("/validation-00000-of-00001-0000" in sample.source for sample in data)


# ---- variants


def pictures(root: Path, folders: list[str], each: int = 1) -> Path:
    for i, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for j in range(each):
            content = next(iter(FAKE.files.values()))
            (root / folder / f"{i}_{j}.jpeg").write_bytes(content)
    return root


def test_the_folders_of_imagenet_v2_are_class_positions(tmp_path):
    inside = tmp_path / "imagenetv2-matched-frequency-format-val"
    pictures(inside, ["0", "2", "10", "999"])
    given = {"transform": TO_32, "grid": (4, 4), "path": tmp_path}
    data = open_data("imagenet_v2", **given)
    assert data.labels == [0, 2, 10, 999] and data.classes == tuple(WNIDS)
    assert data[1].source == "2/1_0.jpeg" and "4 of 10,000 images" in data.description
    with pytest.raises(RequestError, match=r"data\.strict=true"):
        open_data("imagenet_v2", **given, strict=True)
    (inside / "1000").mkdir()
    with pytest.raises(RequestError, match="'1000'"):
        open_data("imagenet_v2", **given)


def members(kind: str) -> list[str]:
    """The 200 classes, from the other of the two files that timm ships: class positions."""
    import timm.data

    file = Path(timm.data.__file__).parent / "_info" / f"imagenet_{kind}_indices.txt"
    return [WNIDS[int(line)] for line in file.read_text().split()]


@pytest.mark.parametrize("kind", ["a", "r"])
def test_imagenet_a_and_r_are_scored_over_their_200_classes(kind, tmp_path):
    wnids = members(kind)
    data = open_data(f"imagenet_{kind}", TO_32, (4, 4), path=str(pictures(tmp_path, wnids)))
    assert data.labels == [WNIDS.index(wnid) for wnid in sorted(wnids)] == list(data.scored)
    logits = torch.randn(7, 1000, generator=torch.Generator().manual_seed(0))
    best, values = best_classes(logits, data.scored)
    expected = logits[:, list(data.scored)].topk(5)
    assert torch.equal(best, torch.tensor(data.scored)[expected.indices])
    assert torch.equal(values, expected.values)
    assert "scored over its 200 classes" in data.description
    everything = open_data("folder", TO_32, (4, 4), path=str(tmp_path))
    assert everything.label_digest != data.label_digest
    next((tmp_path / wnids[0]).iterdir()).unlink()
    (tmp_path / wnids[0]).rmdir()
    with pytest.raises(RequestError, match=f"lacks 1 of the 200 classes .*{wnids[0]}"):
        open_data(f"imagenet_{kind}", TO_32, (4, 4), path=tmp_path)


def test_real_labels_are_scored_as_timm_scores_them(opened, tmp_path):
    """timm's own evaluator is the oracle; it wants all 50,000 names, so it is asked one by one."""
    root = str(opened["folders"].source.root)
    data = open_data("imagenet_real", TO_32, (4, 4), path=root)
    oracle = RealLabelsImagenet([""] * 50_000)
    known = {name: labels for name, labels in oracle.real_labels.items() if labels}
    names = [path.split("/")[1] for path in opened["folders"].source.paths]
    assert [s.source.split("/")[1] for s in data] == [name for name in names if name in known]
    draw = np.random.default_rng(0)
    tops = [draw.permutation([*known[s.source.split("/")[1]], *draw.permutation(1000)[:4]])[:5]
            for s in data]  # fmt: skip
    frame = pd.DataFrame(
        {"label": [s.label for s in data], "other_labels": [s.other_labels for s in data],
         "top5": tops}
    )  # fmt: skip
    first, five = hits(frame)
    for i, sample in enumerate(data):
        real = oracle.real_labels[sample.source.split("/")[1]]
        assert first[i] == any(p in real for p in tops[i][:1])
        assert five[i] == any(p in real for p in tops[i])
    assert first.any() and not first.all()
    assert data.label_digest != opened["folders"].label_digest
    assert f"220 of 50,000 images, {len(data)} of them with a label" in data.description


def test_real_labels_of_ones_own_and_wrong_ones(opened, tmp_path):
    root, file = str(opened["folders"].source.root), tmp_path / "real.json"
    file.write_text(json.dumps([[i % 1000, 5] for i in range(50_000)]))
    data = open_data("imagenet_real", TO_32, (4, 4), path=root, labels=str(file))
    assert len(data) == 220 and all(sample.other_labels == (5,) for sample in data)
    for wrong in ("[[1]]", "{}", "["):
        file.write_text(wrong)
        with pytest.raises(RequestError, match=r"real\.json"):
            open_data("imagenet_real", TO_32, (4, 4), path=root, labels=str(file))


@pytest.mark.parametrize("wrong", [[1000], [-1], [[1]], [{}], [1.0], [True], ["1"], [None], "1", 1])
def test_real_labels_that_are_no_classes_are_one_clear_line(wrong, opened, tmp_path):
    root, file = str(opened["folders"].source.root), tmp_path / "real.json"
    file.write_text(json.dumps([[1]] * 49_999 + [wrong]))
    with pytest.raises(RequestError, match=r"does not hold 50,000 lists of classes") as error:
        open_data("imagenet_real", TO_32, (4, 4), path=root, labels=str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", [0, 50_001])
def test_real_labels_are_not_asked_for_a_number_that_no_image_has(number, tmp_path):
    root = added(tmp_path, f"{WNIDS[0]}/{FEW.name(number)}")
    with pytest.raises(RequestError, match=f"holds {FEW.name(number)}, .* 1 to 50,000"):
        open_data("imagenet_real", TO_32, (4, 4), path=root)


def test_settings_of_other_data_sets_are_refused(tmp_path):
    for name in ("folder", "imagenet_v2", "digits"):
        with pytest.raises(RequestError, match=r"data.boxes='x' is not for"):
            open_data(name, TO_32, (4, 4), boxes="x")


# ---- boxes


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(80, 60), (61, 83), (64, 64), (500, 375), (333, 500), (40, 20)])
def test_a_box_goes_where_its_painted_pixels_go(size, crop_mode):
    """Paint the box, take the real transform: patch centres in the box are white, others black."""
    transform = create_transform(
        64, crop_mode=crop_mode, crop_pct=0.875, interpolation="bilinear",
        mean=(0,) * 3, std=(1,) * 3,
    )  # fmt: skip
    draw, checked = np.random.default_rng(0), 0
    x, y = map_of(transform, size).patch_centres((8, 8))
    for _ in range(12):
        left, right = sorted(draw.choice(size[0], 2, replace=False).tolist())
        top, bottom = sorted(draw.choice(size[1], 2, replace=False).tolist())
        canvas = np.zeros((size[1], size[0], 3), np.uint8)
        canvas[top:bottom, left:right] = 255
        image = transform(Image.fromarray(canvas))[0]
        # An 8 x 8 patch has its centre at the corner of its four middle pixels.
        centre = image.unfold(0, 8, 8).unfold(1, 8, 8)[:, :, 3:5, 3:5].mean((2, 3)).flatten()
        inside = (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
        sure = (centre < 0.02) | (centre > 0.98)  # the others lie on an edge
        assert torch.equal(inside[sure], centre[sure] > 0.5)
        checked += int(sure.sum())
    assert checked > 12 * 64 * 0.8


def annotation(folder: Path, number: int, size: tuple[int, int], *boxes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        "<object><name>x</name><bndbox>"
        + "".join(
            f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), b, strict=True)
        )
        + "</bndbox></object>"
        for b in boxes
    )
    (folder / f"ILSVRC2012_val_{number:08d}.xml").write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}"
        "</annotation>"
    )


def numbers_of(kind: str) -> list[int]:
    return [number for number, found in FAKE.kinds.items() if found == kind]


def test_boxes_become_masks_of_the_images_that_have_them(opened, tmp_path):
    plain, turned, wide = (numbers_of(kind)[0] for kind in ("rgb", "exif", "wide"))
    other, broken = numbers_of("rgb")[1], numbers_of("truncated")[0]
    folder = tmp_path / "Annotations" / "CLS-LOC" / "val"
    annotation(folder, plain, (50, 40), (0, 0, 25, 20), (45, 36, 50, 40))
    annotation(folder, turned, (50, 40), (0, 0, 25, 20))  # turned by EXIF: not known what was seen
    annotation(folder, wide, (31, 90), (0, 0, 9, 9))  # drawn on another size
    annotation(folder, broken, (50, 40), (0, 0, 25, 20))
    root = opened["archive"].source.archive
    square = create_transform(32, crop_mode="squash", crop_pct=1.0)
    data = open_data("imagenet", square, (4, 4), path=str(root), boxes=str(tmp_path))
    found = {s.source: s for batch in loader(data, range(len(data)), 16, 0) for s in batch}
    mask = found[FAKE.path(plain)].mask.reshape(4, 4)
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[:2, :2] = True  # the upper left quarter; the corner box holds no centre
    assert torch.equal(mask, expected)
    assert all(found[FAKE.path(n)].mask is None for n in (turned, wide, other, broken))
    assert data.has_masks and data.description.endswith("images, object boxes of 4")
    assert data.digest == opened["archive"].digest
    assert data.label_digest != opened["archive"].label_digest


def test_kaggles_boxes_are_the_annotations(opened, tmp_path):
    number = numbers_of("rgb")[0]
    annotation(tmp_path / "xml", number, (50, 40), (3, 5, 30, 33), (1, 2, 8, 9))
    FAKE.kaggle_csv(tmp_path / "LOC_val_solution.csv", {number: [(3, 5, 30, 33), (1, 2, 8, 9)]})
    picture = Image.new("RGB", (50, 40))
    masks = [
        Boxes.read(str(tmp_path / name)).mask(FAKE.path(number), picture.size, TO_32, (8, 8))
        for name in ("xml", "LOC_val_solution.csv")
    ]
    assert torch.equal(*masks) and masks[0].any() and not masks[0].all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ImageId,PredictionString\nILSVRC2012_val_00000001,n01 1 2 3\n", "five values"),
        ("ImageId,PredictionString\nILSVRC2012_val_00000001,n01 9 2 3 4\n", "is not a box"),
        ("ImageId,PredictionString\n", "has no box"),
        ("a,b\n1,2\n", "cannot be read"),
    ],
)
def test_wrong_boxes_are_one_clear_line(content, message, tmp_path):
    (tmp_path / "boxes.csv").write_text(content)
    with pytest.raises(RequestError, match=message):
        Boxes.read(str(tmp_path / "boxes.csv"))
    with pytest.raises(RequestError, match="is not there"):
        Boxes.read(str(tmp_path / "nowhere"))


def test_damaged_archives_of_boxes_are_one_clear_line(tmp_path):
    (tmp_path / "xml").mkdir()
    for number in numbers_of("rgb"):
        annotation(tmp_path / "xml", number, (50, 40), (3, 5, 30, 33))
    place = tmp_path / "boxes.tgz"
    with tarfile.open(place, "w:gz") as archive:
        archive.add(tmp_path / "xml", "val")
    content = place.read_bytes()
    assert Boxes.read(str(place)).known(FAKE.path(numbers_of("rgb")[0]))
    middle = len(content) // 2
    checksum = content[:-8] + bytes(4) + content[-4:]  # of gzip, behind all that tar reads
    hole = content[:middle] + bytes(20) + content[middle + 20 :]
    for wrong in (content[:middle], hole, checksum):
        place.write_bytes(wrong)
        with pytest.raises(RequestError, match="cannot be read"):
            Boxes.read(str(place))


def test_boxes_through_an_unknown_step_are_refused():
    from torchvision.transforms import Compose, Pad

    with pytest.raises(RequestError, match="the step Pad"):
        map_of(Compose([Pad(2)]), (9, 9))


# ---- the commands


def prepare(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of scripts/prepare_imagenet.py, in this process."""
    monkeypatch.setattr(sys, "argv", ["prepare_imagenet.py", *arguments])
    code = prepare_imagenet.main()
    return code, *capsys.readouterr()


def test_preparation_says_what_is_missing_and_damaged(opened, monkeypatch, capsys):
    root = str(opened["archive"].source.archive.parent)
    code, out, _ = prepare(monkeypatch, capsys, root, "--decode")
    damaged = [number for number, kind in FAKE.kinds.items() if kind in DAMAGED]
    assert code == 1 and "ILSVRC2012_img_val.tar: NOT as published" in out
    parts = ("220 of 50,000", "20 of 1,000", "49,780 images are absent", "in place", "Kaggle")
    for part in (*parts, f"{len(damaged)} images cannot be decoded", "image-net.org"):
        assert part in out


def test_preparation_says_what_is_not_the_published_set(monkeypatch, capsys, tmp_path):
    wnid = WNIDS[0]
    (tmp_path / wnid).mkdir()
    for number in (1, 2):
        Image.new("RGB", (64, 64)).save(tmp_path / wnid / FEW.name(number))
    code, out, _ = prepare(monkeypatch, capsys, str(tmp_path))
    assert code == 1 and "differs    all 64 x 64: not the original pictures" in out


def test_preparation_of_nothing_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    code, out, err = prepare(monkeypatch, capsys, str(tmp_path))
    assert code == 2 and len(err.splitlines()) == 1 and "IMAGENET" in err
    assert "ILSVRC2012_devkit_t12.tar.gz" in out


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_preparation_refuses_to_decode_without_a_worker(workers, monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        prepare(monkeypatch, capsys, str(tmp_path), "--decode", f"--workers={workers}")
    said = f"argument --workers: '{workers}' is not possible: give 1 or more"
    assert said in capsys.readouterr().err


def test_the_known_checksums_are_torchvisions():
    assert ARCHIVE_META["val"] == ("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622")
    assert ARCHIVE_META["devkit"][1] == "fa75699e90414af021442c21a62c3abf"


def run_on(root: Path, results: Path, **data) -> list:
    """A run of a tiny model with random weights over the images; its results."""
    spec = RunSpec(
        title="fake",
        backbone=BackboneSpec("test_vit", "random"),
        data=data_spec(path=str(root), **{"name": "imagenet", **data}),
        rows=(MethodSpec.of("dense", {}, "Dense"),),
        results=results,
        batch_size=11,
        device="cpu",
    )
    return run(spec)[1]


def test_every_layout_gives_one_record_and_the_same_predictions(opened, tmp_path):
    """Few images, so that a run is short; the record of the first layout is found by the others."""
    keys, frames = set(), []
    for i, make in enumerate((FEW.folders, FEW.tar, FEW.parquet, FEW.flat)):
        root = make(tmp_path / str(i))
        if make in (FEW.tar, FEW.flat):
            text = "".join(f"{FEW.name(n)} {FEW.wnid(n)}\n" for n in FEW.files)
            (root / "val.txt").write_text(text)
        (result,) = run_on(root, tmp_path / f"results{i}")
        keys.add(result.accuracy["key"])
        frames.append(result.answers())
        assert (result.accuracy["n"], result.accuracy["n_failed"]) == (27, 6)
    assert len(keys) == 1
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])
    for table in ("answers", "traces"):
        files = [next(tmp_path.glob(f"results{i}/runs/*/{table}.parquet")) for i in range(4)]
        assert len({file.read_bytes() for file in files}) == 1


def test_a_strict_run_refuses_unreadable_images_and_boxes_are_measured(tmp_path):
    folders = pictures(tmp_path / "set", ["n01440764"], 2)
    (folders / "n01440764" / "ILSVRC2012_val_00000007.JPEG").write_bytes(b"x")
    (folders / "n01440764" / "0_0.jpeg").rename(
        folders / "n01440764" / "ILSVRC2012_val_00000005.JPEG"
    )
    FAKE.kaggle_csv(tmp_path / "boxes.csv", {5: [(0, 0, 25, 40)]})
    boxes = {"boxes": str(tmp_path / "boxes.csv")}
    (result,) = run_on(folders, tmp_path / "results", **boxes)
    shares = result.answers()["object_share"].tolist()
    assert result.accuracy["n_failed"] == 1 and result.accuracy["object_recall"] == 1.0
    assert np.isfinite(shares).tolist() == [False, True, False] and 0 < shares[1] < 1
    (plain,) = run_on(folders, tmp_path / "results")
    assert plain.accuracy["key"] != result.accuracy["key"]
    assert plain.accuracy["object_recall"] is None
    with pytest.raises(RequestError, match=r"1 of 3 images .*val_00000007\.JPEG: not an image"):
        run_on_one_class(folders, tmp_path, name="folder", strict=True)


def run_on_one_class(root: Path, tmp_path: Path, **data) -> None:
    """The run of a model with one output, for a folder with one class of its own."""
    spec = RunSpec(
        title="fake",
        backbone=BackboneSpec("test_vit", "random", model_args={"num_classes": 1}),
        data=data_spec(path=str(root), **data),
        rows=(MethodSpec.of("dense", {}, "Dense"),),
        results=tmp_path / "results",
        device="cpu",
    )
    run(spec)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("layout", ["folders", "tar", "parquet"])
def test_images_that_vanish_stop_the_run_and_leave_no_record(layout, workers, tmp_path):
    root = getattr(FEW, layout)(tmp_path / "set")
    (root / "val.txt").write_text("".join(f"{FEW.name(n)} {FEW.wnid(n)}\n" for n in FEW.files))
    data = ImageNet(root, TO_32)
    assert data.digest  # every run asks for it first
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match=r"^.*/set.* has vanished: .*$") as error:
        list(loader(data, range(9), 3, workers))
    assert "\n" not in str(error.value)
