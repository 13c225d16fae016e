"""The device that is timed: its stopwatch, its name, its condition, and a lock against company."""

import logging
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from filelock import FileLock, Timeout

from asap.errors import RequestError

log = logging.getLogger(__name__)

Clock = Callable[[], float]  # seconds since any fixed moment


@runtime_checkable
class Stopwatch(Protocol):
    """Seconds between `start` and `elapsed`, all work of the device included."""

    def start(self) -> None: ...
    def elapsed(self) -> float: ...


def stopwatch(device: torch.device | str, clock: Clock = time.perf_counter) -> Stopwatch:
    """CUDA events on CUDA, else `clock`."""
    device = torch.device(device)
    return _Events(device) if device.type == "cuda" else _Wall(clock)


@dataclass
class _Wall:
    clock: Clock = time.perf_counter
    began: float = 0.0

    def start(self) -> None:
        self.began = self.clock()

    def elapsed(self) -> float:
        return self.clock() - self.began


class _Events:
    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin = torch.cuda.Event(enable_timing=True)
        self.end = torch.cuda.Event(enable_timing=True)

    def start(self) -> None:
        torch.cuda.synchronize(self.device)
        self.begin.record(torch.cuda.current_stream(self.device))

    def elapsed(self) -> float:
        self.end.record(torch.cuda.current_stream(self.device))
        self.end.synchronize()
        return self.begin.elapsed_time(self.end) / 1000


@contextmanager
def measuring_alone(device: torch.device | str, folder: Path | None = None) -> Iterator[None]:
    """Hold the device against other measurements on this machine; waits, saying so, for them.

    Other programs cannot be kept away. RequestError if the lock file cannot be used.
    """
    path = (folder or Path(tempfile.gettempdir())) / f"asap-throughput-{_lock_name(device)}.lock"
    lock = FileLock(path, mode=0o666)  # another user may want to measure next
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("another measurement is running on %s: waiting for it", device)
            lock.acquire()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RequestError(
            f"lock file {path} cannot be used ({reason}): make it writable, or set TMPDIR"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _lock_name(device: torch.device | str) -> str:
    """The same for one piece of hardware in every process, however devices are numbered there."""
    device = torch.device(device)
    if device.type != "cuda":
        return device.type
    return f"cuda-{torch.cuda.get_device_properties(device).uuid}"


def device_name(device: torch.device | str) -> str:
    """The hardware's own name, as a table should give it."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def gauge(device: torch.device | str) -> Callable[[], dict[str, float]]:
    """Reads SM clock (MHz), power (W), temperature (Celsius); empty where none is readable."""
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
    except Exception as error:  # the driver library has types of its own, if it is installed at all
        log.info("%s cannot be read: %s", name, error)
        return None
