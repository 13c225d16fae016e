"""The processes of one run, as torchrun starts them, and how they agree.

    torchrun --nproc-per-node=8 -m asap.run ...

Rank 0 decides, records and prints; the others only evaluate. Alone, without torchrun, everything
here is an ordinary call. What one rank raises inside `together`, `first` or `agreed` is raised on
all of them, so no rank waits for one that has given up. A rank that was killed cannot tell: then
the others end, as torchrun would end them.
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

# A rank may wait long for good reasons: rank 0 calibrates, times, or waits for another run's lock.
# One that dies is noticed at once, by its closed connection.
PATIENCE = timedelta(hours=24)
_GIVEN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class RankFailed(Exception):
    """What another rank could not do; its traceback is in the notes."""


@dataclass(frozen=True)
class _Fault:
    rank: int
    request: bool
    text: str
    trace: str

    def error(self) -> Exception:
        error = RequestError(self.text) if self.request else RankFailed(self.text)
        error.add_note(self.trace)
        error.told = True  # type: ignore[attr-defined]
        return error


# ---- who there is


def started_by_torchrun() -> bool:
    """Whether the environment asks for more than one process."""
    return all(name in os.environ for name in _GIVEN) and int(os.environ["WORLD_SIZE"]) > 1


def join() -> None:
    """Meet the other processes, if there are any. Call it once, before anything else here."""
    if not started_by_torchrun() or dist.is_initialized():
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _end_with_parent()
        _meet_torchrun()
    try:
        dist.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        _lost(error)


def leave() -> None:
    """Part from the others; nothing is waited for."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, 0 alone."""
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


def told(error: BaseException) -> bool:
    """Whether another rank raised the error first, and says it."""
    return getattr(error, "told", False)


# ---- what they do


def together(act: Callable[[], T]) -> T:
    """Every rank does it; its own result. All raise what the first rank that fails raises."""
    if size() == 1:
        return act()
    value, fault, error = _attempt(act)
    faults = [other for other in gather(fault) if other is not None]
    if faults:
        raise _of(faults[0], error)
    return value  # type: ignore[return-value]


def leaders_first(act: Callable[[], T]) -> T:
    """`together`, but the first rank of every machine does it before the others there, which can
    use what it has left on the disk.
    """
    leads = local_rank() == 0
    ahead = together(lambda: act() if leads else None)
    after = together(lambda: None if leads else act())
    return ahead if leads else after  # type: ignore[return-value]


def first(act: Callable[[], T]) -> T | None:
    """Rank 0 does it while the others wait; its result there, None elsewhere."""
    return _from_first(act, tell=False)


def agreed(act: Callable[[], T]) -> T:
    """Rank 0 does it, and all have the result, which is sent to them."""
    return _from_first(act, tell=True)  # type: ignore[return-value]


def gather(value: T) -> list[T]:
    """Every rank's value, in the order of the ranks."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    _exchange(lambda: dist.all_gather_object(values, value))
    return values


def share(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """This rank's part of ranges [start, stop): a contiguous run of their numbers.

    Every number is in one rank's part, and the parts differ by one number at most. Rank 0 has the
    largest.
    """
    total = sum(stop - start for start, stop in ranges)
    begin, end = (-(-total * r // size()) for r in (rank(), rank() + 1))
    parts, position = [], 0
    for start, stop in ranges:
        low, high = max(begin - position, 0), min(end - position, stop - start)
        if low < high:
            parts.append((start + low, start + high))
        position += stop - start
    return parts


# ---- parts


def _from_first(act: Callable[[], T], tell: bool) -> T | None:
    if size() == 1:
        return act()
    value, fault, error = _attempt(act) if rank() == 0 else (None, None, None)
    box = [(fault, value if tell else None)]
    _exchange(lambda: dist.broadcast_object_list(box, src=0))
    fault, sent = box[0]
    if fault is not None:
        raise _of(fault, error)
    return value if rank() == 0 else sent


def _attempt(act: Callable[[], T]) -> tuple[T | None, _Fault | None, Exception | None]:
    try:
        return act(), None, None
    except Exception as error:  # told to all ranks, then raised
        request = isinstance(error, RequestError)
        said = one_line(error, kind=not request)
        where = "" if rank() == 0 else f"rank {rank()}: "
        trace = "".join(traceback.format_exception(error))
        return None, _Fault(rank(), request, where + said, trace), error


def _of(fault: _Fault, error: Exception | None) -> Exception:
    """The rank's own error where it is the first to fail, else what it was told."""
    return error if error is not None and fault.rank == rank() else fault.error()


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
    """Without torchrun nobody would end this process, which would go on writing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _meet_torchrun() -> None:
    """End where torchrun died before the kernel was asked to tell: nobody would ever answer."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        socket.create_connection(address, timeout=60).close()
    except OSError as error:
        _lost(error)
