"""Choosing the device of a run; for timing: its clocks, name, condition, memory and a lock."""

import ctypes
import logging
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from filelock import FileLock

from asap.errors import RequestError
from asap.measure.processes import local_rank, local_size, size
from asap.records.disk import acquired
from asap.records.schema import TimedBy

log = logging.getLogger(__name__)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}  # by precision


def pick_device(name: str) -> torch.device:
    """The device with a name; "auto" is CUDA if available. RequestError if it does not exist.

    If torchrun started several processes on this machine, each gets its own GPU.
    """
    if size() > 1 and name.startswith(("auto", "cuda")) and torch.cuda.is_available():
        return _own_gpu(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise RequestError(f"device={name!r} is not possible: use auto, cpu, cuda or cuda:0")
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RequestError(f"device={name!r} cannot be used ({reason}): use device=cpu") from None
    device = torch.device(name)
    if device.index is not None:
        torch.cuda.set_device(device)  # kernels of ours are launched on the current one
    return device


def _own_gpu(name: str) -> torch.device:
    gpus, processes = torch.cuda.device_count(), local_size()
    if ":" in name and processes > 1:
        raise RequestError(f"device={name!r} is one GPU for {processes} processes: use device=auto")
    if processes > gpus:
        raise RequestError(f"{processes} processes for {gpus} GPUs: use --nproc-per-node={gpus}")
    device = torch.device(name) if ":" in name else torch.device("cuda", local_rank())
    torch.cuda.set_device(device)
    return device


@dataclass(frozen=True)
class Elapsed:
    """Time since a start, in seconds.

    `seconds`: by the clock that is used for results. `wall`: wall-clock time. `elsewhere`: CPU time
    of this process's other threads, 0 unless the clock is "cpu".
    """

    seconds: float
    wall: float
    elsewhere: float = 0.0


@runtime_checkable
class Stopwatch(Protocol):
    """Time since `start` by the clock `clock`, including all work of the device."""

    clock: TimedBy

    def start(self) -> None: ...
    def elapsed(self) -> Elapsed: ...


def clock_of(device: torch.device | str, threads: int) -> TimedBy:
    """The clock for a device, when torch computes with the given number of CPU threads.

    A single thread is timed by its own CPU time, which stands still while other programs use the
    processor. Several threads wait for one another, which takes no CPU time, so they are timed by
    the wall clock.
    """
    if torch.device(device).type == "cuda":
        return "cuda events"
    return "cpu" if threads == 1 else "wall"


def stopwatch(device: torch.device | str, threads: int) -> Stopwatch:
    """A stopwatch with the device's clock. The thread that computes must read it."""
    clock = clock_of(device, threads)
    return _Events(torch.device(device)) if clock == "cuda events" else Clocks(clock)


@dataclass
class Clocks:
    """A stopwatch on CPU. The three functions return seconds since any fixed moment."""

    clock: TimedBy
    wall: Callable[[], float] = time.perf_counter
    thread: Callable[[], float] = time.thread_time
    process: Callable[[], float] = time.process_time
    began: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def start(self) -> None:
        self.began = self._now()

    def elapsed(self) -> Elapsed:
        wall, thread, process = (
            now - then for now, then in zip(self._now(), self.began, strict=True)
        )
        if self.clock == "wall":
            return Elapsed(wall, wall)
        return Elapsed(thread, wall, max(0.0, process - thread))

    def _now(self) -> tuple[float, float, float]:
        return self.wall(), self.thread(), self.process()


class _Events:
    clock: TimedBy = "cuda events"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin = torch.cuda.Event(enable_timing=True)
        self.end = torch.cuda.Event(enable_timing=True)
        self.began = 0.0

    def start(self) -> None:
        torch.cuda.synchronize(self.device)
        self.began = time.perf_counter()
        self.begin.record(torch.cuda.current_stream(self.device))

    def elapsed(self) -> Elapsed:
        self.end.record(torch.cuda.current_stream(self.device))
        self.end.synchronize()
        wall = time.perf_counter() - self.began
        return Elapsed(self.begin.elapsed_time(self.end) / 1000, wall)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def keep_memory(device: torch.device | str) -> bool:
    """Let this process keep the memory it frees, if it computes on the CPU; True if that worked.

    By default glibc returns large blocks to the system and requests them again in the next call,
    page by page. How often depends on what else is on the heap, so it differs between processes and
    models: on a busy machine it took up to 30 % of a dense model's CPU time. The setting lasts
    until the process ends.
    """
    if torch.device(device).type == "cuda" or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    return mallopt is not None and bool(mallopt(_M_TRIM_THRESHOLD, -1) and mallopt(_M_MMAP_MAX, 0))


@contextmanager
def measuring_alone(device: torch.device | str, folder: Path | None = None) -> Iterator[None]:
    """Exclusive lock on the device against other measurements; logs a warning while it waits.

    Other programs cannot be kept off the device. RequestError if the lock file cannot be used.
    """
    path = (folder or Path(tempfile.gettempdir())) / f"asap-throughput-{_lock_name(device)}.lock"
    said = f"another measurement is running on {device}: waiting for it"
    try:
        # another user may want to measure next
        lock = acquired(FileLock(path, mode=0o666), lambda: log.warning("%s", said))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RequestError(
            f"lock file {path} cannot be used ({reason}): make it writable, or set TMPDIR"
        ) from error
    with lock:
        yield


def _lock_name(device: torch.device | str) -> str:
    """A name for the hardware that is the same in every process, however devices are numbered."""
    device = torch.device(device)
    if device.type != "cuda":
        return device.type
    return f"cuda-{torch.cuda.get_device_properties(device).uuid}"


def device_name(device: torch.device | str) -> str:
    """The name of the hardware, for tables."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def machine(device: torch.device | str) -> dict[str, Any]:
    """What a time depends on besides the work: part of the key of records of times."""
    threads = torch.get_num_threads()
    return {
        "device_name": device_name(device),
        "threads": threads,
        "clock": clock_of(device, threads),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": _driver(device),
    }


def _driver(device: torch.device | str) -> int | None:
    """The CUDA driver's version number; None without a driver."""
    ask = getattr(torch._C, "_cuda_getDriverVersion", None)
    return int(ask()) if torch.device(device).type == "cuda" and ask else None


def gauge(device: torch.device | str) -> Callable[[], dict[str, float]]:
    """A function that reads SM clock (MHz), power (W) and temperature (Celsius).

    Values that cannot be read are left out; on a CPU the result is empty.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return dict
    readers = {
        "sm_mhz": lambda: float(torch.cuda.clock_rate(device)),
        "watts": lambda: torch.cuda.power_draw(device) / 1000,
        "celsius": lambda: float(torch.cuda.temperature(device)),
    }
    readable = {name: read for name, read in readers.items() if _reading(name, read) is not None}
    return lambda: {
        name: value
        for name, read in readable.items()
        if (value := _reading(name, read)) is not None
    }


def _reading(name: str, read: Callable[[], float]) -> float | None:
    try:
        return read()
    except Exception as error:  # the driver library, if installed, has its own error types
        log.info("%s cannot be read: %s", name, error)
        return None
