"""Interleaved timing: every candidate once per round, in shuffled order, over the same batches.

The speed of a machine drifts with its temperature, clocks and other programs; a model timed twice,
minutes apart, can differ by more than two methods do. Candidates timed in one round have the same
conditions, so ratios are computed per round. Many short rounds are better than a few long ones: a
temporary slowdown then covers whole rounds, and the median of many noisy ratios is precise.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from asap.errors import RequestError
from asap.measure.device import Elapsed, Stopwatch
from asap.measure.resources import Meter
from asap.records.schema import TimedBy

FASTEST = 1e-6  # seconds per call; limits the number of calls before the clock is read
Gauge = Callable[[], dict[str, float]]  # reads the device's current condition


@dataclass(frozen=True)
class ThroughputPlan:
    """How long to time. RequestError for values with which nothing would be timed.

    rounds: rounds that count; `discard` more are run before them. seconds_per_round: each candidate
    runs at least this long in a round. warmup_seconds: for all candidates together, after every one
    has run every batch shape. short: this plan is shorter than the protocol, which records will
    note.
    """

    rounds: int = 20
    seconds_per_round: float = 0.5
    discard: int = 2
    short: bool = False
    warmup_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("discard", 0), ("warmup_seconds", 0)):
            if not getattr(self, name) >= least:
                raise RequestError(f"{name}={getattr(self, name)}: give at least {least}")
        if not 0 < self.seconds_per_round < math.inf:
            raise RequestError(f"seconds_per_round={self.seconds_per_round}: give more than 0")

    def steps(self, candidates: int) -> int:
        """The number of calls of `progress`: one per candidate for the warm-up and each round."""
        return candidates * (1 + self.discard + self.rounds)


@runtime_checkable
class Batch(Protocol):
    """The argument of a candidate, such as a tensor."""

    def __len__(self) -> int: ...
    @property
    def shape(self) -> Any: ...


@dataclass(frozen=True)
class Lap:
    """One candidate in one round: number of images, time, the device's condition at the end, and
    the joules that the device used if a meter tells them.
    """

    images: int
    took: Elapsed
    condition: dict[str, float] = field(default_factory=dict)
    joules: float | None = None


@dataclass(frozen=True)
class Timings:
    """All laps of the rounds that count and the batches that were run, by candidate; the clock."""

    laps: dict[str, tuple[Lap, ...]]
    visited: dict[str, tuple[int, ...]]  # indices into the batches, ascending
    clock: TimedBy

    def images_per_s(self, candidate: str) -> list[float]:
        """Images per second by `clock`, one number per round."""
        return [lap.images / lap.took.seconds for lap in self.laps[candidate]]

    def wall_images_per_s(self, candidate: str) -> list[float]:
        """Images per second by the wall clock, one number per round."""
        return [lap.images / lap.took.wall for lap in self.laps[candidate]]

    def joules_per_image(self, candidate: str) -> float | None:
        """Over all rounds together, since counters are read by the driver now and then only."""
        used = [lap.joules for lap in self.laps[candidate] if lap.joules is not None]
        images = sum(lap.images for lap in self.laps[candidate])
        return sum(used) / images if len(used) == len(self.laps[candidate]) else None


def interleave(
    candidates: Mapping[str, Callable[[Any], object]],
    batches: Sequence[Batch],
    plan: ThroughputPlan,
    watch: Stopwatch,
    seed: int = 0,
    progress: Callable[[int], object] = lambda steps: None,
    gauge: Gauge = dict,
    meter: Meter | None = None,
) -> Timings:
    """Warm up every candidate on every batch shape, then time all of them in every round.

    In a round, all candidates begin at the same batch and cycle through the batches in order. The
    next round begins after the last batch that any candidate reached. `gauge` is read after every
    lap, `meter` before and after.
    """
    pace = {}
    for name, call in candidates.items():
        pace[name] = _warm_up(call, batches, plan.warmup_seconds / len(candidates), watch)
        progress(1)
    shuffled, order = random.Random(seed), list(candidates)
    laps: dict[str, list[Lap]] = {name: [] for name in candidates}
    visited: dict[str, set[int]] = {name: set() for name in candidates}
    first = 0
    for number in range(plan.discard + plan.rounds):
        # A new order in every round, so no candidate always follows the same other one.
        shuffled.shuffle(order)
        calls = {}
        for name in order:
            turn = _Turn(candidates[name], batches, first)
            before = None if meter is None else meter()
            took = turn.run(plan.seconds_per_round, pace[name], watch)
            used = None if meter is None or before is None else meter() - before
            calls[name], pace[name] = turn.calls, took.seconds / turn.calls
            if number >= plan.discard:
                laps[name].append(Lap(turn.images, took, gauge(), used))
                visited[name].update((first + i) % len(batches) for i in range(turn.calls))
            progress(1)
        first = (first + max(calls.values())) % len(batches)
    return Timings(
        {name: tuple(laps[name]) for name in candidates},
        {name: tuple(sorted(visited[name])) for name in candidates},
        watch.clock,
    )


@dataclass
class _Turn:
    """The calls of one candidate in one round, on batch after batch from number `first`."""

    call: Callable[[Any], object]
    batches: Sequence[Batch]
    first: int
    calls: int = 0
    images: int = 0

    def run(self, seconds: float, pace: float, watch: Stopwatch) -> Elapsed:
        """Call the candidate for at least `seconds`; returns the time taken.

        `pace`, seconds per call, gives the number of calls to make before reading the clock. On
        CUDA, reading the clock waits for the device, which would hide the time that a method itself
        waits.
        """
        watch.start()
        took = Elapsed(0.0, 0.0)
        while not self.calls or took.seconds < seconds:
            if self.calls:
                pace = took.seconds / self.calls
            for _ in range(max(1, math.ceil((seconds - took.seconds) / max(pace, FASTEST)))):
                batch = self.batches[(self.first + self.calls) % len(self.batches)]
                self.call(batch)
                self.calls += 1
                self.images += len(batch)
            took = watch.elapsed()
        return took


def _warm_up(
    call: Callable[[Any], object], batches: Sequence[Batch], seconds: float, watch: Stopwatch
) -> float:
    """Run every batch shape once, then call for `seconds`; returns the seconds per call."""
    for batch in {tuple(batch.shape): batch for batch in batches}.values():
        call(batch)
    watch.start()
    call(batches[0])
    once = watch.elapsed().seconds
    turn = _Turn(call, batches, 0)
    return turn.run(seconds, once, watch).seconds / turn.calls
