"""Data sets that look like ImageNet's validation set and are not it: their names, and the gate."""

import io
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from samples import open_data
from test_gate import config, record
from timm.data import create_transform

from asap.data.imagenet.corruptions import CORRUPTIONS
from asap.data.imagenet.original import ARCHIVE_BYTES, SAMPLE, differences, of_headers, sample
from asap.data.imagenet.validation import ImageNet, title_of
from asap.data.images.decoding import Header
from asap.data.images.image_files import ImageFiles
from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.report.gate import baseline_gate
from asap.spec.run_spec import BackboneSpec, DataSpec, MethodSpec, RunSpec
from tests.fake_imagenet import WNIDS, FakeImageNet

TO_32 = create_transform(32)
FAKE = FakeImageNet.make(40, 8)


def encoded(size: tuple[int, int], seed: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def remade(size_of: Callable[[int], tuple[int, int]], kind: str = "JPEG") -> FakeImageNet:
    """The fake set with other contents: `size_of` the file's place in the order of numbers."""
    files = {n: encoded(size_of(i), n, kind) for i, n in enumerate(FAKE.files)}
    return replace(FAKE, files=files)


def in_folders(root: Path, name: Callable[[int], str], classes: int, each: int) -> Path:
    """`classes` WordNet ids with `each` images of different sizes."""
    for i, wnid in enumerate(WNIDS[:classes]):
        (root / wnid).mkdir(parents=True)
        for j in range(each):
            content = encoded((9 + j, 12 + i % 5), j)
            (root / wnid / name(i * each + j)).write_bytes(content)
    return root


def layouts(fake: FakeImageNet, root: Path) -> list[ImageNet]:
    makers = (fake.folders, fake.parquet, fake.tar, fake.flat)
    made = [make(root / str(i)) for i, make in enumerate(makers)]
    for place in made[2:]:
        fake.devkit(place)
    return [ImageNet(place, TO_32) for place in made]


@pytest.mark.parametrize(
    ("fake", "said"),
    [
        (remade(lambda i: (224, 224)), "all 224 x 224: not the original pictures"),
        (remade(lambda i: (64, 64)), "all 64 x 64"),
        (remade(lambda i: (50, 37)), "all 50 x 37"),
        (remade(lambda i: (26, 27 + i) if i % 2 else (31 + i, 26)), "shorter side always 26"),
        (remade(lambda i: (20 + i, 30 + i % 7), "PNG"), "PNG files: not the original ones"),
    ],
)
def test_copies_are_not_called_the_validation_set_in_any_layout(fake, said, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "asap"):
        found = layouts(fake, tmp_path)
    (title,) = {data.description for data in found}
    assert (
        title.startswith("40 of 50,000 images in the layout of ImageNet-1k validation (")
        and said in title
    )
    assert all(data.differs == found[0].differs for data in found)
    told = [r.getMessage() for r in caplog.records if said in r.getMessage()]
    assert len(told) == len(found) and all("gate does not apply" in line for line in told)
    with pytest.raises(RequestError, match=r"data\.strict=true: .*not the original"):
        ImageNet(tmp_path / "0", TO_32, strict=True)
    real = open_data("imagenet_real", TO_32, (4, 4), path=tmp_path / "0")
    assert real.description.startswith(
        "ReaL labels, 40 of 50,000 images in the layout of ImageNet-1k"
    )


def test_a_part_of_the_set_keeps_its_name(tmp_path):
    for data in layouts(FAKE, tmp_path):
        assert data.description == "ImageNet-1k validation, 40 of 50,000 images"
        assert data.differs == ()


def test_other_names_than_the_published_ones_are_told(tmp_path):
    """ImageNetV2 sorted into WordNet ids has ten images a class, and names of its own."""
    v2 = in_folders(tmp_path / "v2", lambda i: f"{i}.jpeg", 4, 10)
    data = ImageNet(v2, TO_32)
    assert "40 of 50,000 images in the layout" in data.description and "0.jpeg" in data.description
    (v2 / WNIDS[0] / "0.jpeg").rename(v2 / WNIDS[0] / "ILSVRC2012_val_00000007.JPEG")
    assert "39 are not called ILSVRC2012_val_<number>.JPEG" in ImageNet(v2, TO_32).description


def test_more_images_a_class_lead_to_the_data_set_that_they_are(tmp_path):
    sketch = in_folders(tmp_path / "sketch", lambda i: f"sketch_{i}.JPEG", 2, 51)
    with pytest.raises(RequestError, match=r"51 images .* data=imagenet_sketch data\.path="):
        ImageNet(sketch, TO_32)
    part = in_folders(tmp_path / "imagenette" / "val", lambda i: f"n_{i}.JPEG", 2, 60)
    with pytest.raises(RequestError, match=rf"Imagenette, with data=folder data\.path={part}"):
        ImageNet(tmp_path / "imagenette", TO_32)


class Whole:
    """A source of all 50,000 files, of `mean` bytes each, without any content."""

    def __init__(self, mean: int):
        self.paths = [f"n/ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 50_001)]
        self.labels = self.reading_order = range(0)
        self.files_left_out: dict[str, int] = {}
        self.mean = mean

    def sizes(self) -> list[int]:
        return [self.mean] * len(self.paths)

    def hashes(self, positions, index) -> list[bytes]:
        raise AssertionError("no content is asked for")

    def read(self, i: int) -> Path:
        raise AssertionError("no file is asked for")

    def store(self, i: int) -> Path:
        raise AssertionError("no file is asked for")


@pytest.mark.parametrize(
    ("mean", "original"), [(134_200, True), (133_000, True), (110_000, False), (20_000, False)]
)
def test_the_bytes_of_all_50000_files_tell_copies_that_were_saved_again(mean, original):
    assert 0.99 * ARCHIVE_BYTES / 50_000 < 134_200 < ARCHIVE_BYTES / 50_000
    found = differences(Whole(mean))
    assert (found == ()) == original
    assert original or "the published ones have 6.69 to 6.72 GB" in found[0]


SIZES = st.tuples(st.integers(20, 900), st.integers(20, 900))


@given(sizes=st.lists(SIZES, min_size=1, max_size=SAMPLE), one=SIZES, count=st.integers(1, SAMPLE))
def test_pictures_of_many_sizes_differ_in_nothing_and_those_of_one_do(sizes, one, count):
    varied = [Header("JPEG", size) for size in [(500, 375), *sizes, (333, 500)]]
    assert of_headers(varied) == []
    width, height = one
    found = of_headers([Header("JPEG", one)] * count)
    assert bool(found) == (count >= (2 if width == height else 12))
    assert not found or f"all {width} x {height}" in found[0]


def test_the_sample_is_the_same_pictures_in_every_layout(tmp_path):
    first, *others = [sample(data.source) for data in layouts(FAKE, tmp_path)]
    assert 20 < len(first) <= SAMPLE and all(other == first for other in others)


def test_the_gate_does_not_apply_to_copies():
    differs = ["all 224 x 224: not the original pictures"]
    gate = baseline_gate("X", record(40_990) | {"data_differs": differs}, config())
    assert gate.state == "not applicable" and differs[0] in gate.line
    assert baseline_gate("X", record(40_990) | {"data_differs": []}, config()).state == "passed"
    assert title_of(50_000, differs) == (
        "50,000 images in the layout of ImageNet-1k validation (all 224 x 224: not the original "
        "pictures)"
    )


# ---- ImageNet-C and -Sketch


def corrupted(root: Path, inside: str = "fog/3", size: tuple[int, int] = (224, 224)) -> Path:
    remade(lambda i: size).folders(root / "made")
    (root / inside).parent.mkdir(parents=True, exist_ok=True)
    (root / "made" / "val").rename(root / inside)
    return root


def open_c(path: Path, **options) -> ImageFiles:
    return open_data("imagenet_c", TO_32, (4, 4), path=str(path), **options)


@pytest.mark.parametrize("inside", ["fog/3", "weather/fog/3", "imagenet-c/fog/3"])
def test_imagenet_c_is_one_corruption_at_one_severity(inside, tmp_path):
    data = open_c(corrupted(tmp_path, inside), corruption="fog", severity=3)
    assert data.description == "ImageNet-C, fog, severity 3, 40 of 50,000 images"
    assert data.classes == tuple(WNIDS) and data.scored is None
    assert [s.label for s in data] == [WNIDS.index(s.source.split("/")[0]) for s in data]
    own = open_c(tmp_path / inside)
    assert (own.description, own.digest) == (data.description, data.digest)
    above = open_c((tmp_path / inside).parent, severity=3)
    assert above.description == data.description


def test_the_known_corruptions_are_fifteen_and_four_more():
    groups = {group: len(names) for group, names in CORRUPTIONS.items()}
    assert groups == {"noise": 3, "blur": 4, "weather": 4, "digital": 4, "extra": 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"corruption": "mist", "severity": 3},
            "'mist' is not a corruption of .* fog, .* saturate",
        ),
        ({"corruption": "fog", "severity": 6}, "severity=6 is not possible: give 1 to 5"),
        ({"corruption": "fog"}, "severity is missing: give 1 to 5"),
        ({"severity": 3}, "corruption is missing: give one of gaussian_noise"),
        ({"corruption": "snow", "severity": 3}, "has no folder snow/3"),
        ({"corruption": "fog", "severity": 2}, "has no folder fog/2"),
    ],
)
def test_a_wrong_corruption_is_one_clear_line(options, message, tmp_path):
    with pytest.raises(RequestError, match=message):
        open_c(corrupted(tmp_path), **options)


