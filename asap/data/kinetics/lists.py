"""Lists of clips: annotations that name a class, and paths with the number of a class.

    annotations   label,youtube_id,time_start,time_end[,split,...] with this header (DeepMind, CVDF)
    paths         <path> <label>, separated by spaces, a tab or a comma (PySlowFast, mmaction2); the
                  label counts the sorted class names from 0, or after a comma or a tab is a class
                  name; a header `path,label` may stand above

Clips are found by their names, so the folders and extensions in a list of paths need not be those
of the files. Labels are compared with class folders and with annotations beside the list, since a
wrong order would not be seen: UniFormer's list has an order of its own, as lists of subsets have.
"""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from asap.data.images.folder import printable
from asap.data.kinetics.names import Classes, clip_name, clip_of, plain, video_of
from asap.errors import RequestError

_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_FORMAT = (
    "expected CVDF's annotations with the header label,youtube_id,time_start,time_end,split, or "
    "lines such as 'val/abseiling/0347ZoDXyP0_000095_000105.mp4 0'"
)
_ORDER = (
    "the list counts its classes in another order; give that order with data.classes=<file of "
    "class names>, or if it only counts from 1, take 1 from its labels"
)
_SPLITS = {
    "validation": ("", "val", "validate", "validation"), "train": ("", "train", "training"),
}  # fmt: skip
_LINE = re.compile(r"(.+?)\s*[\s,;]\s*([^\s,;]+)")
_NAMED = re.compile(r"(.+?)\s*[,;\t]\s*([^,;\t]+)")
_HEADER = re.compile(r"[\w ]+[\s,;](label|class|tag)", re.IGNORECASE)
_MORE = re.compile(r".*[\s,;]-?\d+", re.DOTALL)  # a path that still ends with a number


class Listed(NamedTuple):
    """A clip in a list: its canonical name, its class, the line."""

    clip: str
    label: int
    line: int


@dataclass(frozen=True)
class ClipList:
    """A list.

    annotations: True if it names classes by their names. confirmed: True if it does, or if a class
    folder in its paths or annotations beside it agree with its labels.
    """

    path: Path
    clips: Sequence[Listed]
    annotations: bool
    confirmed: bool


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
    head = _head(lines[0] if lines else "")
    annotations = "youtube_id" in head
    confirmed = annotations
    try:
        if annotations:
            clips = list(_annotated(lines, head, path, split, classes))
        elif text.lstrip().startswith("{"):
            raise RequestError(f"the list {path} is JSON: give the .csv of the same annotations")
        else:
            clips, confirmed = _paths(lines, path, classes, roots)
    except csv.Error as error:
        raise RequestError(f"the list {path} is damaged ({error}): {_FORMAT}") from None
    if not clips:
        raise RequestError(f"the list {path} names no clip of data.split={split}: {_FORMAT}")
    _refuse_twice(clips, path)
    return ClipList(path, clips, annotations, confirmed)


