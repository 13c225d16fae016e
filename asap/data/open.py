"""The data set of a name."""

from typing import cast

from asap.data.base import DataSet, PatchGrid, Transform, take
from asap.data.digit_scenes import DigitScenes
from asap.data.folder import ImageFolder
from asap.data.imagenet import ImageNet, ImageNetTraining
from asap.errors import RequestError

NAMES = ("digits", "imagenet", "folder")


def open_data(
    name: str,
    transform: Transform,
    patch_grid: PatchGrid,
    *,
    path: str | None = None,
    split: str = "evaluation",
    images: int = 2000,
    seed: int = 0,
    limit: int | None = None,
) -> DataSet:
    """Scenes of digits (`split`, `images`, `seed`), or the files under `path`; at most `limit`.

    Raises RequestError for a data set that is not there.
    """
    if name == "digits":
        if path is not None:
            raise RequestError(f"data.path={path!r} is not for data=digits: choose data=folder")
        count = images if limit is None else min(limit, images)
        return DigitScenes(split, count, seed, transform, patch_grid)
    if name == "imagenet" and split == "train":
        return take(cast(DataSet, ImageNetTraining(path, transform)), limit)
    if name in NAMES and split != "evaluation":
        raise RequestError(f"data.split={split!r} is for data=digits only: give the folder itself")
    if name == "imagenet":
        return take(cast(DataSet, ImageNet(path, transform)), limit)
    if name == "folder":
        if path is None:
            raise RequestError("data.path is missing: give the folder with a sub-folder per class")
        return take(cast(DataSet, ImageFolder(path, transform)), limit)
    raise RequestError(f"data.name={name!r} is unknown: use one of {', '.join(NAMES)}")
