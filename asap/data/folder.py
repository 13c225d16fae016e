"""Any folder of labelled pictures: one sub-folder per class."""

import os
from collections.abc import Sequence
from pathlib import Path

from asap.data.base import PatchGrid, Transform
from asap.data.listing import HIDDEN, SECOND, LeftOut, class_folders, list_pictures, said, summed
from asap.data.pictures import Pictures
from asap.data.source import FileSource
from asap.errors import RequestError
from asap.runs.paths import given_path

_HINT = "expected one sub-folder for each class of the model, with pictures in it"


class ImageFolder(Pictures):
    """`<root>/<class>/**/<picture>`, in natural order of the relative paths.

    `classes` gives the model's classes in order; not all need be there. Without it, the sub-folder
    names in natural order are the classes, as in timm's training. What is left out, and why, says
    `asap/data/listing.py`. Raises `RequestError` on a missing or empty folder and on one that fits
    no class.
    """

    def __init__(
        self,
        root: str | Path,
        transform: Transform,
        patch_grid: PatchGrid | None = None,
        *,
        classes: Sequence[str] | None = None,
        name: str = "folder",
    ):
        self.root = Path(given_path("data.path", str(root)))
        source, found = folder_source(self.root, classes, _HINT)
        where = printable(self.root.resolve().name)
        about = f"image folder {where}, {len(source.labels):,} images of {len(found):,} classes"
        super().__init__(source, transform, patch_grid, name=name, classes=found, about=about)


def folder_source(
    root: Path, classes: Sequence[str] | None, hint: str
) -> tuple[FileSource, tuple[str, ...]]:
    """The files of a folder with one sub-folder per class, and the classes.

    Raises `RequestError`, which ends with `hint`, as `ImageFolder` does.
    """
    folders = _folders(root, classes, hint)  # before all files are listed, which may take minutes
    found = list_pictures(root)
    files = found.files
    _refuse_emptied(root, folders, files, found.left_out)
    if not files:
        raise RequestError(f"{root} holds no image: {hint}")
    names = tuple(_named_by(root, folders, files) if classes is None else classes)
    label_of = {name: label for label, name in enumerate(names)}
    labels = [label_of[class_of(file)] for file in files]
    paths = [printable(file) for file in files]
    return FileSource(root, files, paths, labels, found.left_out.summary), names


def _folders(root: Path, classes: Sequence[str] | None, hint: str) -> list[str]:
    """The class folders, all of them among `classes` if these are given."""
    if not root.is_dir():
        raise RequestError(f"{root} is not a folder: {hint}")
    folders = class_folders(root)
    known = set(folders if classes is None else classes)
    if unknown := [name for name in folders if name not in known]:
        raise RequestError(
            f"{root} has the folder {unknown[0]!r}, which is none of the "
            f"{len(known):,} classes: {hint}"
        )
    return folders


def _named_by(root: Path, folders: list[str], files: list[str]) -> list[str]:
    """Folder names as classes. Whether an empty one counts is a guess that shifts labels."""
    filled = {class_of(file) for file in files}
    if empty := [name for name in folders if name not in filled]:
        raise RequestError(
            f"{root} has the folder {empty[0]!r} without an image: "
            "remove it or give the list of classes"
        )
    return folders


def _refuse_emptied(root: Path, folders: list[str], files: list[str], left: LeftOut) -> None:
    """RequestError on a class folder with files none of which is a picture to be evaluated."""
    filled = {class_of(file) for file in files}
    for name in folders:
        lost = {kind: n for kind, n in left.of_class[name].items() if kind != HIDDEN}
        if name in filled or not lost:
            continue
        if set(lost) == {SECOND}:
            second, first = next(p for p in left.twice if class_of(p[0]) == name)
            raise RequestError(
                f"{root} has the folder {name!r} without an image of its own: {second} is a second "
                f"name of {first}, and a picture counts once: remove one of the two names"
            )
        raise RequestError(
            f"{root} has the folder {name!r} without an image that can be read, and with "
            f"{said(summed(lost))}: convert these to JPEG or PNG, or remove the folder"
        )


def class_of(file: str) -> str:
    """The class folder of a relative path."""
    return file.split("/", 1)[0]


def printable(file: str) -> str:
    """A file name as valid Unicode, whatever bytes the file system holds."""
    if file.isascii():  # nearly all: then one string is kept for the file and its name
        return file
    return os.fsencode(file).decode("utf-8", "backslashreplace")
