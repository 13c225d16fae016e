"""What a reader of clips is, and which of the two reads a file."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from asap.data.video.container import ClipFile, Container, look_into
from asap.data.video.decord_reader import DecordReader, unsuited
from asap.data.video.pyav_reader import PyAVReader
from asap.data.video.unreadable import UnreadableClip

DECODERS = ("auto", "decord", "pyav")

__all__ = ["DECODERS", "ClipFile", "UnreadableClip", "VideoReader", "open_clip"]


@runtime_checkable
class VideoReader(Protocol):
    """An open clip. Frames are numbered in the order in which they are shown, from 0.

    decoder: "decord" or "pyav". length: "verified" if the container states a duration and the
    frames fill it, else "unverified". missing_frames: how many fewer there are than the container
    promises; a few, or opening would have failed.
    """

    @property
    def decoder(self) -> str: ...
    @property
    def num_frames(self) -> int: ...
    @property
    def length(self) -> str: ...
    @property
    def missing_frames(self) -> int: ...

    def get(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """The frames of these numbers as RGB, upright, in this order, repeats included.

        Raises `UnreadableClip` if one of them cannot be decoded.
        """
        ...

    def close(self) -> None: ...


def open_clip(file: ClipFile, decoder: str = "auto") -> VideoReader:
    """A reader of a clip, in this process: a damaged file may keep it for ever, see watchdog.py.

    decoder: decord | pyav | auto, which is decord where it is installed and known to give the same
    frames, else PyAV. Raises `UnreadableClip`.
    """
    found = look_into(file)
    if decoder == "decord":
        return DecordReader(file, found)
    if decoder == "auto" and unsuited(found) is None:
        return _FirstDecord(file, found)
    return PyAVReader(file, found)


class _FirstDecord:
    """decord; from its first error on PyAV, which then decides whether the clip is damaged."""

    def __init__(self, file: ClipFile, found: Container) -> None:
        self._again = lambda: PyAVReader(file, found)
        try:
            self._reader: VideoReader = DecordReader(file, found)
        except UnreadableClip:
            self._reader = self._again()
        self.num_frames, self.length = self._reader.num_frames, self._reader.length
        self.missing_frames = self._reader.missing_frames

    @property
    def decoder(self) -> str:
        return self._reader.decoder

    def get(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        try:
            return self._reader.get(indices)
        except UnreadableClip:
            if self.decoder == "pyav":
                raise
        self._reader.close()
        self._reader = self._again()
        return self._reader.get(indices)

    def close(self) -> None:
        self._reader.close()
