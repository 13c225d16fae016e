"""The time between marks that a computation sets, by the clock of its device."""

from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch

from asap.measure.device import Stopwatch, stopwatch
from asap.records.schema import TimedBy


@runtime_checkable
class Spans(Protocol):
    """Marks on a device's own time line: `start` sets the first one, `mark` each further one."""

    clock: TimedBy

    def start(self) -> None: ...
    def mark(self) -> None: ...
    def seconds(self) -> list[float]:
        """Between each mark and the next. Waits for the device once."""
        ...


def spans_on(device: torch.device | str, threads: int) -> Spans:
    """Spans by the device's clock, see `clock_of`. The thread that computes must set the marks."""
    device = torch.device(device)
    return _Events(device) if device.type == "cuda" else Marks(stopwatch(device, threads))


class Marks:
    """Spans by a stopwatch on the CPU."""

    def __init__(self, watch: Stopwatch) -> None:
        self.clock: TimedBy = watch.clock
        self._watch = watch
        self._read: list[float] = []

    def start(self) -> None:
        self._read = [0.0]
        self._watch.start()

    def mark(self) -> None:
        self._read.append(self._watch.elapsed().seconds)

    def seconds(self) -> list[float]:
        return [b - a for a, b in pairwise(self._read)]


class _Events:
    clock: TimedBy = "cuda events"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._set: list[torch.cuda.Event] = []

    def start(self) -> None:
        torch.cuda.synchronize(self._device)
        self._set = []
        self.mark()

    def mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        self._set.append(event)

    def seconds(self) -> list[float]:
        self._set[-1].synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in pairwise(self._set)]
