"""Where the objects are: ImageNet's localisation boxes, mapped through the transform to patches.

Boxes are in pixels of the stored image, (left, top, right, bottom), as in the CLS-LOC annotations
and in Kaggle's LOC_val_solution.csv. A patch is an object patch if its centre, mapped back through
crop and resize, lies in a box. An image has no mask, and does not count in object recall, if it has
no box, if its EXIF data rotates it (it is then unknown what the annotators saw), or if its size
does not fit its boxes: it differs from the annotated size, or a box reaches outside the image.
"""

import csv
import struct
import tarfile
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from asap.data.base import PatchGrid, Transform
from asap.data.imagenet.names import number_of
from asap.data.images.archives import contents
from asap.data.images.geometry import map_of
from asap.errors import RequestError, one_line

Box = tuple[int, int, int, int]
_ORIENTATION = 274  # EXIF tag; 1 is upright
_DAMAGED = (
    OSError, EOFError, ValueError, LookupError, SyntaxError, tarfile.TarError, zlib.error
)  # fmt: skip
_HINT = (
    "give the folder Annotations/CLS-LOC/val of XML files, its archive "
    "ILSVRC2012_bbox_val_v3.tgz, or LOC_val_solution.csv"
)


@dataclass(frozen=True)
class Boxed:
    """The boxes of one image, and its (width, height) if the annotation states it."""

    boxes: tuple[Box, ...]
    size: tuple[int, int] | None


class Boxes:
    """Boxes by file number."""

    def __init__(self, of: Mapping[int, Boxed]):
        self._of = of

    @classmethod
    def read(cls, path: str) -> "Boxes":
        """Read boxes. Raises RequestError if the path does not exist or holds other files."""
        place = Path(path)
        if not place.exists():
            raise RequestError(f"data.boxes={path!r} is not there: {_HINT}")
        try:
            entries = _from_csv(place) if place.suffix == ".csv" else _from_xml(place)
            found = dict(entries)
        except _DAMAGED as error:
            said = one_line(error)
            raise RequestError(f"data.boxes={path!r} cannot be read ({said}): {_HINT}") from error
        if not found:
            raise RequestError(f"data.boxes={path!r} has no box of a validation image: {_HINT}")
        return cls(found)

    def known(self, path: str) -> bool:
        """True if the image has a box."""
        return number_of(path) in self._of

    def digest(self, paths: Sequence[str]) -> str:
        """SHA-256 of the boxes of these images."""
        return sha256("\n".join(repr(self._get(path)) for path in paths).encode()).hexdigest()

    def mask(
        self, path: str, size: tuple[int, int], transform: Transform, grid: PatchGrid
    ) -> Bool[Tensor, " n_patches"] | None:
        """Object patches of an upright picture after the transform; None if they are unknown.

        size: (width, height) of the stored picture, in pixels.
        """
        found = self._get(path)
        if found is None or not _fits(found, size):
            return None
        x, y = map_of(transform, size).patch_centres(grid)
        inside = torch.zeros(len(x), dtype=torch.bool)
        for left, top, right, bottom in found.boxes:
            inside |= (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
        return inside

    def _get(self, path: str) -> Boxed | None:
        number = number_of(path)
        return None if number is None else self._of.get(number)


def upright(picture: Image.Image) -> bool:
    """True if the picture's EXIF data does not rotate it; False if that data cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on EXIF data that ends too early
            return picture.getexif().get(_ORIENTATION, 1) in (0, 1)
    except (struct.error, LookupError, SyntaxError, TypeError, ValueError, ZeroDivisionError):
        return False


def _fits(boxed: Boxed, size: tuple[int, int]) -> bool:
    """True if the boxes can have been drawn on a picture of this size."""
    if boxed.size is not None:
        return boxed.size == size
    width, height = size
    return all(right <= width and bottom <= height for _, _, right, bottom in boxed.boxes)


def _from_csv(file: Path) -> Iterator[tuple[int, Boxed]]:
    """Read rows `ImageId,PredictionString`, with `wnid left top right bottom` for each box."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            words = row["PredictionString"].split()
            if len(words) % 5 or not words:
                raise ValueError(f"{row['ImageId']} does not have five values for each box")
            boxes = [_box(words[i + 1 : i + 5]) for i in range(0, len(words), 5)]
            if number := number_of(row["ImageId"]):
                yield number, Boxed(tuple(boxes), None)


def _from_xml(place: Path) -> Iterator[tuple[int, Boxed]]:
    for name, content in _xml_files(place):
        number = number_of(name.removesuffix(".xml"))
        if number is None:
            continue
        root = ElementTree.fromstring(content)
        boxes = [
            _box([_text(o, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")])
            for o in root.iter("object")
        ]
        size = int(_text(root, "size/width")), int(_text(root, "size/height"))
        if boxes:
            yield number, Boxed(tuple(boxes), size)


def _xml_files(place: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the annotations in a folder, at any depth, or in an archive."""
    if place.is_dir():
        for file in place.rglob("ILSVRC2012_val_*.xml"):
            yield file.name, file.read_bytes()
        return
    yield from contents(place, lambda name: name.endswith(".xml"))


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"an annotation has no {path}")
    return text


def _box(words: Sequence[str]) -> Box:
    left, top, right, bottom = (round(float(word)) for word in words)
    if not (0 <= left < right and 0 <= top < bottom):
        raise ValueError(f"{left} {top} {right} {bottom} is not a box")
    return left, top, right, bottom
