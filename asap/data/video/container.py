"""What the container of a clip says, without decoding: packets, times, the duration it promises."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import av
from av.stream import Disposition

from asap.data.video.unreadable import MISSING, NO_VIDEO, SHORT, UNDECODABLE, UnreadableClip
from asap.errors import one_line

ClipFile: TypeAlias = Path | BytesIO  # a file, or its content
SHORT_PERCENT, SHORT_FRAMES = 2, 2  # a clip that lacks more than both is short


@dataclass(frozen=True)
class Container:
    """The video stream of a clip as it is stored.

    times: of the frames, ascending, in units of `unit` seconds; None if the packets do not say
    which frames there are, so that they have to be decoded to be counted. closed: no frame refers
    to a key frame that is shown later, so that decoding may begin at any key frame. eight_bit: per
    channel. rate: frames per second. promised: the stated end of the video in seconds, if any.
    """

    times: tuple[int, ...] | None
    unit: float
    last: int  # how long the last frame is shown, in units
    closed: bool
    eight_bit: bool
    codec: str
    rate: float
    promised: float | None

    @property
    def length(self) -> str:
        """See `VideoReader.length`."""
        return "unverified" if self.promised is None else "verified"

    def missing_frames(self, count: int) -> int:
        """How many frames fewer than promised a video of `count` frames has, 0 if not known.

        Raises `UnreadableClip` if there is none, or if more than 2 frames and 2 % are missing.
        """
        missing = 0
        if self.promised is not None:
            end = count / self.rate
            if self.times:
                end = (max(self.times[-1], self.times[-1] - self.times[0]) + self.last) * self.unit
            missing = max(0, round((self.promised - end) * self.rate))
        promised = count + missing
        if not count or (missing > SHORT_FRAMES and 100 * missing > SHORT_PERCENT * promised):
            if missing:
                raise UnreadableClip(SHORT, f"{count:,} of {promised:,} frames")
            raise UnreadableClip(UNDECODABLE, "it has no frame")
        return missing


@contextmanager
def opened(file: ClipFile) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and its video stream, decoded on one thread.

    Raises `UnreadableClip`, also for whatever is raised inside.
    """
    source = _regular(file) if isinstance(file, Path) else file
    try:
        if isinstance(source, BytesIO):
            source.seek(0)
        with av.open(source, metadata_errors="replace") as container:
            yield container, _stream(container)
    except UnreadableClip:
        raise
    except Exception as error:  # libraries fail on damaged bytes in any way
        raise UnreadableClip(UNDECODABLE, _text(error)) from error


def look_into(file: ClipFile) -> Container:
    """Read all packets of a clip. Raises `UnreadableClip`."""
    with opened(file) as (container, stream):
        packets = [p for p in container.demux(stream) if p.size]
        times = [p.pts for p in packets]
        known = (
            bool(packets)
            and None not in times
            and len(set(times)) == len(times)
            and packets[0].is_keyframe
            and times[0] == min(times)  # else pictures before it refer to what was cut off
            and not any(p.is_discard for p in packets)
        )
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate or 25
        latest = max(packets, key=lambda p: p.pts) if known else None
        context = stream.codec_context
        bits = [part.bits for part in context.format.components] if context.format else []
        return Container(
            tuple(sorted(times)) if known else None,
            float(stream.time_base or 0),
            (latest.duration or 0) if latest else 0,
            known and _closed(times, [p.is_keyframe for p in packets]),
            max(bits, default=8) == 8,
            context.name,
            float(rate),
            _promised(container, stream),
        )


def _regular(path: Path) -> str:
    """The path of a file that exists. Raises `UnreadableClip`."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise UnreadableClip(MISSING, "it is listed and not there") from error
    except OSError as error:
        raise UnreadableClip(UNDECODABLE, error.strerror or type(error).__name__) from error
    if not stat.S_ISREG(mode):
        raise UnreadableClip(UNDECODABLE, "it is not a file")
    return str(path)


def _stream(container: Any) -> Any:
    """The video stream that libav calls the best. Raises `UnreadableClip` if there is none."""
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        kinds = sorted({one.type for one in container.streams})
        raise UnreadableClip(NO_VIDEO, f"it has {' and '.join(kinds) if kinds else 'no stream'}")
    if stream.codec_context is None or stream.codec_context.format is None:
        # The header names a codec that is unknown here, or no picture could be found.
        raise UnreadableClip(UNDECODABLE, "no picture of it can be decoded")
    stream.thread_count = 1
    return stream


def _closed(times: list[int], keys: list[bool]) -> bool:
    """True if each key frame is later than all packets before it, and earlier than all after."""
    before = list(accumulate(times, max))
    after = list(accumulate(reversed(times), min))[::-1]
    return all(before[i - 1] < times[i] == after[i] for i in range(1, len(times)) if keys[i])


def _promised(container: Any, stream: Any) -> float | None:
    """The stated end of the video in seconds, None if the container does not state it."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if stated := stream.metadata.get("DURATION"):  # in Matroska, by ffmpeg and mkvmerge
        hours, minutes, seconds = stated.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return container.duration / av.time_base if container.duration else None


def _text(error: Exception) -> str:
    """The error on one line, without the path."""
    return one_line(getattr(error, "strerror", None) or str(error)) or type(error).__name__
