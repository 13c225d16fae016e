"""Clips read by decord, which begins at the key frame before each frame that is wanted.

Known faults of decord 0.6.0, and what is done about them: at a key frame that earlier frames refer
to (open groups: x265's default, MPEG-4 with B-frames) seeking and skipping lose count, so that such
files are read frame by frame; with more than 8 bits its colours are wrong by up to 100 of 255, and
with packets that are not shown its numbers are shifted, so that such files are left to PyAV;
damaged frames are replaced silently, and only its log tells: see `_said`.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import UInt8

from asap.data.video.container import ClipFile, Container
from asap.data.video.unreadable import UNDECODABLE, UnreadableClip
from asap.errors import one_line


def unsuited(found: Container) -> str | None:
    """Why decord is not the one to read a clip; None if it gives the same frames, and faster."""
    if _decord() is None:
        return "it is not installed here: set data.decoder=auto or pyav"
    if found.times is None:
        return "packets do not tell the frames: set data.decoder=auto or pyav"
    if not found.eight_bit:
        return "more than 8 bits a channel"
    if not found.closed:
        return "decoding cannot begin at its key frames"
    return None


class DecordReader:
    """A `VideoReader` of a clip whose packets tell how many frames there are.

    Raises `UnreadableClip` if decord cannot read it, or counts other frames.
    """

    decoder = "decord"

    def __init__(self, file: ClipFile, found: Container):
        decord = _decord()
        if decord is None or found.times is None:
            raise UnreadableClip(UNDECODABLE, f"decord: {unsuited(found)}")
        self.length, self.num_frames = found.length, len(found.times)
        self.missing_frames = found.missing_frames(self.num_frames, found.times)
        self._closed = found.closed
        if isinstance(file, BytesIO):
            file.seek(0)
        with _said():
            self._reader: Any = decord.VideoReader(
                file if isinstance(file, BytesIO) else str(file), num_threads=1
            )
        if len(self._reader) != self.num_frames:
            raise UnreadableClip(
                UNDECODABLE,
                f"decord counts {len(self._reader):,} frames, its packets are {self.num_frames:,}",
            )

    def get(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        wanted = sorted(set(indices))
        with _said():
            if self._closed:
                frames = self._reader.get_batch(wanted).asnumpy()
            else:
                frames = self._in_turn(wanted)
        return frames[np.searchsorted(wanted, indices)]

    def close(self) -> None:
        self._reader = None

    def _in_turn(self, wanted: list[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """Decode all frames up to the last one that is wanted."""
        self._reader.seek(0)
        kept, chosen = [], set(wanted)
        for i in range(wanted[-1] + 1):
            frame = self._reader.next()
            if i in chosen:
                kept.append(frame.asnumpy())
        return np.stack(kept)


@cache
def _decord() -> Any:
    """decord, None where there is no build of it."""
    try:
        import decord
    except (ImportError, OSError):
        return None
    decord.logging.set_level(decord.logging.ERROR)
    return decord


@contextmanager
def _said() -> Iterator[None]:
    """Raise `UnreadableClip` for what decord raises, and for errors that it only prints.

    Its FFmpeg prints them to the process's stderr, which is taken away meanwhile: this is for a
    process of its own.
    """
    with tempfile.TemporaryFile() as log:
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        except Exception as error:  # decord raises RuntimeError, its own errors, StopIteration
            raise UnreadableClip(UNDECODABLE, f"decord: {_reason(str(error))}") from error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        log.seek(0)
        if said := log.read().decode("utf-8", "replace").strip():
            raise UnreadableClip(UNDECODABLE, f"decord: {_reason(said.splitlines()[0])}")


# What differs from run to run: the time and the place in decord's source, paths, addresses.
_ASIDE = re.compile(
    r"\[[\d:]+\] \S+: (?:Check failed: )?|\[/[^]]*\] | @ 0x[0-9a-f]+|Error reading /.*"
)


def _reason(text: str) -> str:
    """The error on one line, without what differs from run to run."""
    return _ASIDE.sub("", one_line(text)) or "it cannot be opened"
