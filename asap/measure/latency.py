"""Latency: the time of a single image, call by call, all candidates in turn."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from asap.measure.device import Stopwatch
from asap.measure.timing import Batch
from asap.records.schema import Latency

WARM_UP = 3  # calls of every candidate before those that count


def latencies(
    candidates: Mapping[str, Callable[[Any], object]],
    images: Sequence[Batch],
    calls: int,
    watch: Stopwatch,
    seed: int = 0,
    progress: Callable[[int], object] = lambda calls: None,
) -> dict[str, Latency]:
    """Median and 95th percentile over `calls` calls of every candidate, each with one image.

    All candidates are called once with an image, in shuffled order, before the next image comes.
    After every call the host waits for the device, as someone who waits for an answer does. On
    CUDA the time is that of the wall, which holds the launches too; else that of `watch`.
    `progress` is called with 1 after each of `calls` turns.
    """
    shuffled, order = random.Random(seed), list(candidates)
    for call in candidates.values():
        for i in range(WARM_UP):
            call(images[i % len(images)])
    took: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(calls):
        shuffled.shuffle(order)
        for name in order:
            watch.start()
            candidates[name](images[i % len(images)])
            one = watch.elapsed()
            took[name].append(one.wall if watch.clock == "cuda events" else one.seconds)
        progress(1)
    return {name: _percentiles(seconds) for name, seconds in took.items()}


def _percentiles(seconds: list[float]) -> Latency:
    p50, p95 = (1000 * float(value) for value in np.percentile(seconds, (50, 95)))
    return Latency(p50_ms=p50, p95_ms=p95, calls=len(seconds))
