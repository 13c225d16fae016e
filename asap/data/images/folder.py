"""Any folder of labelled pictures: one sub-folder per class."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asap.data.base import PatchGrid, Transform
from asap.data.images.classes import ORDERS, ClassMap, by_list, by_name
from asap.data.images.classes_file import read_classes
from asap.data.images.file_options import FileOptions
from asap.data.images.image_files import ImageFiles
from asap.data.images.left_out import HIDDEN, SECOND, LeftOut, summed
from asap.data.images.listing import class_folders, list_pictures
from asap.data.images.source import FileSource
from asap.data.options import Opening
from asap.errors import RequestError, counted
from asap.records.files_left_out import counts_in_words
from asap.spec.check import one_of
from asap.spec.paths import PathText, given_path

SCORED = ("all", "subset")
_HINT = "expected one sub-folder for each class of the model, with pictures in it"


@dataclass(frozen=True)
class FolderOptions(FileOptions):
    """Which class a folder is, and which logits are compared, see `ImageFolder`.

    classes: a file that lists the model's classes in order, see classes_file.py. class_order:
    sorted | natural. scored: all | subset. Raises RequestError on other values, and on both a list
    and an order.
    """

    classes: PathText | None = None
    class_order: str = "sorted"
    scored: str = "all"

    def __post_init__(self) -> None:
        one_of("data.class_order", self.class_order, ORDERS)
        one_of("data.scored", self.scored, SCORED)
        if self.class_order != "sorted" and self.classes is not None:
            raise RequestError(
                f"data.class_order={self.class_order} and data.classes={self.classes!r} both give "
                "an order: leave one of them out"
            )

    def files(self, opening: Opening) -> "ImageFolder":
        if opening.spec.path is None:
            raise RequestError("data.path is missing: give the folder with a sub-folder per class")
        return ImageFolder(
            opening.spec.path,
            opening.transform,
            opening.patch_grid,
            classes=None if self.classes is None else read_classes(self.classes),
            subset=True,
            order=self.class_order,
            outputs=opening.outputs,
            scored=self.scored,
        )


class ImageFolder(ImageFiles):
    """`<root>/<class>/**/<picture>`, in natural order of the relative paths.

    The classes are the sub-folder names in `order`: "sorted" as in torchvision, or "natural".
    `classes` gives the model's classes instead, in order; not all of them need a folder. Folders
    that are not among them are refused, or left out if `subset` is true. `listing.py` decides which
    files are pictures.

    outputs: the number of the model's classes, if known; with 1,000, folders named by WordNet ids
    are taken as some of ImageNet's classes. scored: "all" compares the logits of all classes,
    "subset" only those of classes with pictures. Raises `RequestError` on a missing or empty folder
    and on one that fits no class.
    """

    def __init__(
        self,
        root: str | Path,
        transform: Transform,
        patch_grid: PatchGrid | None = None,
        *,
        classes: Sequence[str] | None = None,
        subset: bool = False,
        order: str = "sorted",
        outputs: int | None = None,
        scored: str = "all",
    ):
        self.root = Path(given_path("data.path", str(root)))
        folders = _folders(self.root, None if subset else classes, _HINT)
        # Which folder is which class of the model; then the files of these folders.
        if classes is None:
            known = by_name(folders, order, outputs, self.root)
        else:
            known = by_list(folders, classes, outputs, self.root)
        source = _source(self.root, known.label_of, _HINT, bool(known.left_out))
        if classes is None:
            _refuse_empty(self.root, known.label_of, source)
        present = tuple(sorted(set(source.labels)))
        if scored == "subset" and len(present) < 2:
            raise RequestError(
                f"data.scored=subset leaves {len(present)} class with pictures in {self.root}: "
                "give two classes or more, or data.scored=all"
            )
        some = scored == "subset" and len(present) < len(known.names)
        super().__init__(
            source, transform, patch_grid, name="folder",
            classes=[printable(one) for one in known.names],
            about=_about(self.root, source, known, order, some),
            scored=present if some else None,
        )  # fmt: skip


def _about(root: Path, source: FileSource, known: ClassMap, order: str, some: bool) -> str:
    """The description: number of pictures and classes, and which classes are scored."""
    total, present = len(known.names), len(set(source.labels))
    classes = f"{total:,} classes" if present == total else f"{present:,} of the {total:,} classes"
    if known.imagenet:
        classes = f"{present:,} classes of ImageNet-1k"
    parts = [
        f"image folder {printable(root.resolve().name)}",
        f"{counted(len(source.labels), 'image')} of {classes}",
    ]
    if left_out := len(known.left_out):
        parts.append(f"{counted(left_out, 'other folder')} left out")
    if list(known.names) != sorted(known.names):
        parts.append(f"classes in {'natural order' if order == 'natural' else 'a given order'}")
    if some or present < total:
        parts.append(f"scored over {f'these {present:,} alone' if some else f'all {total:,}'}")
    return ", ".join(parts)


def folder_source(
    root: Path, classes: Sequence[str], hint: str
) -> tuple[FileSource, tuple[str, ...]]:
    """The files of a folder with one sub-folder per class, and the classes.

    Raises `RequestError` in the same cases as `ImageFolder`; its text ends with `hint`.
    """
    _folders(root, classes, hint)  # checked before listing all files, which may take minutes
    label_of = {name: label for label, name in enumerate(classes)}
    return _source(root, label_of, hint), tuple(classes)


def _source(root: Path, label_of: Mapping[str, int], hint: str, some: bool = False) -> FileSource:
    """The files of the class folders; if `some` is true, only of the folders with a label."""
    found = list_pictures(root, label_of.keys() if some else None)
    files = found.files
    found.left_out.tell_second_names(root)
    _refuse_emptied(root, label_of, files, found.left_out)
    if not files:
        raise RequestError(f"{root} holds no image: {hint}")
    labels = [label_of[class_of(file)] for file in files]
    paths = [printable(file) for file in files]
    return FileSource(root, files, paths, labels, found.left_out.summary)


def _refuse_empty(root: Path, label_of: Mapping[str, int], source: FileSource) -> None:
    """Refuse an empty class folder when folder names are the classes.

    If it were not a class after all, all labels after it would be shifted.
    """
    filled = {class_of(file) for file in source.files if file is not None}
    if empty := [name for name in label_of if name not in filled]:
        raise RequestError(
            f"{root} has the folder {empty[0]!r} without an image: "
            "remove it or give the list of classes with data.classes"
        )


def _folders(root: Path, classes: Sequence[str] | None, hint: str) -> list[str]:
    """The names of the class folders. RequestError if one is not among the given `classes`."""
    if not root.is_dir():
        raise RequestError(f"{root} is not a folder: {hint}")
    if not (folders := class_folders(root)):
        raise RequestError(f"{root} holds no image in a sub-folder: {hint}")
    known = set(folders if classes is None else classes)
    if unknown := [name for name in folders if name not in known]:
        raise RequestError(
            f"{root} has the folder {unknown[0]!r}, which is not one of the "
            f"{len(known):,} classes: {hint}"
        )
    return folders


def _refuse_emptied(root: Path, folders: Iterable[str], files: list[str], left: LeftOut) -> None:
    """RequestError if a class folder has files, but no picture that will be evaluated."""
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
            f"{counts_in_words(summed(lost))}: convert these to JPEG or PNG, or remove the folder"
        )


def class_of(file: str) -> str:
    """The class folder of a relative path."""
    return file.split("/", 1)[0]


def printable(file: str) -> str:
    """A file name as valid Unicode, even if the file system stores other bytes."""
    if file.isascii():  # the usual case; returning the same string saves memory
        return file
    return os.fsencode(file).decode("utf-8", "backslashreplace")
