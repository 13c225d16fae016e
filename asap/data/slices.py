"""A fixed slice of the validation images, for operating points, and the rest, for evaluation.

Where a user has no training images, MACs (which need no labels) are met on this slice, and no
image of it is evaluated. Membership goes by the image's name alone: the same 1,000 of 50,000
ImageNet images in every layout of the files.
"""

import re
from collections.abc import Sequence
from hashlib import sha256

from asap.data.base import DataSet, Subset, take
from asap.errors import RequestError

SLICE = 1_000  # images; of a smaller set at most half
_NUMBERED = re.compile(r"ILSVRC2012_val_\d{8}")


def part_of(data: DataSet, part: str, limit: int | None) -> DataSet:
    """All images, the slice, or the rest; then at most `limit`, evenly spaced (`take`).

    Of the slice, the first `limit` by hash. RequestError for fewer than two images, and for a data
    set whose images have no names.
    """
    if part == "all":
        return take(data, limit)
    chosen = slice_positions(names_of(data))
    if part == "slice":
        some = sorted(chosen[:limit])
        return Subset(data, some, f"{data.description}: {len(some):,} of the calibration slice")
    left_out = set(chosen)
    rest = [i for i in range(len(data)) if i not in left_out]
    text = f"{data.description}: {len(rest):,}, without the {len(chosen):,} of the calibration"
    return take(Subset(data, rest, text), limit)


def slice_positions(names: Sequence[str]) -> list[int]:
    """Positions of the slice's images, in the order of their hashes."""
    if len(names) < 2:
        raise RequestError(
            f"{len(names)} images are too few for a slice of their own: give training images with "
            "calibrate.path=/data/imagenet/train, or the rows' options by hand"
        )
    ordered = sorted(range(len(names)), key=lambda i: (_hash(names[i]), names[i]))
    return ordered[: min(SLICE, len(names) // 2)]


def names_of(data: DataSet) -> Sequence[str]:
    """The images' relative paths, without reading any image."""
    held = getattr(data, "source", data)  # where the files are, if that is something of its own
    names: Sequence[str] | None = getattr(held, "paths", None)
    if names is None:
        raise RequestError(
            f"data={data.name} has no named images to take a slice of: use calibrate.slice=train"
        )
    return names


def _hash(path: str) -> str:
    """By ImageNet's own name where there is one, so that folders and endings do not matter."""
    found = _NUMBERED.search(path)
    return sha256((found[0] if found else path).encode()).hexdigest()