def is_annotations(path: Path) -> bool:
    """True if a file can be read and has the header of annotations."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return set(_COLUMNS) <= set(_head(file.readline()))
    except OSError:
        return False


def compared(listed: ClipList, beside: Path, split: str, classes: Classes) -> ClipList:
    """A list of paths, confirmed if annotations beside it have one of its clips.

    Classes of data.classes that the annotations do not have are not compared, since they may be of
    another kind, such as "sport". Raises RequestError if the annotations give a clip another class,
    or if they are damaged.
    """
    lines = beside.read_text("utf-8-sig", errors="replace").splitlines()
    try:
        rows = [row for row in _rows(lines, _head(lines[0]), beside, split) if row[1]]
    except csv.Error as error:
        raise RequestError(f"the annotations {beside} are damaged ({error}): {_FORMAT}") from None
    names: dict[str, str | None] = {}
    for clip, name, _ in rows:
        for key in (clip, video_of(clip)):  # a video of several classes has no name of its own
            names[key] = name if names.get(key, name) == name else None
    confirmed, annotated = listed.confirmed, {plain(name) for _, name, _ in rows}
    for one in listed.clips:
        if (name := names.get(one.clip)) is None:
            continue
        if (label := classes.label(name)) != one.label:
            if label is None and plain(classes.names[one.label]) not in annotated:
                continue
            raise RequestError(
                f"line {one.line} of {listed.path} gives {one.clip} the label {one.label}, which "
                f"is {classes.names[one.label]!r} among {classes.which}, and {beside} says "
                f"{name!r}: {_ORDER}"
            )
        confirmed = True
    return replace(listed, confirmed=confirmed)


def refuse_unconfirmed(listed: ClipList) -> None:
    """RequestError: the labels of a list could be those of any order of the classes."""
    raise RequestError(
        f"the list {listed.path} gives classes by number alone, and no class folders or "
        "annotations show the order, which is not the alphabetical one in all lists: put "
        "annotations such as val.csv or train.csv beside the clips, or give the order with "
        "data.classes=<file of class names>, or data.classes=sorted if it is the "
        "alphabetical one of all 400"
    )


def _head(line: str) -> list[str]:
    return [word.strip().strip('"').lower() for word in line.split(",")]


def _annotated(
    lines: list[str], head: list[str], path: Path, split: str, classes: Classes
) -> Iterator[Listed]:
    """The annotated clips of the split with their labels."""
    for clip, name, line in _rows(lines, head, path, split):
        label = classes.label(name)
        if label is None:
            raise RequestError(
                f"line {line} of the annotations {path} has the class {name!r}, which is none of "
                f"{classes.which}: give the model's classes with data.classes"
            )
        yield Listed(clip, label, line)


def _rows(
    lines: list[str], head: list[str], path: Path, split: str
) -> Iterator[tuple[str, str, int]]:
    """The annotated clips of the split, the names of their classes, their lines.

    Rows of other splits are passed over.
    """
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
        yield clip_name(video, start, end), name, line


def _paths(
    lines: list[str], path: Path, classes: Classes, roots: Sequence[Path]
) -> tuple[list[Listed], bool]:
    """The clips of lines `<path> <label>`, and whether a line names its class."""
    clips, confirmed = [], False
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        if line == 1 and _HEADER.fullmatch(text.strip()):
            continue
        file, label, named = _path_and_label(text.strip(), classes) or ("", None, False)
        if label is None:
            raise _wrong(path, line, text)
        if _MORE.fullmatch(file.rsplit("/", 1)[-1]):
            raise RequestError(
                f"line {line} of the list {path} has a second number, as lists of extracted frames "
                "do: give a list of video files, with lines '<path> <label>'"
            )
        if not 0 <= label < len(classes.names):
            raise RequestError(
                f"line {line} of the list {path} has the label {label}, and {classes.which} have "
                f"the labels 0 to {len(classes.names) - 1}: "
                + ("lists of the test split have no labels, so give that of another split"
                   if label < 0 else "for other classes give data.classes")
            )  # fmt: skip
        inside = _inside(file, roots, path, line)
        folder = classes.folder_label(inside)
        _check_order(classes, folder, label, f"line {line} of {path}")
        confirmed |= named or folder is not None
        clips.append(Listed(printable(clip_of(inside)), label, line))
    return clips, confirmed


def _path_and_label(text: str, classes: Classes) -> tuple[str, int, bool] | None:
    """The path and the label in a line, and whether the label is given by its class's name."""
    found = _LINE.fullmatch(text)
    if found is not None and re.fullmatch(r"-?\d+", found[2], re.ASCII):
        return found[1].strip("\"'"), int(found[2]), False
    found = _NAMED.fullmatch(text)
    label = None if found is None else classes.label(found[2])
    return None if found is None or label is None else (found[1].strip("\"'"), label, True)


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
            f"which is {classes.names[label]!r} among {classes.which}: {_ORDER}"
        )


def check_folder(listed: ClipList, one: Listed, file: str, classes: Classes) -> bool:
    """True if a listed clip lies in its class's folder. RequestError if in that of another one."""
    where = f"line {one.line} of {listed.path}"
    folder = classes.folder_label(file)
    if not listed.annotations:
        _check_order(classes, folder, one.label, where)
    elif folder not in (None, one.label):
        raise RequestError(
            f"{where} says {classes.names[one.label]!r} of {file}: move the clip into that class's "
            "folder, or give the right list as data.labels"
        )
    return folder is not None


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
