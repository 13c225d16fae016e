"""Kinetics-400 (Kay et al. 2017): validation and training clips, however they are stored."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from asap.data.images.classes_file import read_classes
from asap.data.kinetics.clips import Clips, read_clips
from asap.data.kinetics.layouts import SPLITS, Layout, is_stored, recognise
from asap.data.kinetics.names import N_CLIPS, Classes, kinetics_400, video_of
from asap.data.options import Opening
from asap.data.video.clip_files import ClipFiles
from asap.data.video.options import ClipOptions
from asap.errors import RequestError
from asap.spec.paths import PathText

log = logging.getLogger("asap")
SORTED = "sorted"
_CHECK = "python scripts/prepare_kinetics.py <folder> names all of them"


@dataclass(frozen=True)
class KineticsOptions(ClipOptions):
    """Which clips of Kinetics, beside the frames that are read of them.

    split: validation | train. labels, train_labels: the list of either split's clips, None to look
    for it beside them, see lists.py. train_path: a folder of training clips elsewhere. classes: a
    file with the names of the classes in the order of the labels, None for the 400 in sorted order,
    "sorted" to state that order for a list that nothing else confirms. replacements: a
    folder of clips that take the place of damaged ones, off for none, None to look for CVDF's.
    """

    split: str = "validation"
    labels: PathText | None = None
    train_labels: PathText | None = None
    train_path: PathText | None = None
    classes: PathText | None = None
    replacements: PathText | None = None
    splits: ClassVar[tuple[str, ...]] = SPLITS

    def files(self, opening: Opening) -> ClipFiles:
        clips, classes, _ = self.found(opening.spec.path)
        if opening.spec.strict and clips.missing:
            raise RequestError(
                f"data.strict=true: {_missing(clips)}: complete them or set it false ({_CHECK})"
            )
        if clips.missing:
            log.warning("%s. They count as failed (%s)", _missing(clips), _CHECK)
        if self.split == "train":
            self._refuse_evaluated(clips, opening.spec.path)
        about, differs = _about(clips, classes, self.split)
        return ClipFiles(
            clips.source, opening.transform, self.views, name="kinetics", classes=classes.names,
            clusters=clips.videos, about=about, decoder=self.decoder,
            seconds_per_clip=self.seconds_per_clip, differs=differs,
        )  # fmt: skip

    def found(self, path: str | Path | None) -> tuple[Clips, Classes, Layout]:
        """All clips of the split below `path`. Raises RequestError as `recognise`, `read_clips`."""
        classes = Classes(kinetics_400())
        if self.classes is not None:
            given = classes.names if self.classes == SORTED else read_classes(self.classes)
            classes = classes.of(given)
        root, labels, certain = self._place(path)
        layout = recognise(root, self.split, classes, labels, self.replacements, certain)
        return read_clips(layout, classes), classes, layout

    def _refuse_evaluated(self, train: Clips, path: str | Path | None) -> None:
        """RequestError if validation clips are among the training clips, where both are stored.

        In another folder only YouTube's names tell that a clip is the same.
        """
        try:
            validation, _, _ = replace(self, split="validation").found(path)
        except RequestError:
            return  # there is nothing to evaluate
        both = train.names & validation.names
        if train.source.root.resolve() != validation.source.root.resolve():
            both = {name for name in both if video_of(name) != name}
        if both:
            raise RequestError(
                f"{len(both):,} of the {len(train.present):,} training clips in "
                f"{train.source.root} are validation clips, such as {min(both)}: give other "
                "training clips with data.train_path, or a list without these as data.train_labels"
            )

    def is_stored(self, path: str | Path | None) -> bool:
        """True if there are clips of the split below `path`; their list is not read."""
        root, labels, certain = self._place(path)
        return is_stored(root, self.split, labels, certain)

    def _place(self, path: str | Path | None) -> tuple[str | Path | None, str | None, bool]:
        """The folder of the split, its list, and whether the folder was given for this split."""
        if self.split != "train":
            return path, self.labels, False
        return self.train_path or path, self.train_labels, self.train_path is not None


def _about(clips: Clips, classes: Classes, split: str) -> tuple[str, tuple[str, ...]]:
    """The description, and reasons why these are not the published clips."""
    differs = []
    total, there = N_CLIPS[split], len(clips.present)
    known = Classes(kinetics_400())
    if any(known.label(name) is None for name in classes.names):
        differs.append("other classes than Kinetics-400's")
    elif len(clips.source.paths) > total:
        differs.append(f"more clips than the {total:,} that were annotated")
    counts = f"{there:,} clips" if differs else f"{there:,} of {total:,} clips"
    parts = ["clips in the layout of Kinetics" if differs else f"Kinetics-400 {split}", counts]
    present = len({path.split("/")[0] for path in clips.present})
    if classes.own or present < len(classes.names):
        parts.append(f"{present:,} of {classes.which}")
    if clips.missing:
        parts.append(f"{len(clips.missing):,} more are listed and not there")
    parts.append(f"list {clips.list_digest[:8]}")
    return ", ".join(parts), tuple(differs)


def _missing(clips: Clips) -> str:
    """How many listed clips are not there, and the first ones."""
    gone = clips.missing
    more = ", ..." if len(gone) > 3 else ""
    return (
        f"{len(gone):,} of {len(clips.source.paths):,} listed clips are not in "
        f"{clips.source.root}: {', '.join(gone[:3])}{more}"
    )
