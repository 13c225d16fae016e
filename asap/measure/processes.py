"""The processes of one run, as torchrun starts them: a leader, rank 0, and its workers.

    torchrun --nproc-per-node=8 -m asap.run ...

The leader is the ordinary program. The others wait in `serve` for a task, do it as the leader does
its own part, and answer. Nothing else needs them: while the leader calibrates, times or draws they
wait without work. A process that is killed cannot answer: then the others end, as torchrun would
end them.
"""

import ctypes
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from asap.errors import RequestError, one_line

log = logging.getLogger(__name__)
T = TypeVar("T")
State = TypeVar("State")

# A worker may wait long for good reasons: the leader calibrates, times, or waits for another run's
# lock. A process that dies is noticed at once, by its closed connection.
PATIENCE = timedelta(hours=24)
_GIVEN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_DISMISSED = "dismissed"


class RankFailed(Exception):
    """The error of a worker that failed; its traceback is in the exception's notes."""


@dataclass(frozen=True)
class _Fault:
    """An exception in the form that is sent to the leader."""

    request: bool
    text: str
    trace: str

    def error(self) -> Exception:
        error = RequestError(self.text) if self.request else RankFailed(self.text)
        error.add_note(self.trace)
        return error


# ---- who there is


def started_by_torchrun() -> bool:
    """True if the environment asks for more than one process."""
    return all(name in os.environ for name in _GIVEN) and int(os.environ["WORLD_SIZE"]) > 1


def join() -> None:
    """Connect to the other processes, if any. Call this once, before all other functions here."""
    if not started_by_torchrun() or dist.is_initialized():
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _end_with_parent()
        _meet_torchrun()
    try:
        dist.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        _lost(error)


def rank() -> int:
    """This process's number: 0 is the leader, or a process alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes share the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ["LOCAL_RANK"]) if size() > 1 else 0


def local_size() -> int:
    """How many of the processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size())) if size() > 1 else 1


# ---- what they do


def ask(task: Callable[[State], T], own: Callable[[], T]) -> list[T]:
    """Called by the leader: every worker does `task(its state)`, the leader `own()` meanwhile.

    Returns all answers by rank. A task is pickled. Once all have answered, raises the leader's own
    error, else RequestError or RankFailed with the error of the first worker that failed.
    """
    _send(task)
    value, _, error = _attempt(own)
    answers = _answers((value, None))
    if error is not None:
        raise error
    if fault := next((fault for _, fault in answers if fault is not None), None):
        raise fault.error()
    return [value for value, _ in answers]


def serve(state: Any) -> None:
    """Called by a worker: do the leader's tasks until it dismisses this process.

    `state` is kept from one task to the next.
    """
    while (task := _send(None)) != _DISMISSED:
        value, fault, _ = _attempt(lambda task=task: task(state))
        _answers((value, fault))


def dismiss() -> None:
    """Called by the leader at the end of the program: dismiss the workers, which then end."""
    if dist.is_initialized():
        _send(_DISMISSED)


def leave() -> None:
    """Close the connections to the other processes without waiting for them."""
    if dist.is_initialized():
        dist.destroy_process_group()


def share(ranges: list[tuple[int, int]], rank: int, size: int) -> list[tuple[int, int]]:
    """One rank's part of ranges [start, stop): a contiguous run of their numbers.

    Every number is in one rank's part, and the parts differ by one number at most. Rank 0 has the
    largest.
    """
    total = sum(stop - start for start, stop in ranges)
    begin, end = (-(-total * r // size) for r in (rank, rank + 1))
    parts, position = [], 0
    for start, stop in ranges:
        low, high = max(begin - position, 0), min(end - position, stop - start)
        if low < high:
            parts.append((start + low, start + high))
        position += stop - start
    return parts


# ---- parts


def _send(task: Any) -> Any:
    """The leader's task, received by every rank."""
    box = [task]
    _exchange(lambda: dist.broadcast_object_list(box, src=0))
    return box[0]


def _answers(own: tuple[Any, _Fault | None]) -> list[tuple[Any, _Fault | None]]:
    """On the leader, the value or fault of every rank, in rank order; elsewhere an empty result."""
    found: list[Any] | None = [None] * size() if rank() == 0 else None
    _exchange(lambda: dist.gather_object(own, found, dst=0))
    return found or []


def _attempt(act: Callable[[], T]) -> tuple[T | None, _Fault | None, Exception | None]:
    try:
        return act(), None, None
    except Exception as error:  # a worker's is sent to the leader, which raises it
        request = isinstance(error, RequestError)
        said = one_line(error, kind=not request)
        trace = "".join(traceback.format_exception(error))
        return None, _Fault(request, f"rank {rank()}: {said}", trace), error


def _exchange(act: Callable[[], object]) -> None:
    try:
        act()
    except RuntimeError as error:  # gloo's, for a closed connection or a time-out
        _lost(error)


def _lost(error: Exception) -> None:
    reason = one_line(error)[:200]
    log.error("another process of this run is gone: run the same command again (%s)", reason)
    sys.exit(1)


def _end_with_parent() -> None:
    """Let the kernel end this process with torchrun; otherwise it would go on writing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _meet_torchrun() -> None:
    """Exit if torchrun died before PR_SET_PDEATHSIG was set: no other process would answer."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        socket.create_connection(address, timeout=60).close()
    except OSError as error:
        _lost(error)
