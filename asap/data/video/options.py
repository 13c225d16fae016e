"""The options that every data set of clips has."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import ClassVar

from asap.data.base import DataSet
from asap.data.images.file_options import FileOptions
from asap.data.options import Opening
from asap.data.video.reader import DECODERS
from asap.data.video.sampling import Views
from asap.errors import RequestError
from asap.spec.check import one_of
from asap.spec.run_spec import DataSpec


@dataclass(frozen=True)
class ClipOptions(FileOptions):
    """Which frames are read, and how. A data set of clips adds its own, `split` among them.

    frames, clips, crops, sampling, stride: see `Views`. decoder: auto | decord | pyav, see
    `open_clip`. seconds_per_clip: after which a clip counts as unreadable. Raises RequestError on
    impossible values. `splits`: the values of `split`.
    """

    splits: ClassVar[tuple[str, ...]] = ()

    frames: int = 8
    clips: int = 1
    crops: int = 1
    sampling: str = "uniform"
    stride: int | None = None
    decoder: str = "auto"
    seconds_per_clip: float = 60.0

    def __post_init__(self) -> None:
        one_of("data.decoder", self.decoder, DECODERS)
        if self.decoder == "decord" and find_spec("decord") is None:
            raise RequestError(
                "data.decoder=decord: there is no decord in this environment, and no build of it "
                "for some machines: set data.decoder=auto, which takes PyAV then"
            )
        if not 0 < self.seconds_per_clip < 1e6:
            raise RequestError(
                f"data.seconds_per_clip={self.seconds_per_clip:g} is not possible: give seconds, "
                "more than 0"
            )
        if self.splits:
            one_of("data.split", getattr(self, "split"), self.splits)  # noqa: B009
        self.views  # noqa: B018

    @property
    def views(self) -> Views:
        """Raises RequestError on impossible values."""
        return Views(self.frames, self.clips, self.crops, self.sampling, self.stride)

    def open(self, opening: Opening) -> DataSet:
        if opening.spec.cache is not None:
            raise RequestError(
                f"data.cache={opening.spec.cache!r} is for pictures: leave it null, clips are "
                "decoded every time"
            )
        return super().open(opening)


def with_split(spec: DataSpec, split: str) -> DataSpec:
    """The spec of another split of the same clips, all of it, without the title of this one.

    RequestError if the data set does not have that split. Whether its files are there is found out
    when it is opened.
    """
    from asap.data.open import options_of  # which lists the data sets, this one among them

    splits = getattr(options_of(spec), "splits", ())
    if split not in splits:
        known = f"its splits: {', '.join(splits)}" if splits else "it has no splits"
        raise RequestError(
            f"data={spec.name} has no split {split!r} ({known}): give a trained head with "
            "head.file=<file>"
        )
    return replace(spec, part="all", title=None, options={**spec.options, "split": split})
