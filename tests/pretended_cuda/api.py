"""`torch.cuda` of a machine with one device, as far as the project uses it."""

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from .device import PretendedDevice, Refused
from .recording import Recording
from .tensor import CUDA

GUARDS = "_ZN3c104impl26device_guard_impl_registryE"
NUMBER_OF_CUDA, NUMBER_OF_META = 1, 14  # of c10::DeviceType


@contextmanager
def guarded() -> Iterator[None]:
    """Torch for CPUs lets tensors be indexed that say they are on CUDA: their device gets the
    guard of the device `meta`, which does nothing.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * 20).in_dll(library, GUARDS)
    before = guards[NUMBER_OF_CUDA]
    guards[NUMBER_OF_CUDA] = guards[NUMBER_OF_META]
    try:
        yield
    finally:
        guards[NUMBER_OF_CUDA] = before


def number_of(device: Any) -> int:
    """A device's number. ValueError for a device that is not CUDA, as `torch.cuda` has it."""
    if device is None or isinstance(device, int):
        number = device or 0
    else:
        device = torch.device(device)
        if device.type != "cuda":
            raise ValueError(f"Expected a cuda device, but got: {device}")
        number = device.index or 0
    if number != 0:
        raise Refused(f"cuda:{number}: invalid device ordinal")
    return number


class Api:
    """The functions and classes that take the place of those of `torch.cuda`."""

    def __init__(self, device: PretendedDevice) -> None:
        self.device = device
        api = self

        class Stream:
            def __init__(self, device: Any = None, priority: int = 0) -> None:
                self.device_index = number_of(device)

            def synchronize(self) -> None:
                api.device.wait("Stream.synchronize")

            def wait_stream(self, stream: "Stream") -> None:
                assert isinstance(stream, Stream)

            def wait_event(self, event: "Event") -> None:
                assert isinstance(event, Event)

            def record_event(self, event: Any = None) -> Any:
                event = Event() if event is None else event
                event.record(self)
                return event

        class Event:
            def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
                self.timed, self.at = enable_timing, None

            def record(self, stream: Any = None) -> None:
                assert stream is None or isinstance(stream, Stream)
                if api.device.recording is not None and self.timed:
                    raise Refused("an event with a time inside a capture")
                self.at = time.perf_counter()

            def synchronize(self) -> None:
                if self.at is not None:
                    api.device.wait("Event.synchronize")

            def query(self) -> bool:
                return not api.device.sent

            def elapsed_time(self, end: "Event") -> float:
                if not (self.timed and end.timed):
                    raise Refused("elapsed_time of an event without enable_timing")
                if self.at is None or end.at is None:
                    raise Refused("elapsed_time of an event that was not recorded")
                return max(1e-3, 1000 * (end.at - self.at))

        class CUDAGraph:
            def __init__(self, keep_graph: bool = False) -> None:
                self.recorded: Recording | None = None

            def replay(self) -> None:
                if self.recorded is None:
                    raise Refused("a graph that was not captured is replayed")
                if api.device.recording is not None:
                    raise Refused("a graph is replayed inside a capture")
                api.replays += 1
                self.recorded.replay()

            def reset(self) -> None:
                self.recorded = None

        @contextmanager
        def graph(
            cuda_graph: CUDAGraph,
            pool: Any = None,
            stream: Any = None,
            capture_error_mode: str = "global",
        ) -> Iterator[None]:
            assert isinstance(cuda_graph, CUDAGraph)
            assert pool is None or pool in api.pools, "a pool that graph_pool_handle gave"
            assert stream is None or isinstance(stream, Stream)
            assert capture_error_mode in ("global", "thread_local", "relaxed")
            api.device.wait("the begin of a capture")
            with api.device.capturing() as recorded:
                yield
            cuda_graph.recorded = recorded
            api.captures += 1

        self.captures = self.replays = 0
        self.pools = set[tuple[int, int]]()
        self.Stream, self.Event, self.CUDAGraph, self.graph = Stream, Event, CUDAGraph, graph
        self.stream_now = Stream()

    @contextmanager
    def current(self, device: Any) -> Iterator[None]:
        """`torch.cuda.device`."""
        number_of(device)
        yield

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        """`torch.cuda.stream`."""
        assert stream is None or isinstance(stream, self.Stream)
        yield

    def pool(self) -> tuple[int, int]:
        """`torch.cuda.graph_pool_handle`."""
        handle = (0, len(self.pools) + 1)
        self.pools.add(handle)
        return handle

    def put_in_place(self, patch: pytest.MonkeyPatch) -> None:
        """Until the patch is undone, `torch.cuda` is this."""
        about = SimpleNamespace(
            name="Pretended GPU", uuid="0-1-2", total_memory=80 << 30, major=9, minor=0,
            multi_processor_count=132,
        )  # fmt: skip

        def told(value: Any) -> Any:
            return lambda device=None: (number_of(device), value)[1]

        def waits(device: Any = None) -> None:
            number_of(device)
            self.device.wait("torch.cuda.synchronize")

        cuda = torch.cuda
        for name, value in {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "_lazy_init": lambda: None,
            "init": lambda: None,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": lambda device: number_of(device),
            "device": self.current,
            "get_device_name": told(about.name),
            "get_device_properties": told(about),
            "get_device_capability": told((9, 0)),
            "synchronize": waits,
            "Stream": self.Stream,
            "stream": self.stream,
            "current_stream": told(self.stream_now),
            "set_stream": lambda stream: None,
            "default_stream": told(self.stream_now),
            "Event": self.Event,
            "CUDAGraph": self.CUDAGraph,
            "graph": self.graph,
            "graph_pool_handle": self.pool,
            "is_current_stream_capturing": lambda: self.device.recording is not None,
            "empty_cache": self.outside_captures("empty_cache"),
            "memory_allocated": told(1 << 20),
            "memory_reserved": told(1 << 21),
            "max_memory_allocated": told(3 << 20),
            "reset_peak_memory_stats": told(None),
            "mem_get_info": told((70 << 30, 80 << 30)),
            "memory_stats": told({}),
            "clock_rate": told(1980),
            "power_draw": told(300_000),
            "temperature": told(45),
            "manual_seed": lambda seed: None,
            "manual_seed_all": lambda seed: None,
        }.items():
            patch.setattr(cuda, name, value)
        patch.setattr(torch.cuda.memory, "empty_cache", cuda.empty_cache)

    def outside_captures(self, name: str) -> Any:
        def work() -> None:
            if self.device.recording is not None:
                raise Refused(f"{name} inside a capture")

        return work


assert CUDA.index == 0
