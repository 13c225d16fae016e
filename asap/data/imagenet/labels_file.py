"""The classes of validation images from a labels file, which has one line per image.

A line is `<file> <class>`, separated by spaces, a tab or a comma. <file> is the name of a
validation image, with or without folder and extension. <class> is a WordNet id (n01751748) or the
position of the class, from 0, among the sorted WordNet ids (timm's order); the rest of the line is
ignored. Known labels files are `val.txt` of Caffe and MMPretrain, `LOC_val_solution.csv` of Kaggle,
and `imagenet_2012_validation_synset_labels.txt` of TensorFlow, whose line i is only the id of image
i.
"""

import re
from pathlib import Path

from asap.data.imagenet.names import class_index, number_of, synsets
from asap.errors import RequestError

NAMES = (
    "LOC_val_solution.csv", "val.txt", "meta/val.txt", "val_labels.txt", "labels.txt", "val.csv",
    "labels.csv", "caffe_ilsvrc12/val.txt", "imagenet_2012_validation_synset_labels.txt",
)  # fmt: skip
_FORMAT = "expected lines such as 'ILSVRC2012_val_00000001.JPEG n01751748'"


def find_labels_file(folders: list[Path]) -> Path | None:
    """The first file in one of the folders that has a known name, else None."""
    places = (folder / name for folder in folders for name in NAMES)
    return next((place for place in places if place.is_file()), None)


def read_labels_file(path: Path) -> dict[int, str]:
    """WordNet id of each listed validation image by its file number. RequestError on bad lines."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise RequestError(f"the labels file {path} cannot be read ({reason}): {_FORMAT}") from None
    rows = [
        (i, re.split(r"[\s,]+", line.strip())) for i, line in enumerate(lines, 1) if line.strip()
    ]
    if rows and rows[0][1][0].lower() in ("imageid", "filename", "file", "image", "name"):
        rows = rows[1:]
    if not rows:
        raise RequestError(f"the labels file {path} is empty: {_FORMAT}")
    if all(len(row) == 1 for _, row in rows):
        return {number: _id(row[0], path, i) for number, (i, row) in enumerate(rows, 1)}
    found = dict(_entry(row, path, i) for i, row in rows)
    if len(found) < len(rows):
        raise RequestError(f"the labels file {path} lists an image twice: leave one line of each")
    _refuse_running_numbers(rows, path)
    return found


def _entry(row: list[str], path: Path, line: int) -> tuple[int, str]:
    number = number_of(row[0])
    if number is None or len(row) < 2:
        raise _wrong(path, line, " ".join(row))
    return number, _wnid(row[1], path, line)


def _id(text: str, path: Path, line: int) -> str:
    """The WordNet id on a line without a file name.

    A number is refused there: the development kit's own list holds numbers, in another order.
    """
    if text not in class_index():
        raise _wrong(path, line, text)
    return text


def _wnid(text: str, path: Path, line: int) -> str:
    if text in class_index():
        return text
    if text.isdecimal() and int(text) < len(synsets()):
        return synsets()[int(text)]
    raise _wrong(path, line, text)


def _refuse_running_numbers(rows: list[tuple[int, list[str]]], path: Path) -> None:
    """Raise RequestError for files such as Kaggle's ImageSets/CLS-LOC/val.txt.

    That file gives each image its own file number, which is not a class.
    """
    if len(rows) > 1 and all(
        row[1].isdecimal() and number_of(row[0]) == int(row[1]) for _, row in rows
    ):
        raise RequestError(
            f"the labels file {path} numbers the images and names no class: {_FORMAT}"
        )


def _wrong(path: Path, line: int, text: str) -> RequestError:
    return RequestError(f"line {line} of the labels file {path} is {text[:80]!r}: {_FORMAT}")
