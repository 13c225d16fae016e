"""Opens a data set by its name."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from asap.data.base import DataSet, PatchGrid, Transform, take
from asap.data.crops.cache import cached
from asap.data.digits.scenes import DigitScenes
from asap.data.imagenet.validation import ImageNet, ImageNetTraining
from asap.data.imagenet.variants import (
    ImageNet200,
    ImageNetC,
    ImageNetReal,
    ImageNetSketch,
    ImageNetV2,
)
from asap.data.images.classes_file import read_classes
from asap.data.images.folder import ImageFolder
from asap.data.images.image_files import ImageFiles
from asap.errors import RequestError
from asap.records.files_left_out import said
from asap.spec.paths import given_path

log = logging.getLogger("asap")
SCORED = ("all", "subset")
NAMES = (
    "digits", "imagenet", "imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_c",
    "imagenet_sketch", "imagenet_real", "folder",
)  # fmt: skip


_LABELLED = ("imagenet", "imagenet_real")
_SUBSETS = ("folder", "imagenet_a", "imagenet_r")
# Settings that only some data sets have: name, data sets, default.
_OWN: tuple[tuple[str, tuple[str, ...], str | None], ...] = (
    ("labels", _LABELLED, None),
    ("boxes", _LABELLED, None),
    ("classes", ("folder",), None),
    ("class_order", ("folder",), "sorted"),
    ("corruption", ("imagenet_c",), None),
    ("severity", ("imagenet_c",), None),
)


@dataclass(frozen=True)
class _Asked:
    """The settings of a data set of files, see `open_data`."""

    name: str
    path: str | None
    split: str
    labels: str | None
    boxes: str | None
    strict: bool
    classes: str | None
    class_order: str
    scored: str | None
    corruption: str | None
    severity: int | None
    outputs: int | None


def open_data(
    name: str,
    transform: Transform,
    patch_grid: PatchGrid,
    *,
    path: str | None = None,
    split: str = "evaluation",
    images: int = 2000,
    seed: int = 0,
    labels: str | None = None,
    boxes: str | None = None,
    strict: bool = False,
    cache: str | Path | None = None,
    classes: str | None = None,
    class_order: str = "sorted",
    scored: str | None = None,
    corruption: str | None = None,
    severity: int | None = None,
    title: str | None = None,
    outputs: int | None = None,
    limit: int | None = None,
    index: Path | None = None,
) -> DataSet:
    """Scenes of digits (`split`, `images`, `seed`), or the files under `path`; at most `limit`.

    labels, boxes, strict: see `ImageNet`. cache: a folder for decoded crops, see crops/cache.py.
    classes (a file), class_order, scored, outputs (of the model): see `ImageFolder`. corruption,
    severity: see `ImageNetC`. title: the user's name for the data, which precedes the description.
    index: the file that stores the hashes of files, see content.py; if None, all files are read.
    Raises RequestError if the data set does not exist.
    """
    if name.startswith("imagenet") and path is not None and not path.strip():
        path = None  # the data set's own error lists the layouts it expects
    given = {"path": path, "labels": labels, "boxes": boxes, "cache": cache, "classes": classes}
    path, labels, boxes, cache, classes = (
        None if value is None else given_path(f"data.{key}", str(value))
        for key, value in given.items()
    )
    asked = _Asked(
        name, path, split, labels, boxes, strict, classes, class_order, scored, corruption,
        severity, outputs,
    )  # fmt: skip
    _check(asked)
    if name == "digits" and cache is not None:
        raise RequestError(f"data.cache={str(cache)!r} is not for data=digits: leave it null")
    if name == "digits":
        count = images if limit is None else min(limit, images)
        return DigitScenes(split, count, seed, transform, patch_grid, title)
    found = _pictures(asked, transform, patch_grid)
    found.title = title
    found.index = index
    if found.files_left_out:
        log.warning("%s: left out are %s", found.description, said(found.files_left_out))
    if cache is not None:
        return cached(found, Path(cache), limit)
    return take(cast(DataSet, found), limit)


def _pictures(asked: _Asked, transform: Transform, grid: PatchGrid) -> ImageFiles:
    path, strict = asked.path, asked.strict
    if asked.split == "train":
        return ImageNetTraining(path, transform)
    if asked.name == "imagenet":
        return ImageNet(
            path, transform, grid, labels=asked.labels, boxes=asked.boxes, strict=strict
        )
    if asked.name == "imagenet_real":
        return ImageNetReal(
            path, transform, grid, labels=asked.labels, boxes=asked.boxes, strict=strict
        )
    if asked.name == "imagenet_v2":
        return ImageNetV2(path, transform, grid, strict)
    if asked.name == "imagenet_c":
        return ImageNetC(path, asked.corruption, asked.severity, transform, grid, strict)
    if asked.name == "imagenet_sketch":
        return ImageNetSketch(path, transform, grid, strict)
    if asked.name in ("imagenet_a", "imagenet_r"):
        kind = asked.name.removeprefix("imagenet_")
        return ImageNet200(kind, path, transform, grid, strict, asked.scored or "subset")
    if path is None:
        raise RequestError("data.path is missing: give the folder with a sub-folder per class")
    return ImageFolder(
        path,
        transform,
        grid,
        classes=None if asked.classes is None else read_classes(asked.classes),
        subset=True,
        order=asked.class_order,
        outputs=asked.outputs,
        scored=asked.scored or "all",
    )


def _check(asked: _Asked) -> None:
    """RequestError on an unknown name and on settings that the data set does not have."""
    name, split = asked.name, asked.split
    if name not in NAMES:
        raise RequestError(f"data.name={name!r} is unknown: use one of {', '.join(NAMES)}")
    if name == "digits" and asked.path is not None:
        raise RequestError(f"data.path={asked.path!r} is not for data=digits: choose data=folder")
    if name != "digits" and split != "evaluation" and (name, split) != ("imagenet", "train"):
        raise RequestError(f"data.split={split!r} is for data=digits only: give the folder itself")
    for key, names, unset in _OWN:
        value = getattr(asked, key)
        if value != unset and (name not in names or split == "train"):
            raise RequestError(
                f"data.{key}={value!r} is not for data={name}: only for {' and '.join(names)}"
            )
    if asked.scored not in (None, *SCORED):
        raise RequestError(f"data.scored={asked.scored!r} is not possible: use all or subset")
    if asked.scored == "subset" and name not in _SUBSETS:
        raise RequestError(
            f"data.scored=subset is not for data={name}, which has all of its classes: only for "
            f"{' and '.join(_SUBSETS)}; give a part of ImageNet's classes as data=folder"
        )
    if asked.class_order != "sorted" and asked.classes is not None:
        raise RequestError(
            f"data.class_order={asked.class_order} and data.classes={asked.classes!r} both give an "
            "order: leave one of them out"
        )
