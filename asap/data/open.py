"""The data set of a name."""

import logging
from pathlib import Path
from typing import cast

from asap.data.base import DataSet, PatchGrid, Transform, take
from asap.data.crop_cache import cached
from asap.data.digit_scenes import DigitScenes
from asap.data.folder import ImageFolder
from asap.data.imagenet import ImageNet, ImageNetTraining
from asap.data.listing import said
from asap.data.pictures import Pictures
from asap.data.variants import ImageNet200, ImageNetReal, ImageNetV2
from asap.errors import RequestError
from asap.runs.paths import given_path

log = logging.getLogger("asap")
NAMES = (
    "digits", "imagenet", "imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_real", "folder",
)  # fmt: skip
_LABELLED = ("imagenet", "imagenet_real")  # data sets that labels and boxes can be given for


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
    limit: int | None = None,
) -> DataSet:
    """Scenes of digits (`split`, `images`, `seed`), or the files under `path`; at most `limit`.

    labels, boxes, strict: see `ImageNet`. cache: a folder for decoded crops, see crop_cache.py.
    Raises RequestError for a data set that is not there.
    """
    given = {"path": path, "labels": labels, "boxes": boxes, "cache": cache}
    path, labels, boxes, cache = (
        None if value is None else given_path(f"data.{key}", str(value))
        for key, value in given.items()
    )
    _check(name, path, split, labels, boxes)
    if name == "digits" and cache is not None:
        raise RequestError(f"data.cache={str(cache)!r} is not for data=digits: leave it null")
    if name == "digits":
        count = images if limit is None else min(limit, images)
        return DigitScenes(split, count, seed, transform, patch_grid)
    if split == "train":
        found: Pictures = ImageNetTraining(path, transform)
    else:
        found = _pictures(name, path, transform, patch_grid, labels, boxes, strict)
    if found.files_left_out:
        log.warning("%s: left out are %s", found.description, said(found.files_left_out))
    if cache is not None:
        return cached(found, Path(cache), limit)
    return take(cast(DataSet, found), limit)


def _pictures(
    name: str,
    path: str | None,
    transform: Transform,
    grid: PatchGrid,
    labels: str | None,
    boxes: str | None,
    strict: bool,
) -> Pictures:
    if name == "imagenet":
        return ImageNet(path, transform, grid, labels=labels, boxes=boxes, strict=strict)
    if name == "imagenet_real":
        return ImageNetReal(path, transform, grid, labels=labels, boxes=boxes, strict=strict)
    if name == "imagenet_v2":
        return ImageNetV2(path, transform, grid, strict)
    if name in ("imagenet_a", "imagenet_r"):
        return ImageNet200(name[-1], path, transform, grid, strict)
    if path is None:
        raise RequestError("data.path is missing: give the folder with a sub-folder per class")
    return ImageFolder(path, transform, grid)


def _check(name: str, path: str | None, split: str, labels: str | None, boxes: str | None) -> None:
    """RequestError on an unknown name and on settings that the data set does not have."""
    if name not in NAMES:
        raise RequestError(f"data.name={name!r} is unknown: use one of {', '.join(NAMES)}")
    if name == "digits" and path is not None:
        raise RequestError(f"data.path={path!r} is not for data=digits: choose data=folder")
    if name != "digits" and split != "evaluation" and (name, split) != ("imagenet", "train"):
        raise RequestError(f"data.split={split!r} is for data=digits only: give the folder itself")
    for key, value in (("labels", labels), ("boxes", boxes)):
        if value is not None and (name not in _LABELLED or split == "train"):
            raise RequestError(
                f"data.{key}={value!r} is not for data={name}: only for {' and '.join(_LABELLED)}"
            )
