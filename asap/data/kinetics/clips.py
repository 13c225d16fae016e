"""The clips of a layout in canonical order, with their classes: what is listed meets what is there.

A clip's canonical path is `<class>/<YouTube id>_<start>_<end>`, without an extension, since a copy
may have another container for it. So every layout of the same clips has the same paths in the same
order, and with the same files the same ids, digests and records.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from asap.data.images.folder import printable
from asap.data.images.formats import FileKind
from asap.data.images.listing import list_files
from asap.data.images.source import FileSource
from asap.data.kinetics.layouts import LAYOUTS, REPLACEMENTS, Layout
from asap.data.kinetics.lists import ClipList, check_folder, refuse_unconfirmed
from asap.data.kinetics.names import Classes, cleaned, clip_of, is_clip, is_clip_name, video_of
from asap.data.natural_order import in_order
from asap.errors import RequestError

log = logging.getLogger("asap")
UNLISTED = "clips that are not in the list"
_CLIPS = FileKind(is_clip, lambda _: False)


@dataclass(frozen=True)
class Clips:
    """All clips of a split. videos: for each, the number of the YouTube video it was cut from."""

    source: FileSource
    videos: Sequence[int]

    @property
    def present(self) -> list[str]:
        """Canonical paths of the clips that have a file."""
        return [
            p for p, f in zip(self.source.paths, self.source.files, strict=True) if f is not None
        ]

    @property
    def missing(self) -> list[str]:
        """Canonical paths of the clips that are listed and not there."""
        return [p for p, f in zip(self.source.paths, self.source.files, strict=True) if f is None]

    @property
    def names(self) -> set[str]:
        """Canonical names, without their classes, of the clips that have a file."""
        return {path.rsplit("/", 1)[-1] for path in self.present}

    @property
    def list_digest(self) -> str:
        """SHA-256 of the canonical paths, and so of the classes, of the clips that have a file."""
        return sha256("\n".join(self.present).encode()).hexdigest()


class _Clip(NamedTuple):
    """A clip: its canonical name, its class, and its file; None if it is listed and not there."""

    name: str
    label: int
    file: str | None


class _Files:
    """Files by the canonical names of their clips.

    Many copies have files, and lists, that are named by the YouTube id alone. Such a name is that
    of the only clip of this video. Names that detox cleaned have lost dashes and underscores; such
    a file that could be either of two clips is neither's.
    """

    def __init__(self, files: Mapping[str, str]):
        self._files = files
        videos = Counter(map(video_of, files))
        self._sole = {v: clip for clip in files if videos[v := video_of(clip)] == 1}
        self._cleaned = {clip for clip in files if not is_clip_name(clip)}

    def find(self, clips: Sequence[str]) -> list[tuple[str, str | None]]:
        """The clips' full names and their files, if any."""
        videos = Counter(map(video_of, clips))
        found = [self._find(clip, videos[video_of(clip)] == 1) for clip in clips]
        uses = Counter(file for _, file in found)
        return [
            (name, file if uses[file] == 1 or clip in self._files else None)
            for clip, (name, file) in zip(clips, found, strict=True)
        ]

    def _find(self, clip: str, sole: bool) -> tuple[str, str | None]:
        """The clip's full name and its file, if any. sole: it is the only one of its video."""
        if clip in self._files:
            return clip, self._files[clip]
        other = self._sole.get(video := video_of(clip))
        if sole and other is not None and video in (clip, other):
            return max(clip, other, key=len), self._files[other]
        names = map(cleaned, (clip, video) if sole else (clip,))
        found = next((name for name in names if name in self._cleaned), None)
        return clip, None if found is None else self._files[found]


