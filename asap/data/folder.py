"""Any folder of labelled pictures: one sub-folder per class."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

from asap.data.base import PatchGrid, Sample, Transform
from asap.data.images import UnreadableImage, open_rgb
from asap.errors import RequestError

EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # in either case


class ImageFolder:
    """`<root>/<class>/**/<picture>`, in natural order of the relative paths.

    `classes` gives the model's classes in order; not all need be there. Without it, the sub-folder
    names in natural order are the classes, as in timm's training. Hidden files and folders are
    left out. Raises `RequestError` on a missing or empty folder and on one that fits no class.
    """

    clustered = False
    has_masks = False  # so `patch_grid`, which every data set takes, changes nothing
    _hint = "expected one sub-folder for each class of the model, with pictures in it"

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
        self.transform = transform
        self.name = name
        folders = self._folders(classes)  # before all files are listed, which may take minutes
        self._files = list_images(self.root)
        if not self._files:
            raise RequestError(f"{self.root} holds no image: {self._hint}")
        self.classes = tuple(self._named_by(folders) if classes is None else classes)
        label_of = {name: label for label, name in enumerate(self.classes)}
        self.labels = [label_of[class_of(file)] for file in self._files]

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def paths(self) -> list[str]:
        """The samples' paths, in order, without reading an image."""
        return [printable(file) for file in self._files]

    @property
    def description(self) -> str:
        where = printable(self.root.resolve().name)
        return f"image folder {where}, {len(self):,} images of {self.n_classes:,} classes"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the sorted relative paths with the files' sizes in bytes."""
        lines = (f"{printable(file)}\0{_size(self.root / file)}\n" for file in self._files)
        return sha256("".join(lines).encode()).hexdigest()

    @cached_property
    def label_digest(self) -> str:
        return sha256(" ".join(map(str, self.labels)).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> Sample:
        file, label = self._files[i], self.labels[i]
        path = printable(file)
        image, error = None, None
        try:
            image = self.transform(open_rgb(self.root / file))
        except UnreadableImage as reason:
            error = str(reason)
        return Sample(i, image_id(path), path, label, cluster=i, image=image, error=error)

    def check_present(self, i: int) -> None:
        """RequestError if the folder of image `i` is gone or empty: it was not when it was listed.

        A place where a disk was mounted stays there, empty.
        """
        folder = (self.root / self._files[i]).parent
        try:
            there = next(os.scandir(folder), None) is not None
        except OSError:
            there = False
        if not there:
            raise RequestError(
                f"{folder} has vanished while its images were read: make it available again, then "
                "run the same command, which continues"
            )

    def _folders(self, classes: Sequence[str] | None) -> list[str]:
        """The class folders, all of them among `classes` if these are given."""
        if not self.root.is_dir():
            raise RequestError(f"{self.root} is not a folder: {self._hint}")
        folders = class_folders(self.root)
        known = set(folders if classes is None else classes)
        if unknown := [name for name in folders if name not in known]:
            raise RequestError(
                f"{self.root} has the folder {unknown[0]!r}, which is none of the "
                f"{len(known):,} classes: {self._hint}"
            )
        return folders

    def _named_by(self, folders: list[str]) -> list[str]:
        """Folder names as classes. Whether an empty one counts is a guess that shifts labels."""
        filled = {class_of(file) for file in self._files}
        if empty := [name for name in folders if name not in filled]:
            raise RequestError(
                f"{self.root} has the folder {empty[0]!r} without an image: "
                "remove it or give the list of classes"
            )
        return folders


def list_images(root: Path) -> list[str]:
    """Relative paths of the pictures in the sub-folders of `root`, with "/", in natural order."""
    return sorted(_walk(root), key=natural_key)


def _walk(root: Path) -> Iterator[str]:
    # Links are followed: large sets are often laid out as links into another disk.
    for folder, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(folder).relative_to(root)
        for name in files if inside.parts else ():
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield (inside / name).as_posix()


def class_folders(root: Path) -> list[str]:
    """Names of the sub-folders of `root` in natural order, without hidden ones."""
    _, names, _ = next(os.walk(root, onerror=_refuse))
    return sorted((name for name in names if not name.startswith(".")), key=natural_key)


def class_of(file: str) -> str:
    """The class folder of a relative path."""
    return file.split("/", 1)[0]


def natural_key(text: str) -> tuple[list[int | str], str]:
    """Sort key that puts img2 before img10; names equal but for case or zeros stay apart."""
    parts = re.split(r"(\d+)", text.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], text


def image_id(path: str) -> int:
    """63 bits of the path's hash: the same image has the same id in every subset of the folder."""
    return int.from_bytes(sha256(path.encode()).digest()[:8], "big") >> 1


def printable(file: str) -> str:
    """A file name as valid Unicode, whatever bytes the file system holds."""
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def _size(path: Path) -> int:
    """Bytes, -1 for a dangling link, which stays listed and becomes an unreadable image."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _refuse(error: OSError) -> NoReturn:
    """Without it a folder that may not be read would silently count as empty."""
    raise RequestError(f"{error.filename} cannot be read ({error.strerror}): make it readable")
