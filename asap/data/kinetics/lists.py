"""Lists of clips: annotations that name a class, and paths with the number of a class.

    annotations   label,youtube_id,time_start,time_end[,split,...] with this header (DeepMind, CVDF)
    paths         <path> <label>, separated by spaces, a tab or a comma (PySlowFast, mmaction2); the
                  label counts the sorted class names from 0

Clips are found by their names, so the folders and extensions in a list of paths need not be those
of the files. A class folder in such a path is compared with the label.
"""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from asap.data.images.folder import printable
from asap.data.kinetics.names import Classes, clip_name, clip_of
from asap.errors import RequestError

_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_FORMAT = (
    "expected CVDF's annotations with the header label,youtube_id,time_start,time_end,split, or "
    "lines such as 'val/abseiling/0347ZoDXyP0_000095_000105.mp4 0'"
)
_SPLITS = {
    "validation": ("", "val", "validate", "validation"), "train": ("", "train", "training"),
}  # fmt: skip
_LINE = re.compile(r"(.+?)\s*[\s,;]\s*([^\s,;]+)")
_MORE = re.compile(r".*[\s,;]-?\d+", re.DOTALL)  # a path that still ends with a number


class Listed(NamedTuple):
    """A clip in a list: its canonical name, its class, the line."""

    clip: str
    label: int
    line: int


@dataclass(frozen=True)
class ClipList:
    """A list. annotations: True if it names classes by their names."""

    path: Path
    clips: Sequence[Listed]
    annotations: bool


def read_list(path: Path, split: str, classes: Classes, roots: Sequence[Path]) -> ClipList:
    """Read the clips of a split from a list of either kind.

    roots: the folders to which its paths may be relative; the first contains all that may be read.
    Raises RequestError on a file that is no list, an unknown class, a label out of range or against
    the class folder in its path, a clip that is listed twice, and a path that leaves the root.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise RequestError(f"the list {path} cannot be read ({reason}): {_FORMAT}") from None
    lines = text.splitlines()
    head = [word.strip().strip('"').lower() for word in (lines[0] if lines else "").split(",")]
    annotations = "youtube_id" in head
    try:
        clips = list(
            _annotated(lines, head, path, split, classes) if annotations
            else _paths(lines, path, classes, roots)
        )  # fmt: skip
    except csv.Error as error:
        raise RequestError(f"the list {path} is damaged ({error}): {_FORMAT}") from None
    if not clips:
        raise RequestError(f"the list {path} names no clip of data.split={split}: {_FORMAT}")
    _refuse_twice(clips, path)
    return ClipList(path, clips, annotations)


def _annotated(
    lines: list[str], head: list[str], path: Path, split: str, classes: Classes
) -> Iterator[Listed]:
    """The annotated clips of the split; rows of other splits are passed over."""
    if lacking := [name for name in _COLUMNS if name not in head]:
        raise RequestError(f"the annotations {path} have no column {lacking[0]!r}: {_FORMAT}")
    rows = csv.DictReader(lines[1:], head)
    for row in rows:
        line = rows.line_num + 1
        if (row.get("split") or "").strip().lower() not in _SPLITS[split]:
            continue
        try:
            start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
            name, video = row["label"].strip(), row["youtube_id"].strip()
        except (TypeError, ValueError, OverflowError, AttributeError):
            raise _wrong(path, line, lines[line - 1]) from None
        if not video or "/" in video or min(start, end) < 0:
            raise _wrong(path, line, lines[line - 1])
        label = classes.label(name)
        if label is None:
            raise RequestError(
                f"line {line} of the annotations {path} has the class {name!r}, which is none of "
                f"{classes.which}: give the model's classes with data.classes"
            )
        yield Listed(clip_name(video, start, end), label, line)


def _paths(
    lines: list[str], path: Path, classes: Classes, roots: Sequence[Path]
) -> Iterator[Listed]:
    """The clips of lines `<path> <label>`."""
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        found = _LINE.fullmatch(text.strip())
        if found is None or not re.fullmatch(r"-?\d+", found[2], re.ASCII):
            raise _wrong(path, line, text)
        file, label = found[1].strip("\"'"), int(found[2])
        if _MORE.fullmatch(file.rsplit("/", 1)[-1]):
            raise RequestError(
                f"line {line} of the list {path} has a second number, as lists of extracted frames "
                "do: give a list of video files, with lines '<path> <label>'"
            )
        if not 0 <= label < len(classes.names):
            raise RequestError(
                f"line {line} of the list {path} has the label {label}, and {classes.which} have "
                f"the labels 0 to {len(classes.names) - 1}: for other classes give data.classes"
            )
        inside = _inside(file, roots, path, line)
        _check_order(classes, classes.folder_label(inside), label, f"line {line} of {path}")
        yield Listed(printable(clip_of(inside)), label, line)


def _inside(file: str, roots: Sequence[Path], path: Path, line: int) -> str:
    """The path relative to a root; RequestError if it leaves the first root."""
    if not file.startswith(("/", "~")) and ".." not in file:  # most lists
        return file
    for real in (os.path.abspath, os.path.realpath):  # the folder may be a link, or listed as one
        top = real(roots[0])
        for root in roots:
            folder, name = os.path.split(root / file)
            there = real(folder)
            if f"{there}{os.sep}".startswith(f"{top}{os.sep}") and not file.startswith("~"):
                return os.path.relpath(f"{there}{os.sep}{name}", top)
    raise RequestError(
        f"line {line} of the list {path} has the path {file!r}, which lies outside data.path="
        f"{roots[0]}: give the folder that holds all clips as data.path, and paths relative to it"
    )


def _check_order(classes: Classes, folder: int | None, label: int, where: str) -> None:
    """RequestError if a list counts the classes in another order than the class folders show."""
    if folder not in (None, label):
        raise RequestError(
            f"{where} gives a clip in the folder of {classes.names[folder]!r} the label {label}, "
            f"which is {classes.names[label]!r} among {classes.which}: the list counts its classes "
            "in another order; give that order with data.classes=<file of class names>"
        )


def check_folder(listed: ClipList, one: Listed, file: str, classes: Classes) -> None:
    """RequestError if a listed clip lies in the folder of another class."""
    where = f"line {one.line} of {listed.path}"
    folder = classes.folder_label(file)
    if not listed.annotations:
        return _check_order(classes, folder, one.label, where)
    if folder not in (None, one.label):
        raise RequestError(
            f"{where} says {classes.names[one.label]!r} of {file}: move the clip into that class's "
            "folder, or give the right list as data.labels"
        )
    return None


def _refuse_twice(clips: Sequence[Listed], path: Path) -> None:
    first: dict[str, int] = {}
    for clip, _, line in clips:
        if (before := first.setdefault(clip, line)) != line:
            raise RequestError(
                f"the list {path} names the clip {clip} twice, in lines {before} and {line}: leave "
                "one of them"
            )


def _wrong(path: Path, line: int, text: str) -> RequestError:
    return RequestError(f"line {line} of the list {path} is {text[:80]!r}: {_FORMAT}")
