"""A fixed slice of the validation images for calibration; the rest is for evaluation.

A user without training images finds operating points on this slice (a MACs budget needs no labels),
and its images are then not evaluated. Only the image's name decides whether it is in the slice, so
it is the same 1,000 of the 50,000 ImageNet images in every layout of the files. Clips of one video
are all in the slice, or none of them is.
"""

import re
from collections.abc import Sequence
from hashlib import sha256

from asap.data.base import DataSet, Subset, take
from asap.errors import RequestError

SLICE = 1_000  # images, but at most half of the data set
_NUMBERED = re.compile(r"ILSVRC2012_val_\d{8}")


def part_of(data: DataSet, part: str, limit: int | None) -> DataSet:
    """The part "all", "slice" or "rest" of a data set, at most `limit` images of it.

    Of "all" and "rest", evenly spaced images are taken (see `take`); of the slice, the first by
    hash. Raises RequestError for fewer than two images and for a data set whose images have no
    names.
    """
    if part == "all":
        return take(data, limit)
    chosen = slice_positions(names_of(data), getattr(data, "clusters", None))
    if part == "slice":
        some = sorted(chosen[:limit])
        return Subset(data, some, f"{data.description}: {len(some):,} of the calibration slice")
    left_out = set(chosen)
    rest = [i for i in range(len(data)) if i not in left_out]
    text = f"{data.description}: {len(rest):,}, without the {len(chosen):,} of the calibration"
    return take(Subset(data, rest, text), limit)


def slice_positions(names: Sequence[str], sources: Sequence[int] | None = None) -> list[int]:
    """Positions of the slice's images, sorted by the hashes of their names.

    sources: for each image the number of its source; images that share one stay together, at the
    place of the first of them. None: each has its own.
    """
    ordered = sorted(range(len(names)), key=lambda i: (_hash(names[i]), names[i]))
    groups: dict[int, list[int]] = {}
    for i in ordered:
        groups.setdefault(i if sources is None else sources[i], []).append(i)
    if len(groups) < 2:
        what = "images" if sources is None else "videos"
        raise RequestError(
            f"{len(groups)} {what} are too few for a slice of their own: give training images with "
            "calibrate.path=/data/imagenet/train, or the rows' options by hand"
        )
    first, *others = groups.values()
    found, most = first, min(SLICE, len(names) // 2)
    for group in others[:-1]:
        if len(found) + len(group) > most:
            break
        found = found + group
    return found


def names_of(data: DataSet) -> Sequence[str]:
    """The images' relative paths, without reading any image."""
    held = getattr(data, "source", data)  # the object that knows the files
    names: Sequence[str] | None = getattr(held, "paths", None)
    if names is None:
        raise RequestError(
            f"data={data.name} has no named images to take a slice of: use calibrate.slice=train"
        )
    return names


def _hash(path: str) -> str:
    """Hash of ImageNet's own file name if there is one, so folders and extensions do not matter."""
    found = _NUMBERED.search(path)
    return sha256((found[0] if found else path).encode()).hexdigest()
