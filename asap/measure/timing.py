"""Interleaved timing: every candidate once a round, in shuffled order, over the same batches.

Speeds on a machine drift with temperature, clocks and neighbours; candidates timed minutes apart
differ by more than methods do. Candidates timed in one round share its conditions, so ratios are
taken per round. Many short rounds say more than a few long ones: what slows the machine down for a
while then covers whole rounds, and the median of many noisy ratios is sharp.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from asap.errors import RequestError
from asap.measure.device import Elapsed, Stopwatch
from asap.records.schema import TimedBy

FASTEST = 1e-6  # seconds a call: bounds the calls made before a look at the clock
Gauge = Callable[[], dict[str, float]]  # the device's condition now


@dataclass(frozen=True)
class ThroughputPlan:
    """How long is timed. RequestError for values that time nothing.

    rounds: rounds that count; `discard` more are run before them. seconds_per_round: at least this
    long for each candidate. warmup_seconds: for all candidates together, after every one of them
    has run every batch shape. short: this plan is shorter than the protocol, and records say so.
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
        """How often `progress` is called: once a candidate in the warm-up and in each round."""
        return candidates * (1 + self.discard + self.rounds)


@runtime_checkable
class Batch(Protocol):
    """Something a candidate is called with; a tensor is one."""

    def __len__(self) -> int: ...
    @property
    def shape(self) -> Any: ...


@dataclass(frozen=True)
class Lap:
    """One candidate in one round: images done, time taken, the device's condition at its end."""

    images: int
    took: Elapsed
    condition: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Timings:
    """Every lap of the rounds that count, by candidate; which batches each ran; what timed them."""

    laps: dict[str, tuple[Lap, ...]]
    visited: dict[str, tuple[int, ...]]  # indices into the batches, ascending
    clock: TimedBy

    def images_per_s(self, candidate: str) -> list[float]:
        """Images per second by the clock that decides, one number a round."""
        return [lap.images / lap.took.seconds for lap in self.laps[candidate]]

    def wall_images_per_s(self, candidate: str) -> list[float]:
        """The same by the clock on the wall."""
        return [lap.images / lap.took.wall for lap in self.laps[candidate]]


def interleave(
    candidates: Mapping[str, Callable[[Any], object]],
    batches: Sequence[Batch],
    plan: ThroughputPlan,
    watch: Stopwatch,
    seed: int = 0,
    progress: Callable[[int], object] = lambda steps: None,
    gauge: Gauge = dict,
) -> Timings:
    """Warm up every candidate on every batch shape, then time all of them in every round.

    In a round all candidates begin at the same batch and go on through the batches in order, round
    and round; the next round begins where the one that came farthest stopped. `gauge` is
    read after every lap.
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
        shuffled.shuffle(order)
        calls = {}
        for name in order:
            turn = _Turn(candidates[name], batches, first)
            took = turn.run(plan.seconds_per_round, pace[name], watch)
            calls[name], pace[name] = turn.calls, took.seconds / turn.calls
            if number >= plan.discard:
                laps[name].append(Lap(turn.images, took, gauge()))
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
    """Calls of one candidate on batch after batch."""

    call: Callable[[Any], object]
    batches: Sequence[Batch]
    first: int
    calls: int = 0
    images: int = 0

    def run(self, seconds: float, pace: float, watch: Stopwatch) -> Elapsed:
        """Call for at least `seconds`; returns the time taken.

        `pace`, seconds a call, says how many calls to make before the clock is looked at: on CUDA a
        look waits for the device, which would hide the method's own waiting.
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
    """Run every batch shape once, then for `seconds`; returns the seconds a call takes."""
    for batch in {tuple(batch.shape): batch for batch in batches}.values():
        call(batch)
    watch.start()
    call(batches[0])
    once = watch.elapsed().seconds
    turn = _Turn(call, batches, 0)
    return turn.run(seconds, once, watch).seconds / turn.calls
