"""The labels of the ILSVRC2012 development kit.

The kit numbers the 1,000 classes in its own order. `meta.mat` maps these numbers to WordNet ids,
and line i of `ILSVRC2012_validation_ground_truth.txt` is the class number of image i. Numbers above
1,000 are inner nodes of the hierarchy, not classes.
"""

import tarfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from scipy.io import loadmat

from asap.data.images.archives import contents
from asap.errors import RequestError, one_line

ARCHIVES = ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12.tgz")
FOLDER = "ILSVRC2012_devkit_t12"
META, TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
_REMEDY = "use ILSVRC2012_devkit_t12.tar.gz as image-net.org gives it"


def find_devkit(folders: list[Path]) -> Path | None:
    """The kit (a folder or an archive) in the first of the folders that has one, else None."""
    for place in _places(folders):
        if place.is_file() if place.name in ARCHIVES else (place / "data" / TRUTH).is_file():
            return place
    return None


def _places(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from (folder / FOLDER, folder / "devkit", *(folder / name for name in ARCHIVES))


def devkit_labels(kit: Path) -> dict[int, str]:
    """WordNet id of each validation image by its file number, from 1.

    Raises RequestError if the kit is damaged or is not the kit of 2012.
    """
    try:
        meta, truth = _contents(kit)
        wnid_of = _wnids(loadmat(BytesIO(meta), squeeze_me=True)["synsets"])
        numbers = [int(line) for line in truth.split()]
        return {i: wnid_of[number] for i, number in enumerate(numbers, start=1)}
    except RequestError:
        raise
    except (
        OSError, EOFError, tarfile.TarError, zlib.error, ValueError, TypeError, KeyError
    ) as error:  # fmt: skip
        said = one_line(error)
        raise RequestError(f"the devkit {kit} cannot be used ({said}): {_REMEDY}") from error


def _contents(kit: Path) -> tuple[bytes, bytes]:
    """`meta.mat` and the ground truth, from the folder or from the archive."""
    if kit.is_dir():
        return (kit / "data" / META).read_bytes(), (kit / "data" / TRUTH).read_bytes()
    found = dict(contents(kit, lambda name: name in (META, TRUTH)))
    if lacking := [name for name in (META, TRUTH) if name not in found]:
        raise RequestError(f"the devkit {kit} has no {lacking[0]}: {_REMEDY}")
    return found[META], found[TRUTH]


def _wnids(synsets: Any) -> dict[int, str]:
    """WordNet id of each class number; inner nodes, which have children, are left out."""
    leaves = synsets[synsets["num_children"] == 0]
    return {int(leaf["ILSVRC2012_ID"]): str(leaf["WNID"]) for leaf in leaves}
