"""The recorder of CUDA graphs, over what torch 2.11 and 2.13 do where a recording fails.

`torch.cuda.graph` restores nothing if it cannot begin or end: its stream stays the current one, and
the allocator, which counts the recording as going on, refuses to record or to free memory.
"""

import gc
import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from asap.core.constants import on_device
from asap.engine import graphs
from asap.engine.graphs import CUDAGraphs, cuda_graphs


class Torch:
    """The parts of `torch.cuda` that the recorder uses. `spoilt`: the next recording cannot end."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.usual = self.current = SimpleNamespace(device_index=0)
        self.spoilt = False
        self.pools: list[int] = []
        self.graphs: list[Any] = []
        self.recording: set[int] = set()
        for name in ("Stream", "CUDAGraph", "graph_pool_handle", "current_stream", "set_stream"):
            patch.setattr(torch.cuda, name, getattr(self, name))
        patch.setattr(torch.cuda, "graph", lambda *given, **named: Recording(self, *given, **named))
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: bool(self.recording))
        for name, of in (
            ("_cuda_endAllocateToPool", self.end),
            ("_cuda_releasePool", self.release),
        ):
            patch.setattr(torch._C, name, of, raising=False)
        patch.setattr(graphs, "_of_thread", threading.local())

    def Stream(self, device: torch.device) -> Any:
        return SimpleNamespace(device_index=device.index)

    def CUDAGraph(self) -> Any:
        self.graphs.append(SimpleNamespace(replay=lambda: None))
        return self.graphs[-1]

    def graph_pool_handle(self) -> int:
        self.pools.append(0)
        return len(self.pools) - 1

    def current_stream(self, device: torch.device) -> Any:
        return self.current

    def set_stream(self, stream: Any) -> None:
        self.current = stream

    def end(self, device: int, pool: int) -> None:
        if pool not in self.recording:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.recording.remove(pool)

    def release(self, device: int, pool: int) -> None:
        self.pools[pool] -= 1


class Recording:
    def __init__(self, torch: Torch, graph: Any, pool: int, stream: Any, **mode: str) -> None:
        assert mode == {"capture_error_mode": "thread_local"}
        self.torch, self.pool, self.stream = torch, pool, stream

    def __enter__(self) -> None:
        assert not gc.isenabled()
        if self.torch.recording:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")
        self.before, self.torch.current = self.torch.current, self.stream
        self.torch.pools[self.pool] += 1
        self.torch.recording.add(self.pool)

    def __exit__(self, *_: object) -> None:
        if self.torch.spoilt:
            self.torch.spoilt = False
            raise RuntimeError("operation failed due to a previous error during capture")
        self.torch.end(0, self.pool)
        self.torch.current = self.before


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Torch:
    made = Torch(monkeypatch)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)  # there is no memory on a GPU
    return made


def recorder() -> CUDAGraphs:
    return cuda_graphs(torch.device("cuda"))


def test_a_pool_is_held_by_a_graph_that_stays(cuda: Torch) -> None:
    """cuBLAS keeps memory in it; torch refuses to record into one whose graphs are all gone."""
    for number in range(3):
        assert recorder().record(lambda n=number: n)() == number
    assert cuda.pools == [4] and len(cuda.graphs) == 4
    assert recorder().room.first[0] is cuda.graphs[0]  # type: ignore[union-attr]


def test_after_a_recording_that_failed_all_is_as_before(cuda: Torch) -> None:
    replay = recorder().record(lambda: "first")
    cuda.spoilt = True
    with pytest.raises(RuntimeError, match="previous error during capture"):
        recorder().record(lambda: "spoilt")
    assert cuda.current is cuda.usual and not cuda.recording and gc.isenabled()
    assert cuda.pools == [2], "the failed recording holds the pool"
    assert replay() == "first" and recorder().record(lambda: "next")() == "next"
    assert cuda.pools == [2, 2], "the next ones have a pool and a stream of their own"


def test_work_that_raises_ends_its_recording(cuda: Torch) -> None:
    def refuses() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        recorder().record(refuses)
    assert cuda.current is cuda.usual and not cuda.recording


def test_memory_that_runs_out_takes_no_second_pool(cuda: Torch) -> None:
    def too_much() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        recorder().record(too_much)
    assert recorder().record(lambda: "smaller")() == "smaller" and len(cuda.pools) == 1


def test_numbers_of_the_host_are_not_copied_inside_a_recording(cuda: Torch) -> None:
    """The copy would be recorded, with an address of the host that is free memory later."""
    with pytest.raises(RuntimeError, match="new to the device"):
        recorder().record(lambda: on_device((9, 8, 7), torch.device("cuda", 0)))


def test_each_thread_has_memory_of_its_own(cuda: Torch) -> None:
    found = []
    other = threading.Thread(target=lambda: found.append(recorder()))
    other.start()
    other.join()
    assert recorder() is cuda_graphs(torch.device("cuda", 0)) and found[0] is not recorder()
