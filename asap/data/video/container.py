"""What the container of a clip says, without decoding: packets, times, the duration it promises."""

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import av
import av.logging
from av.stream import Disposition

from asap.data.video.unreadable import MISSING, NO_VIDEO, SHORT, UNDECODABLE, UnreadableClip
from asap.errors import one_line

ClipFile: TypeAlias = Path | BytesIO  # a file, or its content
_ENDS = ("partial file", "ended prematurely")  # libav's words for a file that was cut
SHORT_PERCENT, SHORT_FRAMES = 2, 2  # a clip that lacks more than both is short


@dataclass(frozen=True)
class Container:
    """The video stream of a clip as it is stored.

    times: of the frames, ascending, in units of `unit` seconds; None if the packets do not say
    which frames there are, so that they have to be decoded to be counted. last: how long the last
    frame is shown, in units. begins: with a key frame. closed: no frame is predicted from a key
    frame that is shown after it, so that decoding may begin at any of them. eight_bit: per channel.
    rate: frames per second. coded: packets that should give a frame each; None if they may not.
    promised: the stated end of the video in seconds; covered: how many of them the packets last;
    both None if not known. damage: what the demuxer complained about.
    """

    times: tuple[int, ...] | None
    unit: float
    last: int
    begins: bool
    closed: bool
    eight_bit: bool
    rate: float
    coded: int | None
    promised: float | None
    covered: float | None
    damage: str | None

    @property
    def length(self) -> str:
        """See `VideoReader.length`."""
        return "unverified" if self.promised is None else "verified"

    def missing_frames(self, count: int, times: Sequence[int] | None) -> int:
        """How many frames fewer than promised a video of `count` frames has, 0 if not known.

        times: of its frames, ascending, if they have any. Raises `UnreadableClip` if there is no
        frame, or if more than 2 frames and 2 % are missing.
        """
        missing = 0
        if self.promised is not None:
            end = count / self.rate
            if times:  # the promise may count from zero or from the first frame
                end = (max(times[-1], times[-1] - times[0]) + self.last) * self.unit
            if self.covered is not None:
                end = min(end, self.covered)
            missing = max(0, round((self.promised - end) * self.rate))
        missing = max(missing, (self.coded or 0) - count)
        promised = count + missing
        if not count or (missing > SHORT_FRAMES and 100 * missing > SHORT_PERCENT * promised):
            if missing:
                raise UnreadableClip(SHORT, f"{count:,} of {promised:,} frames")
            raise UnreadableClip(UNDECODABLE, "it has no frame")
        if self.damage is not None:
            raise UnreadableClip(UNDECODABLE, self.damage)
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
    with _errors() as lines, opened(file) as (container, stream):
        name = container.format.name
        packets = [p for p in container.demux(stream) if p.size]
        times = [p.pts for p in packets]
        # VP8 codes pictures that are not shown; AVI's packets may hold two, and then none.
        coded = stream.codec_context.name != "vp8" and name != "avi"
        begins = bool(packets) and packets[0].is_keyframe
        known = (
            coded
            and begins
            and None not in times
            and len(set(times)) == len(times)
            and times[0] == min(times)  # else pictures before it refer to what was cut off
            and not any(p.is_discard for p in packets)
        )
        last = max(packets, key=lambda p: -1 if p.pts is None else p.pts, default=None)
        unit = float(stream.time_base or 0)
        bits = [part.bits for part in stream.codec_context.format.components]
        return Container(
            times=tuple(sorted(times)) if known else None,
            unit=unit,
            last=(last.duration or 0) if last else 0,
            begins=begins,
            closed=known and _closed(times, [p.is_keyframe for p in packets]),
            eight_bit=max(bits, default=8) == 8,
            rate=float(stream.average_rate or stream.guessed_rate or stream.base_rate or 25),
            coded=sum(not p.is_discard for p in packets) if coded else None,
            promised=_promised(container, stream),
            # Where durations are exact. In Matroska they are rounded to milliseconds.
            covered=sum(p.duration or 0 for p in packets) * unit
            if known and "mp4" in name
            else None,
            damage=_damage(lines, name),
        )


@contextmanager
def _errors() -> Iterator[list[tuple[int, str, str]]]:
    """(level, source, text) of the errors that libav prints meanwhile."""
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # the next clip may have the same error
    try:
        with av.logging.Capture() as lines:
            yield lines
    finally:
        av.logging.set_level(None)


def _damage(lines: list[tuple[int, str, str]], demuxer: str) -> str | None:
    """The demuxer's first error. That a file ends too early is judged by the time it lasts."""
    texts = [one_line(text) for _, source, text in lines if source == demuxer]
    return next((text for text in texts if not any(end in text for end in _ENDS)), None)


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
    if stream.codec_context.name == "hevc":  # the one that does not mark what it conceals
        stream.codec_context.options = {"err_detect": "explode"}
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
