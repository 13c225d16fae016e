"""A data set brings its own options and its task: nothing else knows them."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from samples import data_spec
from timm.data import create_transform

from asap.cli.compose import not_composed, texts
from asap.data.base import DataSet, image_sample
from asap.data.digits.scenes import DigitScenes
from asap.data.open import DATA_SETS, open_data, options_of, refuse_lost, title_of
from asap.data.options import DataOptions, Opening
from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.spec.configs import config_dir, read_method
from asap.spec.read import read_spec
from asap.spec.run_spec import BackboneSpec, DataSpec, RunSpec
from asap.tasks.classification import Classification
from asap.tasks.registry import task_of

TO_32 = create_transform(32)


class Shades:
    """Grey pictures, all of one class."""

    name, task, classes, n_classes = "shades", "classification", tuple("0123456789"), 10
    scored, has_masks, clustered = None, False, False
    label_digest = "shades"

    def __init__(self, opening: Opening, shade: float):
        self.shade, self.count = shade, min(4, opening.limit or 4)
        self.digest = self.description = f"shade {shade}, {self.count} images"
        self.reading_order = range(self.count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Any:
        return image_sample(i, i, f"{i}", 0, i, torch.full((3, 112, 112), self.shade + i))


@dataclass(frozen=True)
class ShadesOptions(DataOptions):
    shade: float = 0.5
    palette: str | None = None
    shown = ("shade",)

    def __post_init__(self) -> None:
        if not 0 <= self.shade <= 1:
            raise RequestError(f"data.shade={self.shade} is not possible: give 0 to 1")

    def open(self, opening: Opening) -> DataSet:
        return Shades(opening, self.shade)


@pytest.fixture
def shades(monkeypatch):
    monkeypatch.setitem(DATA_SETS, "shades", ShadesOptions)


def spec_of(tmp_path: Path, data: DataSpec) -> RunSpec:
    dense = read_spec(
        {"backbone": {"name": "x"}, "data": {"name": "x"}, "rows": [{"method": "dense"}]},
        read_method,
    ).rows
    backbone = BackboneSpec("digits_vit", "bundled")
    return RunSpec("x", backbone, data, dense, results=tmp_path, limit=3, device="cpu")


def test_a_run_takes_a_data_set_with_an_option_of_its_own(shades, tmp_path):
    spec = spec_of(tmp_path, data_spec("shades", shade=1))
    (result,) = run(spec)[1]
    assert result.measured["n"] == 3 and result.measured["data"] == "shade 1.0, 3 images"
    (other,) = run(replace(spec, data=data_spec("shades")))[1]
    assert other.measured["key"] != result.measured["key"]
    for wrong, said in (
        ({"shade": 2.0}, r"data\.shade=2\.0 is not possible: give 0 to 1"),
        ({"shade": "dark"}, r"data\.shade='dark' is not possible: give a number"),
        ({"shad": 1}, r"no option 'shad': did you mean 'shade'\? \(its options: shade, palette\)"),
        ({"severity": 1}, r"data\.severity=1 is not for data=shades: only for imagenet_c"),
    ):
        with pytest.raises(RequestError, match=said):
            run(replace(spec, data=data_spec("shades", **wrong)))


def test_the_command_line_knows_its_options(shades):
    assert "data.palette" in texts() and "data.shade" not in texts()
    assert "did you mean 'data.shade'" in not_composed("Could not override 'data.shad'")
    assert "only for data=shades;" in not_composed("Could not override 'data.shade'")
    config = {"backbone": {"name": "b"}, "data": {"name": "shades", "shade": 1, "part": "rest"}}
    spec = read_spec({**config, "method": {"name": "dense"}}, read_method, title_of)
    assert spec.data == DataSpec("shades", options={"shade": 1}, part="rest")
    assert spec.title == "b on shades 1"


@pytest.mark.parametrize("name", list(DATA_SETS))
def test_a_config_lists_the_options_of_its_data_set(name):
    """With the values that they have without it."""
    config = yaml.safe_load((config_dir() / "data" / f"{name}.yaml").read_text("utf-8"))
    own = {key: config.get(key) for key in config if key not in {f.name for f in fields(DataSpec)}}
    if name == "digits":
        assert own.pop("images") == "${oc.select:scenes,2000}"  # which an experiment may set
        own["images"] = 2000
    if "benchmarks" in own:
        assert own.pop("benchmarks") == "${benchmarks}"  # null, a key of all runs
        own["benchmarks"] = None
    kind = DATA_SETS[name]
    assert own == {f.name: f.default for f in fields(kind)}
    assert options_of(DataSpec(name, options=own)) == kind()


@pytest.mark.parametrize("name", list(DATA_SETS))
def test_data_that_are_not_there_are_refused_before_a_model_is_loaded(name, tmp_path):
    with pytest.raises(RequestError, match="nowhere"):
        refuse_lost(data_spec(name, path=str(tmp_path / "nowhere")))
    refuse_lost(data_spec(name, path=str(tmp_path)))  # whatever is in it: opening it tells
    if name.startswith(("imagenet", "kinetics", "folder")):
        with pytest.raises(RequestError, match="folder"):
            refuse_lost(data_spec(name))
    else:
        refuse_lost(data_spec(name))


def test_a_data_set_names_its_task():
    data = open_data(data_spec("digits", images=2), TO_32, (8, 8))
    assert isinstance(data, DigitScenes) and task_of(data) == Classification()
    data.scored = (1, 2)
    assert task_of(data) == Classification((1, 2))
    data.task = "captions"
    with pytest.raises(RequestError, match="the task 'captions': use one of classification"):
        task_of(data)


def test_training_images_have_no_labels_of_their_own():
    with pytest.raises(RequestError, match=r"data\.labels='x' is not for data\.split=train"):
        options_of(data_spec("imagenet", split="train", labels="x"))
    with pytest.raises(RequestError, match=r"data\.split='calibration' is not possible"):
        options_of(data_spec("imagenet", split="calibration"))