def test_what_is_given_must_be_what_the_folder_is(tmp_path):
    corrupted(tmp_path)
    for options in ({"corruption": "snow"}, {"severity": 2}):
        with pytest.raises(RequestError, match=r"is not that of .*: leave one"):
            open_c(tmp_path / "fog" / "3", **options)
    (tmp_path / "fog" / "3").rename(tmp_path / "mine")
    with pytest.raises(RequestError, match="corruption is missing"):
        open_c(tmp_path / "mine")
    assert (
        "frost, severity 1" in open_c(tmp_path / "mine", corruption="frost", severity=1).description
    )
    for path in (None, str(tmp_path / "nowhere")):
        with pytest.raises(RequestError, match=r"imagenet-c data\.corruption=fog"):
            open_data("imagenet_c", TO_32, (4, 4), path=path, corruption="fog", severity=3)
    with pytest.raises(RequestError, match="is not for data=folder: only for imagenet_c"):
        open_data("folder", TO_32, (4, 4), path=str(tmp_path), corruption="fog")


def test_other_sizes_than_imagenet_c_has_are_said(tmp_path):
    data = open_c(corrupted(tmp_path, size=(30, 20)), corruption="fog", severity=3)
    assert data.description.endswith("not 224 x 224 as ImageNet-C's are")


