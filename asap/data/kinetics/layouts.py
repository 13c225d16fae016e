"""The layouts of Kinetics-400, recognised by their files. All give the same clips and digests.

    CVDF           <root>/val/<id>_<start>_<end>.mp4, annotations/val.csv, replacement/...
    class folders  <root>/val/<class>/<clip>.mp4, also .mkv, .webm, .avi and others
    PySlowFast     val.csv with lines `<path> <label>`
    mmaction2      kinetics400_val_list_videos.txt with the same lines, videos_val/
    OpenDataLab    videos_val/ with class folders, or flat with a list; tar parts unpacked there

Two things decide: the folder of the split, and a list beside it. A list says which clips must
exist; without one, the class folders say what the clips are. For training clips `val` is `train`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from asap.data.images.entries import entries, of_a_tool
from asap.data.kinetics.lists import ClipList, compared, is_annotations, read_list
from asap.data.kinetics.names import Classes, is_clip
from asap.errors import RequestError

SPLITS = ("validation", "train")
LAYOUTS = (
    "set KINETICS (or data.path) to one of: a CVDF copy with val/ and annotations/val.csv; class "
    "folders val/<class name>/*.mp4; clips with PySlowFast's val.csv or mmaction2's "
    "kinetics400_val_list_videos.txt of lines '<path> <label>'; OpenDataLab's videos_val/ "
    "(scripts/prepare_kinetics.py checks it; train/, train.csv ... for training clips)"
)
_SHORT = {"validation": ("val", "validation", "validate"), "train": ("train", "training")}
_FOLDERS = (
    "{}", "videos_{}", "{}_256", "{}_320", "videos/{}", "clips/{}", "compress/{}_256", "k400_{}",
    "kinetics400_{}", "kinetics_400_{}", "kinetics-400_{}",
)  # fmt: skip
# A folder of archives' own that may lie between, as OpenDataLab's and mmaction2's.
_ABOVE = ("", "Kinetics-400", "kinetics400", "k400", "raw/Kinetics-400")
_LISTS = (
    "annotations/{}.csv", "{}.csv", "annotations/kinetics_{}.csv", "kinetics_{}.csv",
    "annotations/kinetics400_{}.csv", "kinetics400/{}.csv", "kinetics-400_{}.csv",
    "annotations/kinetics-400_{}.csv", "data/kinetics-400_{}.csv", "kinetics_400_{}.csv",
    "annotations/k400_{}.csv", "kinetics400_{}_list_videos.txt",
    "annotations/kinetics400_{}_list_videos.txt", "k400_{}_list_videos.txt",
    "kinetics400_{}_list.txt", "k400_{}_list.txt", "k400_{}.txt", "k400_{}.csv", "{}.txt",
    "{}_list.txt", "{}list.txt", "{}.list",
)  # fmt: skip
REPLACEMENTS = "replacement_for_corrupted_k400"


@dataclass(frozen=True)
class Layout:
    """How the clips of a split are stored.

    folder: the clips. listed: the list that says which clips must exist, None for class folders
    alone. replacements: a folder whose clips take the place of damaged ones, None without. shared:
    the clips of other splits lie in the same folder.
    """

    folder: Path
    listed: ClipList | None = None
    replacements: Path | None = None
    shared: bool = False

    @property
    def name(self) -> str:
        """The layout in words, for people."""
        if self.listed is None:
            return "class folders <class>/<clip>"
        kind = "annotations" if self.listed.annotations else "a list of paths and labels"
        return f"clips with {kind}, {self.listed.path}"


def recognise(
    root: str | Path | None,
    split: str,
    classes: Classes,
    labels: str | None = None,
    replacements: str | None = None,
    certain: bool = False,
) -> Layout:
    """The layout of a split's clips at `root`, with its list read.

    labels: the path of a list, None to look for one. replacements: the path of a folder, "off" for
    none, None to look for CVDF's. certain: `root` was given for this split, whatever its name.
    Raises RequestError if there is none (it names all layouts), if a given path does not exist, and
    as `read_list` does.
    """
    place = _place(root, split, labels, certain)
    listed, inside = None, place.clips != place.given and place.clips.is_relative_to(place.given)
    if place.found is not None:
        top = place.given if inside else _top(place.clips, place.found)
        listed = read_list(place.found, split, classes, [top, place.clips, place.found.parent])
        near = [*place.near, place.found.parent]
        beside = None if listed.annotations else next(_annotations(near, split), None)
        if beside is not None:
            listed = compared(listed, beside, split, classes)
    shared = place.clips == place.given and not certain and not _is_named(place.given, split)
    return Layout(place.clips, listed, _replacements(place.near, replacements), shared)


def is_stored(
    root: str | Path | None, split: str, labels: str | None = None, certain: bool = False
) -> bool:
    """True if there are clips of a split, as far as folders show it; their list is not read.

    Raises RequestError as `recognise` does if there is no such folder or list at all.
    """
    try:
        _place(root, split, labels, certain)
    except _NoClips:
        return False
    return True


class _NoClips(RequestError):
    """A folder has no clips of a split."""


class _Place(NamedTuple):
    """The folder that was given, that of the clips, their list, and where else to look."""

    given: Path
    clips: Path
    found: Path | None
    near: list[Path]


def _place(root: str | Path | None, split: str, labels: str | None, certain: bool) -> _Place:
    if root is None or not str(root):
        raise RequestError(f"no folder is given for Kinetics: {LAYOUTS}")
    given = Path(root)
    if not given.is_dir():
        more = "give the list as data.labels and the folder as data.path; " * given.is_file()
        raise RequestError(f"{given} is not a folder: {more}{LAYOUTS}")
    folder = _split_folder(given, split, certain)
    near = [given] if folder is None else list(dict.fromkeys([given, folder.parent, folder]))
    found = _given_list(labels, split) or next(_lists(near, split), None)
    # Copies of the validation clips have the lists of all splits.
    if folder is None and (found is None or (split == "train" and not _holds_clips(given))):
        raise _NoClips(f"{given} has no folder of {split} clips: {LAYOUTS}")
    return _Place(given, folder or given, found, near)


def _split_folder(given: Path, split: str, certain: bool) -> Path | None:
    """The folder of a split's clips: below the given one, or itself, or for training beside it."""
    own = _folder_names(split)
    below = (given / above / name for above in _ABOVE for name in own)
    if (found := next((place for place in below if _filled(place)), None)) is not None:
        return found
    if certain or _is_named(given, split):
        return given
    if _is_named(given, "train" if split == "validation" else "validation"):
        if split == "validation":
            raise RequestError(
                f"data.path={str(given)!r} is named as a folder of training clips: give the folder "
                "above it"
            )
        beside = (given.absolute().parent / name for name in own)
        return next((place for place in beside if _filled(place)), None)
    return given if split == "validation" and _holds_clips(given) else None


