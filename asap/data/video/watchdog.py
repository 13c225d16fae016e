"""Reads clips in a child process, which is killed and replaced if a clip takes too long.

Nothing in a process can interrupt a decoder that hangs in C. Each process that reads clips, a
loader's worker or the main one, has one child of its own.
"""

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from jaxtyping import UInt8

from asap.data.video.child import Answer, Request, filled, receive, send
from asap.data.video.container import ClipFile
from asap.data.video.sampling import Views
from asap.data.video.unreadable import TIMEOUT, UNDECODABLE, UnreadableClip

START_SECONDS = 300.0  # to import the decoders, on a slow network disk
# The child's main: `asap` is only a folder to find modules in, as the package imports torch.
_MAIN = """
import sys, types
sys.path[:] = {path!r}
sys.modules["asap"] = types.ModuleType("asap")
sys.modules["asap"].__path__ = [{asap!r}]
from asap.data.video.child import main
main()
"""


@dataclass(frozen=True)
class Clip:
    """What was read of a clip: each frame once, and for every clip of the views its frames.

    frames: RGB. clips: for each, the positions in `frames` of its frames. decoder, length,
    missing_frames: see `VideoReader`.
    """

    frames: UInt8[np.ndarray, "n height width 3"]
    clips: list[list[int]]
    num_frames: int
    decoder: str
    length: str
    missing_frames: int


def read_clip(file: ClipFile, views: Views, decoder: str = "auto", seconds: float = 60.0) -> Clip:
    """The frames that the views take of a clip, within so many seconds.

    Raises `UnreadableClip`: with the kind "timeout" if it takes longer, "undecodable" if decoding
    ends the process. RuntimeError if the child itself fails, for instance because it cannot import
    the decoders.
    """
    answer, frames = _asked(file, views, decoder, seconds)
    clips = views.indices(answer.num_frames)
    place = {number: i for i, number in enumerate(sorted({i for clip in clips for i in clip}))}
    return Clip(
        frames, [[place[i] for i in clip] for clip in clips], answer.num_frames,
        answer.decoder, answer.length, answer.missing_frames,
    )  # fmt: skip


def decode_whole(file: ClipFile, decoder: str = "auto", seconds: float = 60.0) -> Answer:
    """Decode every frame of a clip, to see whether it can be done; none is returned.

    The answer has the number of frames and the facts that `Clip` has. Raises as `read_clip`.
    """
    return _asked(file, None, decoder, seconds)[0]


def _asked(file: ClipFile, views: Views | None, decoder: str, seconds: float) -> tuple[Answer, Any]:
    """The child's answer, and the frames of the views. Raises as `read_clip`."""
    content = file.getvalue() if isinstance(file, BytesIO) else Path(file).absolute()
    request = Request(content, views, decoder, seconds)
    with _state.lock:
        try:
            return _state.child().ask(request)
        except _ChildDied:  # once may be the machine's doing, for lack of memory
            return _asked_again(request)


def _asked_again(request: Request) -> tuple[Answer, Any]:
    try:
        return _state.child().ask(request)
    except _ChildDied as died:
        raise UnreadableClip(UNDECODABLE, f"the decoder crashes ({died})") from died


class _ChildDied(Exception):
    """The child ended by itself; the message has its exit code."""


class _Child:
    """A running child process."""

    def __init__(self) -> None:
        asap = Path(__file__).resolve().parents[2]
        text = _MAIN.format(path=sys.path, asap=str(asap))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", text],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            self._refuse(self._within(START_SECONDS, receive).failed)
        except (UnreadableClip, _ChildDied) as error:
            raise RuntimeError(f"the process that decodes clips does not start: {error}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: Request) -> tuple[Answer, Any]:
        """The answer to a request and its frames. Raises as `read_clip`, and `_ChildDied`."""

        def exchange(pipe: Any) -> tuple[Answer, Any]:
            send(cast(BinaryIO, self._process.stdin), request)
            answer: Answer = receive(pipe)
            return answer, filled(pipe, np.empty(answer.shape, np.uint8)) if answer.shape else None

        answer, frames = self._within(request.seconds, exchange)
        self._refuse(answer.failed)
        if answer.error is not None:
            raise answer.error
        return answer, frames

    def _within(self, seconds: float, do: Callable[[Any], Any]) -> Any:
        """The result of `do` with the pipe of answers; kills the child when time is up."""
        over, lock = [], threading.Lock()  # why it is over: done, or late

        def end() -> None:
            with lock:
                if not over:
                    over.append("late")
                    self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            result = do(self._process.stdout)
            with lock:
                over.append("done")
            if over[0] == "late":
                raise EOFError
            return result
        except (EOFError, OSError) as error:
            self.stop()
            if over and over[0] == "late":
                raise UnreadableClip(TIMEOUT, f"not read within {seconds:g} s") from error
            raise _ChildDied(f"exit code {self._process.returncode}") from error
        except BaseException:  # Ctrl-C while a frame is under way: the pipes are out of step
            self.stop()
            raise
        finally:
            timer.cancel()

    def _refuse(self, failed: str | None) -> None:
        if failed is not None:
            self.stop()
            raise RuntimeError(f"the process that decodes clips failed:\n{failed}")

    def stop(self) -> None:
        """Kill it. It holds nothing that has to be saved."""
        self._process.kill()
        self._process.wait()
        self._close()

    def disown(self) -> None:
        """In a forked process: it goes on for its parent."""
        self._process.returncode = 0
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class _State:
    """The child of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._child: _Child | None = None

    def child(self) -> _Child:
        """The running child; a new one if there is none."""
        if self._child is None or not self._child.alive:
            self._child = _Child()
        return self._child

    def stop(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.stop()
            self._child = None


_state = _State()


def pid() -> int:
    """The process id of the child, which is started if there is none."""
    return _state.child().pid


def stop() -> None:
    """End this process's child, if there is one; the next clip starts another."""
    _state.stop()


def _forget() -> None:
    """In a forked process: the child is the parent's, and so is whoever holds its lock."""
    global _state
    inherited = _state._child
    _state = _State()
    if inherited is not None:
        inherited.disown()


atexit.register(stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
