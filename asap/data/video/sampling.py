"""Which frames of a clip are read: T frames x clips x crops, as the field names it."""

from dataclasses import asdict, dataclass
from typing import Any

from asap.errors import RequestError
from asap.spec.check import at_least, one_of

SAMPLINGS = ("uniform", "dense")
CROPS = (1, 3)


@dataclass(frozen=True)
class Views:
    """How a video becomes views: `clips` times `frames` frames, each cut into `crops` squares.

    sampling: "uniform" cuts the whole video into `frames` equal parts and takes their middles; with
    several clips, evenly spaced points of each part. "dense" takes frames `stride` apart; one clip
    lies in the middle of the video, several from its beginning to its end. crops: 1, the
    transform's own, or 3 along the longer side. Raises RequestError on impossible values.
    """

    frames: int = 8
    clips: int = 1
    crops: int = 1
    sampling: str = "uniform"
    stride: int | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "clips", "stride"):
            at_least(f"data.{name}", getattr(self, name), 1)
        one_of("data.sampling", self.sampling, SAMPLINGS)
        if self.crops not in CROPS:
            raise RequestError(f"data.crops={self.crops} is not possible: give 1 or 3")
        if self.sampling == "dense" and self.stride is None:
            raise RequestError(
                "data.sampling=dense needs the distance between frames: give data.stride=8"
            )
        if self.sampling == "uniform" and self.stride is not None:
            raise RequestError(
                f"data.stride={self.stride} is for data.sampling=dense: uniform frames are spread "
                "over the whole video"
            )

    @property
    def count(self) -> int:
        """Views of a video."""
        return self.clips * self.crops

    @property
    def description(self) -> str:
        """Frames, clips and crops as the field writes them: "8 x 1 x 1 frames"."""
        apart = "" if self.stride is None else f", {self.stride} apart"
        return f"{self.frames} x {self.clips} x {self.crops} frames{apart}"

    @property
    def identity(self) -> dict[str, Any]:
        """What decides which pixels are read, as plain data."""
        return asdict(self)

    @property
    def least(self) -> int:
        """How many frames a video must have. Uniform parts of a shorter one share frames."""
        return 1 if self.stride is None else (self.frames - 1) * self.stride + 1

    def indices(self, num_frames: int) -> list[list[int]]:
        """The numbers of the frames of each clip, ascending.

        Raises ValueError if the video has fewer than `least` frames.
        """
        if num_frames < self.least:
            raise ValueError(f"{num_frames} frames are fewer than the {self.least} that are needed")
        place = self._uniform if self.stride is None else self._dense
        return [place(clip, num_frames) for clip in range(self.clips)]

    def _uniform(self, clip: int, n: int) -> list[int]:
        """Point (2 clip + 1) / (2 clips) of each of `frames` equal parts; exact, in integers."""
        parts = 2 * self.clips * self.frames
        return [(2 * self.clips * i + 2 * clip + 1) * n // parts for i in range(self.frames)]

    def _dense(self, clip: int, n: int) -> list[int]:
        """`frames` frames, `stride` apart."""
        room = n - self.least
        first = room // 2 if self.clips == 1 else room * clip // (self.clips - 1)
        return [first + i * (self.stride or 1) for i in range(self.frames)]
