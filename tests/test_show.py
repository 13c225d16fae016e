"""A picture of one's own under a method: what is said, what is drawn, what is refused."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asap.cli.show import _sample, class_names, work
from asap.errors import RequestError
from asap.experiment.job import Job
from asap.measure.session import Session
from asap.spec.configs import read_method
from asap.spec.read import read_spec
from asap.spec.run_spec import HeadSpec, RunSpec

pytestmark = pytest.mark.painted

TINY = {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": 32, "patch_size": 8}


def spec_of(folder: Path, image: object, method: str, **options: object) -> RunSpec:
    config = {
        "backbone": {"name": "vit_tiny_patch16_224", "weights": "random", "model_args": TINY},
        "data": {"name": "imagenet"},
        "rows": [{"method": "dense"}, {"method": method, "with": options}],
        "image": None if image is None else str(image),
        "results": str(folder), "device": "cpu",
    }  # fmt: skip
    return read_spec(config, lambda name: read_method(name, []))


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("show") / "My photo (1).jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def said(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("asap"), "propagate", True)
    caplog.set_level(logging.INFO, logger="asap")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("method", "options", "left"),
    [
        ("tome", {"r": 2}, "17 15 13"),  # 16 patches and the class token, two fewer a block
        ("asap", {"tau": 0.5, "clusters": 2}, "first reduced in block 1"),
    ],
)
def test_a_picture_is_shown(tmp_path, photo, said, method, options, left):
    work(spec_of(tmp_path, photo, method, **options), Job())
    text = "\n".join(said())
    assert "tokens per block: 17 17 17" in text  # dense
    assert left in text
    assert "the weights are random" in text
    for suffix in (".png", ".svg"):
        assert (tmp_path / "figures" / f"show-my-photo--1{suffix}").stat().st_size > 1000


def test_a_head_of_clips_is_not_asked_about_a_picture(tmp_path, photo, said):
    spec = spec_of(tmp_path, photo, "tome", r=2)
    work(replace(spec, head=HeadSpec(heads=2)), Job())
    assert any(line.startswith("ToMe: ") and "%" in line for line in said())


def test_imagenet_s_classes_have_their_first_name(tmp_path, photo):
    from asap.measure.session import Session

    names = class_names(Session(spec_of(tmp_path, photo, "tome")))
    assert (len(names), names[0], names[999]) == (1000, "tench", "toilet tissue")


@pytest.mark.parametrize(
    ("image", "message"),
    [(None, "image is missing"), ("/nothing.jpg", "is no file"), (__file__, "cannot be read")],
)
def test_what_is_no_picture_is_refused(tmp_path, image, message):
    with pytest.raises(RequestError, match=message):
        work(spec_of(tmp_path, image, "tome"), Job())


def test_every_job_of_a_multirun_has_files_of_its_own(tmp_path, photo):
    for number, method in enumerate(("tome", "random_drop")):
        options = {"r": 2} if method == "tome" else {"keep": 0.5, "block": 1}
        work(spec_of(tmp_path, photo, method, **options), Job(number, several=True))
    names = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert names == {"show-my-photo--1-0.png", "show-my-photo--1-1.png"}


@pytest.mark.parametrize("orientation", [None, 1, 6])
def test_a_rotation_that_is_ignored_is_said(tmp_path, said, orientation):
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    path = tmp_path / "phone.jpg"
    Image.new("RGB", (40, 60)).save(path, exif=exif)
    _sample(Session(spec_of(tmp_path, path, "tome")), path)
    warned = [line for line in said() if "EXIF" in line]
    assert len(warned) == (orientation == 6)