def read_clips(layout: Layout, classes: Classes) -> Clips:
    """The clips of a layout.

    Raises RequestError on a clip that is stored twice, that has no class or two, if none of the
    listed clips is there, and if nothing shows in which order a list counts the classes.
    """
    found = list_files(layout.folder, _CLIPS)
    found.left_out.tell_second_names(layout.folder)
    own = [file for file in found.files if REPLACEMENTS not in file.split("/")]
    files = _by_clip(layout.folder, own)
    if layout.listed is None:
        clips = list(_in_class_folders(files, layout.folder, classes))
    else:
        clips = list(_listed(layout.listed, files, layout.folder, classes))
        taken = sum(clip.file is not None for clip in clips)
        if taken < len(files):
            found.left_out.counts[UNLISTED] += len(files) - taken
    clips = _replaced(clips, layout.replacements)
    paths = [f"{classes.names[clip.label]}/{clip.name}" for clip in clips]
    order = in_order(paths)
    source = FileSource(
        layout.folder,
        [clips[i].file for i in order],
        [paths[i] for i in order],
        [clips[i].label for i in order],
        {} if layout.shared else found.left_out.summary,
    )
    number: dict[str, int] = {}
    videos = [number.setdefault(video_of(clips[i].name), k) for k, i in enumerate(order)]
    return Clips(source, videos)


def _by_clip(folder: Path, files: Sequence[str]) -> dict[str, str]:
    """Files by the canonical names of their clips. RequestError if two files are one clip."""
    found: dict[str, str] = {}
    for file in files:
        clip = printable(clip_of(file))
        if (other := found.setdefault(clip, file)) != file:
            raise RequestError(
                f"{folder} holds the clip {clip} twice, as {printable(other)} and "
                f"{printable(file)}: leave one of them"
            )
    return found


def _in_class_folders(files: Mapping[str, str], folder: Path, classes: Classes) -> Iterator[_Clip]:
    """Clips whose folders say their classes."""
    labels = {clip: classes.folder_label(file) for clip, file in files.items()}
    if not any(label is not None for label in labels.values()):
        some = next(iter(files.values()), None)
        what = "holds no clip" if some is None else (
            f"holds {len(files):,} clips, such as {printable(some)}, without a list of their "
            f"classes and outside the folders of {classes.which}"
        )  # fmt: skip
        raise RequestError(f"{folder} {what}: {_remedy(folder, classes)}{LAYOUTS}")
    for clip, label in labels.items():
        if label is None:
            raise RequestError(
                f"{printable(files[clip])} in {folder} lies in no folder of {classes.which}, as "
                "other clips there do: move it into its class's folder or away, give a list of the "
                "clips as data.labels, or other classes with data.classes"
            )
        yield _Clip(clip, label, files[clip])


def _remedy(folder: Path, classes: Classes) -> str:
    """What to do about a folder without clips; the beginning of a list of remedies."""
    if any(folder.glob("*.tar*")) or any(folder.glob("*.tgz")):
        return "its archives are not unpacked; unpack them there (tar -xf); or "
    return "" if classes.own else "for other classes give data.classes; or "


def _listed(
    listed: ClipList, files: Mapping[str, str], folder: Path, classes: Classes
) -> Iterator[_Clip]:
    """The clips of a list with their files, of which one at least must be there."""
    stored = _Files(files)
    some, confirmed = False, listed.confirmed
    places = stored.find([one.clip for one in listed.clips])
    for one, (name, file) in zip(listed.clips, places, strict=True):
        if file is not None:
            some = True
            confirmed |= check_folder(listed, one, file, classes)
        yield _Clip(name, one.label, file)
    if not some:
        raise RequestError(
            f"none of the {len(listed.clips):,} clips that {listed.path} lists, such as "
            f"{listed.clips[0].clip}, is in {folder}, which holds {len(files):,}: give the folder "
            "of these clips as data.path, or their list as data.labels"
        )
    if not confirmed and not classes.given:
        refuse_unconfirmed(listed)


def _replaced(clips: list[_Clip], folder: Path | None) -> list[_Clip]:
    """The clips, with files from the folder of replacements where it has one."""
    if folder is None:
        return clips
    files = _by_clip(folder, list_files(folder, _CLIPS).files)
    stored = _Files({clip: str(folder.absolute() / file) for clip, file in files.items()})
    places = stored.find([clip.name for clip in clips])
    found = [
        clip if file is None else _Clip(name, clip.label, file)
        for clip, (name, file) in zip(clips, places, strict=True)
    ]
    if count := sum(a is not b for a, b in zip(clips, found, strict=True)):
        log.info("%s: %d clips are read from %s", "Kinetics", count, folder)
    return found
