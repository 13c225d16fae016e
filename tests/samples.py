"""Helpers for tests of data sets, and of runs on a few images."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from asap.data.base import PatchGrid, Sample, Transform
from asap.data.open import open_data as opened
from asap.spec.configs import read_method
from asap.spec.read import read_spec
from asap.spec.run_spec import DataSpec, RunSpec


def same(one: Sample, other: Sample) -> bool:
    """Equal field by field, tensors bit for bit."""

    def equal(a: object, b: object) -> bool:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return a.dtype == b.dtype and torch.equal(a, b)
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
        return type(a) is type(b) and a == b

    return all(equal(getattr(one, f), getattr(other, f)) for f in Sample.__dataclass_fields__)


def data_spec(name: str, path: object = None, **given: Any) -> DataSpec:
    """The spec of a data set: what is no setting of every one is an option of its own."""
    common = {f.name for f in fields(DataSpec)} & given.keys()
    own = {key: value for key, value in given.items() if key not in common}
    head = {key: given[key] for key in common}
    return DataSpec(name, None if path is None else str(path), own, **head)


def small_run(
    results: object, *rows: Mapping[str, Any], images: int = 4, **settings: Any
) -> RunSpec:
    """A run of the embedded model over a few scenes; settings: further keys of its config."""
    config = {
        "backbone": {"name": "digits_vit", "weights": "bundled"},
        "data": {"name": "digits", "images": images},
        "rows": list(rows or [{"method": "dense"}]),
        "results": str(results),
        "device": "cpu",
    }
    return read_spec(config | settings, read_method)


class Made:
    """What a data set of made images says of itself; those that inherit have the images."""

    name = digest = label_digest = description = "made"
    task = "classification"
    classes: tuple[str, ...] = ("a",)
    n_classes = property(lambda self: len(self.classes))
    has_masks = clustered = False
    scored: tuple[int, ...] | None = None
    reading_order = property(lambda self: range(len(self)))

    def __init__(self, images: Any) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Sample:
        raise AssertionError("no image is read")


def open_data(name: str, transform: Transform, grid: PatchGrid, **given: Any) -> Any:
    """The data set with what is given by name: of the spec, of its options, of the opening."""
    how = {key: given.pop(key) for key in ("outputs", "limit", "index") if key in given}
    if given.get("cache") is not None:
        given["cache"] = str(given["cache"])
    return opened(data_spec(name, **given), transform, grid, **how)
