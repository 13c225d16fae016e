"""Clips read by PyAV: from the beginning to the last frame that is wanted, without seeking."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from asap.data.video.container import ClipFile, Container, opened
from asap.data.video.unreadable import UNDECODABLE, UnreadableClip


class PyAVReader:
    """A `VideoReader`. If packets do not tell how many frames there are, opening decodes them all.

    A frame that the decoder marks as damaged is an error, wanted or not: those that follow are
    predicted from it.
    """

    decoder = "pyav"

    def __init__(self, file: ClipFile, found: Container):
        self._file, self._found = file, found
        self.length = found.length
        count = self._count() if found.times is None else len(found.times)
        self.missing_frames = found.missing_frames(count)
        self.num_frames = count

    def get(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        wanted, frames = set(indices), {}
        with opened(self._file) as (container, stream):
            for i, frame in enumerate(self._sound(container, stream)):
                if i in wanted:
                    turns = round(frame.rotation / 90)
                    frames[i] = np.rot90(frame.to_ndarray(format="rgb24"), turns)
                if len(frames) == len(wanted):
                    break
        if len(frames) < len(wanted):
            lost = min(wanted - frames.keys())
            raise UnreadableClip(UNDECODABLE, f"frame {lost:,} of {self.num_frames:,} is missing")
        if len({frame.shape for frame in frames.values()}) > 1:
            raise UnreadableClip(UNDECODABLE, "its frames are of several sizes")
        return np.stack([frames[i] for i in indices])

    def close(self) -> None:
        """Nothing is kept open."""

    def _count(self) -> int:
        with opened(self._file) as (container, stream):
            return sum(1 for _ in self._sound(container, stream))

    def _sound(self, container: Any, stream: Any) -> Iterator[Any]:
        """The frames in turn. Raises `UnreadableClip` at one that is damaged or out of place."""
        times = self._found.times
        for i, frame in enumerate(container.decode(stream)):
            if frame.is_corrupt:
                raise UnreadableClip(UNDECODABLE, f"frame {i:,} is damaged")
            if times is not None and (i >= len(times) or frame.pts != times[i]):
                raise UnreadableClip(UNDECODABLE, f"frame {i:,} of {len(times):,} is missing")
            yield frame
