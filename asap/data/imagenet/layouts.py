"""The four common layouts of ImageNet's validation set, recognised by their files.

    folders   <root>/val/<wnid>/*.JPEG, or the val folder itself
    flat      ILSVRC2012_val_*.JPEG in one folder, with the devkit or a labels file
    tar       ILSVRC2012_img_val.tar, with the devkit or a labels file beside it
    parquet   a Hugging Face imagenet-1k snapshot: data/validation-*.parquet

All four give the same canonical paths in the same order, and so the same ids, digests and records.
If several are present, the first in this list is read.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from asap.data.imagenet.arrange import Labels, arrange, by_number, find_labels, refuse_twice
from asap.data.imagenet.names import canonical, number_of, synsets, wnid_in
from asap.data.imagenet.parquet import ParquetSource
from asap.data.imagenet.tar import TarSource
from asap.data.images.folder import folder_source
from asap.data.images.formats import ending_of
from asap.data.images.left_out import is_rubbish
from asap.data.images.listing import list_folder, list_pictures
from asap.data.images.source import FileSource, Source
from asap.data.natural_order import in_order
from asap.errors import RequestError

LAYOUTS = (
    "set IMAGENET (or data.path) to one of: a folder with val/<wnid>/*.JPEG; a folder of "
    "ILSVRC2012_val_*.JPEG with the devkit or a labels file; ILSVRC2012_img_val.tar with the same; "
    "a Hugging Face imagenet-1k snapshot with data/validation-*.parquet"
)
ARCHIVE = "ILSVRC2012_img_val.tar"
_BEGINNING = "ilsvrc2012_val_"  # of the names of flat files
# Where images may be below the given folder. The last two are the folders of Kaggle's archive.
_INSIDE = (
    "val",
    "",
    "validation",
    "ILSVRC2012_img_val",
    "Data/CLS-LOC/val",
    "ILSVRC/Data/CLS-LOC/val",
)
_SHARDS = ("", "data", "snapshots/*/data")  # the last one is the layout of a hub cache


@dataclass(frozen=True)
class Layout:
    """How the set is stored: `kind` is folders, flat, tar or parquet; `place` the path to read."""

    kind: str
    place: Path
    files: tuple[Path, ...] = ()  # the shards of a Parquet snapshot


def recognise(root: str | Path | None) -> Layout:
    """The layout at `root`. If there is none, a RequestError names all four."""
    if root is None or not str(root):
        raise RequestError(f"no folder is given for ImageNet: {LAYOUTS}")
    root = Path(root)
    if root.is_file() and root.suffix == ".tar":
        return Layout("tar", root)
    if root.is_file() and root.suffix == ".parquet":
        return Layout("parquet", root.parent, (root,))
    if not root.is_dir():
        raise RequestError(f"{root} is not a folder: {LAYOUTS}")
    return next(_layouts(root))


def _layouts(root: Path) -> Iterator[Layout]:
    """The layouts found below `root`, best first.

    The last one is a fallback: opening it raises an error that names the folder.
    """
    folders = [root / inside for inside in _INSIDE if (root / inside).is_dir()]
    yield from (Layout("folders", folder) for folder in folders if _has_classes(folder))
    yield from (Layout("flat", folder) for folder in folders if _flat_files(folder))
    archives = [folder / ARCHIVE for folder in folders]
    yield from (Layout("tar", archive) for archive in archives if archive.is_file())
    for pattern in _SHARDS:
        if files := _once(root.glob(f"{pattern}/validation-*.parquet".lstrip("/"))):
            yield Layout("parquet", files[0].parent, files)
    yield Layout("folders", folders[0])


def _once(files: Iterable[Path]) -> tuple[Path, ...]:
    """The files sorted by name, each once: two snapshots in a hub cache link to the same files."""
    return tuple(sorted({file.resolve(): file for file in sorted(files, reverse=True)}.values()))


def _has_classes(folder: Path) -> bool:
    """True if a sub-folder's name is a WordNet id."""
    with os.scandir(folder) as entries:
        return any(re.fullmatch(r"n\d{8}", entry.name) and entry.is_dir() for entry in entries)


def open_layout(layout: Layout, root: Path, labels: str | None) -> Source:
    """The images of a layout.

    `labels`: path of a devkit or labels file; None to look for one near the images.
    """
    near = [layout.place if layout.kind == "flat" else layout.place.parent]
    near = [*near, *near[0].parents[:1], root if root.is_dir() else root.parent]
    if layout.kind == "flat":
        return _flat_source(layout.place, find_labels(near, labels))
    if layout.kind == "tar":
        return TarSource(layout.place, find_labels(near, labels))
    if labels is not None:
        raise RequestError(
            f"data.labels={labels!r} is not needed: {layout.place} has its labels: leave it null"
        )
    if layout.kind == "parquet":
        return ParquetSource(layout.files)
    return _folders(layout.place)


def _folders(folder: Path) -> FileSource:
    """The class folders, with canonical file names for files that are validation images."""
    _refuse_unsorted(folder)
    source, _ = folder_source(folder, synsets(), LAYOUTS)
    paths = [canonical(path) for path in source.paths]
    refuse_twice(paths, folder)
    # If no name changed, the files are in order already; sorting 50,000 paths takes time.
    order = range(len(paths)) if paths == source.paths else in_order(paths)
    return FileSource(
        folder,
        [source.files[i] for i in order],
        [paths[i] for i in order],
        [source.labels[i] for i in order],
        source.files_left_out,
    )


def _refuse_unsorted(folder: Path) -> None:
    """Refuse a set of which only some images are sorted into class folders.

    It would be scored as a part of the whole set. Unsorted copies of sorted images are allowed,
    since then no image is lost.
    """
    beside = _flat_files(folder)
    sorted_in = {number_of(file) for file in list_pictures(folder).files} if beside else set()
    if lost := sorted(name for name in beside if number_of(name) not in sorted_in):
        raise RequestError(
            f"{len(lost):,} validation images, such as {lost[0]}, lie in {folder} beside the class "
            "folders and in none of them: sort them into their class folders, or move them away"
        )


# ---- flat files


def _flat_files(folder: Path) -> list[str]:
    """Names of the validation images directly in a folder."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    return [name for name in names if number_of(name) is not None and not is_rubbish(name)]


def _flat_source(folder: Path, labels: Labels) -> FileSource:
    """The images with their classes, in canonical order. RequestError if one has no label."""
    found = list_folder(folder, lambda name: name.lower().startswith(_BEGINNING))
    numbered = []
    for name in found.files:
        if (number := number_of(name)) is None:
            found.left_out.add(name, ending_of(name))
        else:
            numbered.append((number, name))
    places = by_number(numbered, folder)
    own = {number: wnid for number, name in places.items() if (wnid := wnid_in(name))}
    known = arrange(places, labels, own)
    found.left_out.tell_second_names(folder)
    left = found.left_out.summary
    return FileSource(folder, known.places, known.paths, known.labels, left)
