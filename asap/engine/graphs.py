"""Recorded work: what the host would launch one by one is recorded once and replayed at once.

Below DeiT-Base at batch 256 a forward pass on a GPU is limited by the host, which takes longer to
launch a kernel than the device to run it. A CUDA graph is launched whole.

What is recorded must not depend on the host: its shapes, and every number that is no tensor, are
the same in each call with the same key, it never reads the device, and it copies nothing from the
host (`core/constants.py`). Work that reads is found by its first call and never recorded.
"""

import gc
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from asap.core.constants import owned
from asap.engine.host import reads

log = logging.getLogger(__name__)
T = TypeVar("T")
MOST = 1024  # graphs of one owner; the least recently used one goes first


@runtime_checkable
class Recorder(Protocol):
    """Records work on a device."""

    def record(self, work: Callable[[], T]) -> Callable[[], T]:
        """Record the work without running it. Calling the result runs it and gives what it gave
        when it was recorded: tensors with new contents, valid until the next run.

        RuntimeError if it cannot be recorded.
        """
        ...


class Unrecordable(Exception):
    """A part of some work cannot be recorded, which whoever runs it does by itself from then on."""


@dataclass
class _Entry:
    """What is known of a key: its calls so far, its recording, and the inputs' own memory."""

    replay: Callable[[], Any] | None = None
    inputs: tuple[Tensor, ...] = ()
    fixed: bool = True  # False: it cannot be recorded


class Graphs:
    """Recordings by key, at most `most`. They share their device's memory for intermediate values;
    what they read and write otherwise belongs to whoever owns this object, and must live as long.
    """

    def __init__(self, recorder: Recorder, most: int = MOST) -> None:
        self.recorder, self.most = recorder, most
        self.entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self.failed: str | None = None  # why something could not be recorded
        self.recording = False

    def run(self, key: Hashable, work: Callable[..., T], *inputs: Tensor) -> T:
        """`work(*inputs)`. Its first call runs it as it is, which compiles kernels and chooses
        algorithms; the second records it; from then on it is replayed on copies of the inputs.

        Results of a replay are overwritten by the next run of any key: copy what is to last.
        """
        entry = self.entries.get(key)
        if entry is None:
            return self._first(key, work, inputs)
        self.entries.move_to_end(key)
        if not entry.fixed:
            return work(*inputs)
        if entry.replay is None and not self._record(entry, work, inputs):
            return work(*inputs)
        for own, given in zip(entry.inputs, inputs, strict=True):
            own.copy_(given)
        return cast(Callable[[], T], entry.replay)()

    def _first(self, key: Hashable, work: Callable[..., T], inputs: tuple[Tensor, ...]) -> T:
        before = reads()
        # Aligned as the recording's own memory is: else Triton would compile for that while the
        # work is recorded.
        found = work(*(one if one.data_ptr() % 16 == 0 else one.clone() for one in inputs))
        self.entries[key] = _Entry(fixed=reads() == before)
        if len(self.entries) > self.most:
            self.entries.popitem(last=False)
        return found

    def _record(self, entry: _Entry, work: Callable[..., Any], inputs: tuple[Tensor, ...]) -> bool:
        """Record the work on memory of its own; False, with a warning, if that fails.

        OutOfMemoryError if memory runs out; Unrecordable if the work says that of a part.
        """
        with torch.inference_mode(False):
            own = tuple(torch.empty_like(given) for given in inputs)
        self.recording = True
        try:
            replay = self.recorder.record(lambda: work(*own))
        except RuntimeError as error:
            for kind in (torch.OutOfMemoryError, Unrecordable):  # the caller can do something
                if (cause := _cause(error, kind)) is not None:
                    raise cause from None
            entry.fixed, self.failed = False, str(error).splitlines()[0]
            log.warning("not recorded as a CUDA graph, launched step by step: %s", self.failed)
            return False
        finally:
            self.recording = False
        entry.replay, entry.inputs = replay, own
        return True


def _cause(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """The error of a kind that led to this one: after it a recording may also fail to end."""
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error


class CUDAGraphs:
    """Records CUDA graphs that share one pool of memory and one stream for recording."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.room: _Room | None = None  # made when something is recorded first

    def record(self, work: Callable[[], T]) -> Callable[[], T]:
        if self.room is None:
            self.room = _Room(self.device)
        try:
            graph, found, constants = self.room.capture(work)
        except torch.OutOfMemoryError:
            raise  # another pool would need more
        except BaseException:
            self.room = None  # graphs recorded before keep the old one
            raise

        def replay() -> T:
            assert constants is not None  # the graph reads them
            graph.replay()
            return found

        return replay


class _Room:
    """A stream for recording, and the pool in which what is recorded has its memory."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()
        # A pool whose graphs are all gone must not be used again, though cuBLAS keeps a workspace
        # in it: this graph never goes. Recorded outside inference mode, since torch also makes the
        # random numbers' seed with the first graph, and writes to it in every replay.
        with torch.inference_mode(False):
            self.first = self.capture(lambda: torch.zeros(1, device=device))

    def capture(self, work: Callable[[], T]) -> tuple[Any, T, list[Tensor]]:
        """A graph of the work, what the work gave, and the constants that it reads."""
        graph = torch.cuda.CUDAGraph()
        with _one_at_a_time, _nothing_freed(), torch.cuda.device(self.device):
            before = torch.cuda.current_stream(self.device)
            try:
                with (
                    owned() as constants,
                    torch.cuda.graph(
                        graph,
                        pool=self.pool,
                        stream=self.stream,
                        capture_error_mode="thread_local",  # other threads may load data meanwhile
                    ),
                ):
                    found = work()
            except BaseException:
                self._abandon(before)
                raise
        return graph, found, constants

    def _abandon(self, before: Any) -> None:
        """Undo what `torch.cuda.graph` leaves behind where it fails to begin or to end.

        Its stream stays the current one, on which nothing waits for what other streams did. And the
        allocator holds that a recording goes on: no memory is given back any more, not even for
        another recording.
        """
        torch.cuda.set_stream(before)
        place = before.device_index, self.pool
        try:
            torch._C._cuda_endAllocateToPool(*place)
            torch._C._cuda_releasePool(*place)
        except (AttributeError, RuntimeError):  # it had ended
            return


@contextmanager
def _nothing_freed() -> Iterator[None]:
    """A graph or an event that the garbage collector frees meanwhile would spoil a recording."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


_one_at_a_time = threading.Lock()  # torch records one graph at a time in a process
_of_thread = threading.local()


def cuda_graphs(device: torch.device) -> CUDAGraphs:
    """The recorder of a device, the same for all models, so that they share memory; but each thread
    has its own, since two that run at once would write to that memory in turn.
    """
    recorders: dict[int, CUDAGraphs] = _of_thread.__dict__.setdefault("recorders", {})
    index = torch.cuda.current_device() if device.index is None else device.index
    if index not in recorders:
        recorders[index] = CUDAGraphs(torch.device("cuda", index))
    return recorders[index]
