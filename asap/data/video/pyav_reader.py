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
        times = self._decoded() if found.times is None else found.times
        self.num_frames = len(times)
        known = [time for time in times if time is not None]
        self.missing_frames = found.missing_frames(len(times), known)

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

    def _decoded(self) -> list[int | None]:
        """The times of all frames."""
        with opened(self._file) as (container, stream):
            return [frame.pts for frame in self._sound(container, stream)]

    def _sound(self, container: Any, stream: Any) -> Iterator[Any]:
        """The frames in turn; before the first key frame of a cut clip, decoders show anything.

        Raises `UnreadableClip` at a frame that is damaged or out of place.
        """
        times, i, begun = self._found.times, 0, self._found.begins
        for frame in container.decode(stream):
            begun = begun or frame.key_frame
            if not begun:
                continue
            if frame.is_corrupt:
                raise UnreadableClip(UNDECODABLE, f"frame {i:,} is damaged")
            if times is not None and (i >= len(times) or frame.pts != times[i]):
                raise UnreadableClip(UNDECODABLE, f"frame {i:,} of {len(times):,} is missing")
            yield frame
            i += 1
