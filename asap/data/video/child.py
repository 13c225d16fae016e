"""The process that decodes: one request after another from stdin, one answer each to stdout.

It imports neither torch nor the rest of asap, so that it starts fast and stays small. A request is
a `Request`, pickled after its length; an answer is an `Answer`, and then the frames' bytes.
"""

import faulthandler
import os
import pickle
import signal
import struct
import sys
import threading
import traceback
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

_LENGTH = struct.Struct("<Q")
_PIECE = 1 << 28  # bytes of frames that are held at once where all are decoded
_GRACE = 10  # seconds that the child gives its parent to end it when time is up


@dataclass(frozen=True)
class Request:
    """file: a path, or the content. views: which frames, see `Views`; None to decode all of them
    and send none. seconds: the time limit.
    """

    file: Path | bytes
    views: Any
    decoder: str
    seconds: float


@dataclass(frozen=True)
class Answer:
    """error: an `UnreadableClip`; else `shape` (frames, height, width, 3) of uint8 follows: every
    frame of the views once, in ascending order. failed: the text of a fault of the child itself.
    """

    error: Exception | None = None
    failed: str | None = None
    num_frames: int = 0
    shape: tuple[int, ...] = ()
    decoder: str = ""
    length: str = ""
    missing_frames: int = 0


def send(pipe: BinaryIO, message: Any) -> None:
    """Write a message with its length."""
    text = pickle.dumps(message)
    left = memoryview(_LENGTH.pack(len(text)) + text)
    while left:  # a signal may end a write early
        left = left[pipe.write(left) :]
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """The next message. Raises EOFError if the other end is closed."""
    (size,) = _LENGTH.unpack(filled(pipe, bytearray(_LENGTH.size)))
    return pickle.loads(filled(pipe, bytearray(size)))


def filled(pipe: BinaryIO, buffer: Any) -> Any:
    """The writable buffer, filled from the pipe. Raises EOFError if it ends before."""
    left = memoryview(buffer).cast("B")
    while left:
        if not (count := pipe.readinto(left)):  # pyright: ignore[reportAttributeAccessIssue]
            raise EOFError
        left = left[count:]
    return buffer


def main() -> None:
    """Answer requests until the parent is gone."""
    _end_with(os.getppid())
    nowhere = sys.stderr
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes nowhere
    requests = sys.stdin.buffer
    try:
        from asap.data.video.reader import open_clip
    except BaseException:
        send(answers, Answer(failed=traceback.format_exc()))
        return
    send(answers, Answer())
    while (request := _next(requests)) is not None:
        # A timer in C, so that a hung decoder outlives the parent by this much at most.
        faulthandler.dump_traceback_later(request.seconds + _GRACE, exit=True, file=nowhere)
        answer, frames = _answered(request, open_clip)
        faulthandler.cancel_dump_traceback_later()
        send(answers, answer)
        if frames is not None:
            answers.write(memoryview(frames).cast("B"))
            answers.flush()


def _next(requests: BinaryIO) -> Request | None:
    try:
        return receive(requests)
    except EOFError:
        return None


def _answered(request: Request, open_clip: Any) -> tuple[Answer, Any]:
    """The answer to a request, and the frames if there are some."""
    from asap.data.video.unreadable import SHORT, UNDECODABLE, UnreadableClip

    file = BytesIO(request.file) if isinstance(request.file, bytes) else request.file
    try:
        reader = open_clip(file, request.decoder)
        if request.views is None:
            return _all_decoded(reader), None
        if reader.num_frames < request.views.least:
            raise UnreadableClip(
                SHORT, f"{reader.num_frames:,} frames, and {request.views.least:,} are needed"
            )
        clips = request.views.indices(reader.num_frames)
        frames = reader.get(sorted({i for clip in clips for i in clip}))
        reader.close()
    except UnreadableClip as error:
        return Answer(error=error), None
    except MemoryError:
        return Answer(error=UnreadableClip(UNDECODABLE, "its frames do not fit into memory")), None
    except Exception:  # a fault of ours: raised again by the parent, and the child lives on
        return Answer(failed=traceback.format_exc()), None
    return _answer(reader, frames.shape), frames


def _all_decoded(reader: Any) -> Answer:
    """What decoding every frame shows, in pieces that fit into memory. Raises `UnreadableClip`."""
    piece = max(1, _PIECE // reader.get([0]).nbytes)
    for start in range(0, reader.num_frames, piece):
        reader.get(range(start, min(start + piece, reader.num_frames)))
    return _answer(reader)


def _answer(reader: Any, shape: tuple[int, ...] = ()) -> Answer:
    """The facts about a clip, and the shape of the frames that follow, if any do."""
    return Answer(
        num_frames=reader.num_frames, shape=shape, decoder=reader.decoder,
        length=reader.length, missing_frames=reader.missing_frames,
    )  # fmt: skip


def _end_with(parent: int) -> None:
    """Let this process end when its parent does, also while it decodes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which closes the pipe

    def watch() -> None:
        wait = threading.Event()
        while os.getppid() == parent:
            wait.wait(1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
