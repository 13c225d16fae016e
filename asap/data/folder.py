"""Any folder of labelled pictures: one sub-folder per class."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from asap.data.base import PatchGrid, Transform
from asap.data.order import natural_key
from asap.data.pictures import Pictures
from asap.data.source import FileSource
from asap.errors import RequestError

EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # in either case
_HINT = "expected one sub-folder for each class of the model, with pictures in it"


class ImageFolder(Pictures):
    """`<root>/<class>/**/<picture>`, in natural order of the relative paths.

    `classes` gives the model's classes in order; not all need be there. Without it, the sub-folder
    names in natural order are the classes, as in timm's training. Hidden files and folders are
    left out. Raises `RequestError` on a missing or empty folder and on one that fits no class.
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
        self.root = Path(root)
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
    files = list_images(root)
    if not files:
        raise RequestError(f"{root} holds no image: {hint}")
    names = tuple(_named_by(root, folders, files) if classes is None else classes)
    label_of = {name: label for label, name in enumerate(names)}
    labels = [label_of[class_of(file)] for file in files]
    return FileSource(root, files, [printable(file) for file in files], labels), names


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


def list_images(root: Path) -> list[str]:
    """Relative paths of the pictures in the sub-folders of `root`, with "/", in natural order."""
    return sorted(_walk(root), key=natural_key)


def _walk(root: Path) -> Iterator[str]:
    # Links are followed: large sets are often laid out as links into another disk.
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(folder).relative_to(root)
        for name in files if inside.parts else ():
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield (inside / name).as_posix()


def class_folders(root: Path) -> list[str]:
    """Names of the sub-folders of `root` in natural order, without hidden ones."""
    _, names, _ = next(os.walk(root, onerror=refuse))
    return sorted((name for name in names if not name.startswith(".")), key=natural_key)


def class_of(file: str) -> str:
    """The class folder of a relative path."""
    return file.split("/", 1)[0]


def printable(file: str) -> str:
    """A file name as valid Unicode, whatever bytes the file system holds."""
    if file.isascii():  # nearly all: then one string is kept for the file and its name
        return file
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def refuse(error: OSError) -> NoReturn:
    """Without it a folder that may not be read would silently count as empty."""
    raise RequestError(f"{error.filename} cannot be read ({error.strerror}): make it readable")
