"""The canonical names of ImageNet's validation images, and the classes of timm's weights."""

import re
from functools import cache

from timm.data.imagenet_info import ImageNetInfo

N_IMAGES = 50_000
_FILE = re.compile(r"ILSVRC2012_val_(\d{8})(?:_(n\d{8}))?(?:\.(?:jpe?g|jpe|jfif))?", re.IGNORECASE)


@cache
def synsets() -> tuple[str, ...]:
    """The 1,000 WordNet ids in the class order of timm's weights."""
    return tuple(ImageNetInfo("imagenet-1k").label_names())


@cache
def class_index() -> dict[str, int]:
    """Position of each WordNet id among the classes."""
    return {wnid: label for label, wnid in enumerate(synsets())}


def number_of(path: str) -> int | None:
    """The number, from 1, in a validation image's file name; None for any other file."""
    found = _FILE.fullmatch(path.rsplit("/", 1)[-1])
    return int(found[1]) if found else None


def wnid_in(path: str) -> str | None:
    """The WordNet id that some distributions append to the file name; None without one."""
    found = _FILE.fullmatch(path.rsplit("/", 1)[-1])
    return found[2].lower() if found and found[2] else None


def file_name(number: int) -> str:
    """The name of a validation image in the official archive, without a folder."""
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def canonical(path: str) -> str:
    """The path with the official file name if it is a validation image, else unchanged."""
    number = number_of(path)
    if number is None:
        return path
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{file_name(number)}"