def test_imagenet_sketch_is_a_data_set_of_its_own(tmp_path):
    in_folders(tmp_path / "sketch", lambda i: f"sketch_{i}.JPEG", 2, 51)
    for root in (tmp_path, tmp_path / "sketch"):
        data = open_data("imagenet_sketch", TO_32, (4, 4), path=str(root))
        assert data.description == "ImageNet-Sketch, 102 of 50,889 images"
        assert data.labels == [0] * 51 + [1] * 51 and data.n_classes == 1000
    with pytest.raises(RequestError, match="102 of the 50,889 images of ImageNet-Sketch"):
        open_data("imagenet_sketch", TO_32, (4, 4), path=str(tmp_path), strict=True)
    FAKE.folders(tmp_path / "real")
    with pytest.raises(RequestError, match="is a validation image and no sketch"):
        open_data("imagenet_sketch", TO_32, (4, 4), path=str(tmp_path / "real" / "val"))


# ---- the user's own title


def test_a_title_is_added_to_the_facts_and_is_in_no_digest(tmp_path):
    FAKE.folders(tmp_path)
    for name, options in (
        ("imagenet", {"path": str(tmp_path)}),
        ("folder", {"path": str(tmp_path / "val")}),
        ("digits", {"images": 5}),
    ):
        plain = open_data(name, TO_32, (4, 4), **options)
        titled = open_data(name, TO_32, (4, 4), title="My set", **options)
        assert titled.description == f"My set: {plain.description}"
        assert titled.digest == plain.digest and titled.label_digest == plain.label_digest
    few = open_data("folder", TO_32, (4, 4), path=str(tmp_path / "val"), title="My set", limit=3)
    assert few.description.startswith("My set: image folder val, 40 images of 8 classes; 3 of them")


def test_a_run_on_copies_says_so_in_its_table(tmp_path):
    remade(lambda i: (224, 224)).folders(tmp_path)
    spec = RunSpec(
        title="x",
        backbone=BackboneSpec("test_vit", "random"),
        data=DataSpec("imagenet", path=str(tmp_path)),
        rows=(MethodSpec.of("dense", {}, "Dense"),),
        results=tmp_path / "results",
        device="cpu",
    )
    (result,) = run(spec)[1]
    assert result.measured["data"].startswith("40 of 50,000 images in the layout of ImageNet-1k")
    assert result.measured["data_differs"] == ["all 224 x 224: not the original pictures"]