def _is_named(folder: Path, split: str) -> bool:
    """True if a folder's own name is one for the clips of a split."""
    return folder.absolute().name in {name.rsplit("/", 1)[-1] for name in _folder_names(split)}


def _folder_names(split: str) -> list[str]:
    """Relative paths at which the clips of a split lie in known copies, the best first."""
    return [form.format(short) for short in _SHORT[split] for form in _FOLDERS]


def _holds_clips(folder: Path) -> bool:
    """True if a folder has clips, or class folders with clips, directly in it."""
    names = {name for split in SPLITS for name in _folder_names(split)}
    for entry in entries(str(folder)):
        if is_clip(entry.name):
            return True
        if entry.name in names or of_a_tool(entry) or not entry.is_dir():
            continue
        if any(is_clip(inside.name) for inside in entries(entry.path)):
            return True
    return False


def _filled(place: Path) -> bool:
    """True if a folder exists and is not empty."""
    return place.is_dir() and next(place.iterdir(), None) is not None


def _given_list(labels: str | None, split: str) -> Path | None:
    if labels is None:
        return None
    option = "data.labels" if split == "validation" else "data.train_labels"
    if not Path(labels).is_file():
        raise RequestError(
            f"{option}={labels!r} is not a file: give annotations such as val.csv, or a list of "
            "lines '<path> <label>', or leave it null"
        )
    return Path(labels)


def _lists(near: list[Path], split: str) -> Iterator[Path]:
    """The lists of a split with a known name, the best first."""
    names = [form.format(short) for form in _LISTS for short in _SHORT[split]]
    for place in (folder / name for folder in near for name in names):
        if place.is_file():
            yield place


def _annotations(near: list[Path], split: str) -> Iterator[Path]:
    """The lists of a split with a known name that are annotations."""
    return (path for path in _lists(near, split) if is_annotations(path))


def _top(folder: Path, found: Path) -> Path:
    """The folder that the paths of a list may not leave, if the clips' folder itself is given.

    That is the folder above if the list lies there: its paths then begin with the folder's name.
    """
    above = folder.absolute().parent
    return above if found.absolute().is_relative_to(above) else folder


def _replacements(near: list[Path], given: str | None) -> Path | None:
    """The folder of replacements that is given, or CVDF's."""
    if given == "off":
        return None
    if given is not None:
        if not Path(given).is_dir():
            raise RequestError(
                f"data.replacements={given!r} is not a folder: give CVDF's {REPLACEMENTS}, off for "
                "none, or leave it null"
            )
        return Path(given)
    places = (folder / above / REPLACEMENTS for folder in near for above in ("replacement", ""))
    return next((place for place in places if _filled(place)), None)
