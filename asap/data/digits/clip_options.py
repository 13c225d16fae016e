"""The embedded clips as a data set: moving digits, encoded and then read like any other clips."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from asap.data.base import DataSet, take
from asap.data.digits import render as digits
from asap.data.digits.clip_cache import DigitClipFiles
from asap.data.digits.clips import MOTIONS, digit_of
from asap.data.options import Opening
from asap.data.video.clip_files import ClipFiles
from asap.data.video.options import ClipOptions
from asap.errors import RequestError
from asap.spec.check import at_least

CLIPS = {"train": 800, "calibration": 160, "evaluation": 400}  # by split


@dataclass(frozen=True)
class DigitClipsOptions(ClipOptions):
    """Which clips: split (evaluation, calibration or train), how many, and the seed of the draw.

    videos: null: 400 for evaluation, 160 for calibration, 800 for training. Raises RequestError on
    impossible values.
    """

    splits: ClassVar[tuple[str, ...]] = digits.SPLITS

    split: str = "evaluation"
    videos: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.videos", self.videos, 1)
        at_least("data.seed", self.seed, 0)

    def open(self, opening: Opening) -> DataSet:
        spec = opening.spec
        if spec.path is not None:
            raise RequestError(
                f"data.path={spec.path!r} is not for data=digits_clips: its files are in data.cache"
            )
        if spec.cache is None:
            raise RequestError(
                "data.cache=null leaves no place for the clips of data=digits_clips, which are "
                "encoded first: give data.cache=auto, or a folder"
            )
        found = self.files(opening)
        found.title = spec.title
        return take(cast(DataSet, found), opening.limit)

    def files(self, opening: Opening) -> ClipFiles:
        """All of its clips; they are made when they are first read or hashed."""
        split, seed = self.split, self.seed
        count = CLIPS[split] if self.videos is None else self.videos
        return ClipFiles(
            DigitClipFiles(Path(str(opening.spec.cache)), split, seed, count),
            opening.transform,
            self.views,
            name="digits_clips",
            classes=MOTIONS,
            clusters=[digit_of(split, i) for i in range(count)],
            about=f"clips of moving digits, {split} digits, {count:,} clips, seed {seed}",
            decoder=self.decoder,
            seconds_per_clip=self.seconds_per_clip,
        )
