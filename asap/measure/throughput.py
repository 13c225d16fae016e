"""Throughput of methods, compared with the dense backbone with fused and with explicit attention.

For all candidates, the timed work is to normalise a batch of bytes that is already on the device,
and the forward pass. Weights are in the stated precision, without autocast.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.measure.baselines import EAGER, FUSED, candidates_of, dense_baselines
from asap.measure.device import (
    Stopwatch,
    device_name,
    gauge,
    keep_memory,
    measuring_alone,
    stopwatch,
)
from asap.measure.ratios import Summary, summarise
from asap.measure.timed_images import Prepare, TimedImages, normaliser
from asap.measure.timing import ThroughputPlan, Timings, interleave
from asap.methods.base import Method
from asap.records.schema import TimedBy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Speed:
    """One method's throughput, and its tokens and stops on the timed images.

    `tokens_mean`: tokens that enter a block, mean over blocks and images. `stop_histogram`: block
    number, from 1 -> number of images that stopped there, "0" = never. Both cover exactly the
    `n_images` images of the counted rounds.
    """

    summary: Summary
    n_images: int
    tokens_mean: float
    stop_histogram: dict[str, int]


@dataclass(frozen=True)
class TimedTogether:
    """One measurement of several methods. `conditions`: the device's clock, power, temperature."""

    speeds: dict[str, Speed]
    plan: ThroughputPlan
    batch_size: int
    batch_halved: int
    device: str
    device_name: str
    precision: str
    threads: int
    clock: TimedBy
    memory_kept: bool
    conditions: dict[str, list[dict[str, float]]]

    def fields(self, name: str) -> dict[str, Any]:
        """A method's fields of `ThroughputRecord`; the caller adds identity and data."""
        speed, summary = self.speeds[name], self.speeds[name].summary
        return {
            "device": self.device,
            "device_name": self.device_name,
            "precision": self.precision,
            "batch_size": self.batch_size,
            "n_images": speed.n_images,
            "threads": self.threads,
            "rounds": summary.rounds,
            "seconds_per_round": self.plan.seconds_per_round,
            "short": self.plan.short,
            "images_per_s": summary.images_per_s,
            "fused_dense": summary.fused_dense,
            "eager_dense": summary.eager_dense,
            "ratio_fused": summary.ratio_fused,
            "ratio_eager": summary.ratio_eager,
            "refused": summary.refused,
            "clock": self.clock,
            "cpu_share": summary.cpu_share,
            "wall_fused": summary.wall_fused,
            "wall_eager": summary.wall_eager,
            "tokens_mean": speed.tokens_mean,
            "stop_histogram": speed.stop_histogram,
        }

    def circumstances(self, name: str) -> dict[str, Any]:
        """Facts about the measurement, besides the times, for the record's environment."""
        return {
            "batch_halved": self.batch_halved,
            "rounds_dropped": self.speeds[name].summary.dropped,
            "memory_kept": self.memory_kept,
            "allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            "device_condition": self.conditions,
        }


def measure_throughput(
    backbone: nn.Module,
    methods: Mapping[str, Method],
    pictures: TimedImages,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    plan: ThroughputPlan,
    seed: int = 0,
    progress: Callable[[int], object] = lambda steps: None,
    watch: Stopwatch | None = None,
) -> TimedTogether:
    """Time all methods and both dense baselines together, alone on the device.

    By `watch`, or else by `stopwatch` of the device and torch's threads. Of the processes that a
    launcher started, rank 0 alone may do it: RequestError elsewhere.

    The backbone must have its final precision; it and the pictures must be on the device. If memory
    runs out on CUDA, the batch is halved for all candidates and timing starts again. `progress` is
    called with 1 for each step, `plan.steps(len(methods) + 2)` times if timing does not start
    again.
    """
    refuse_company()
    weight = next(backbone.parameters())
    device, dtype = weight.device, weight.dtype
    kept = keep_memory(device)
    prepare = normaliser(mean, std, dtype, device)
    models = {name: ReducedViT(backbone, method) for name, method in methods.items()}
    candidates = candidates_of(dense_baselines(backbone), models, prepare)
    watch = watch or stopwatch(device, torch.get_num_threads())
    halved = 0
    with measuring_alone(device), torch.inference_mode():
        while True:
            batches = pictures.batches(batch_size)
            timings = _attempt(candidates, batches, plan, watch, seed, progress, device)
            if timings is not None:
                break
            batch_size, halved = batch_size // 2, halved + 1
        speeds = {
            name: _speed(timings, name, model, batches, prepare, seed)
            for name, model in models.items()
        }
    return TimedTogether(
        speeds, plan, batch_size, halved, str(device), device_name(device),
        str(dtype).removeprefix("torch."), torch.get_num_threads(),
        watch.clock,
        kept,
        {
            name: [lap.condition for lap in laps]
            for name, laps in timings.laps.items()
            if any(lap.condition for lap in laps)
        },
    )  # fmt: skip


def _attempt(
    candidates: Mapping[str, Callable[[TimedImages], object]],
    batches: list[TimedImages],
    plan: ThroughputPlan,
    watch: Stopwatch,
    seed: int,
    progress: Callable[[int], object],
    device: torch.device,
) -> Timings | None:
    """The timings; None if memory ran out and a smaller batch may fit."""
    try:
        return interleave(candidates, batches, plan, watch, seed, progress, gauge(device))
    except torch.OutOfMemoryError:
        if len(batches[0]) == 1:
            raise
    log.warning("out of memory with batch %d: halving it", len(batches[0]))
    torch.cuda.empty_cache()
    return None


def _speed(
    timings: Timings,
    name: str,
    model: ReducedViT,
    batches: list[TimedImages],
    prepare: Prepare,
    seed: int,
) -> Speed:
    """A method's summary, and tokens and stops from the traces of the images it was timed on."""
    tokens, stops, images = 0, Counter[int](), 0
    for batch in (batches[i] for i in timings.visited[name]):
        _, trace = model(prepare(batch.pixels), batch.ids, return_trace=True)
        tokens += int(trace.tokens[:, :-1].sum())
        stops.update(trace.stop_block.tolist())
        images += len(batch)
    depth = model.adapter.anatomy.depth
    histogram = {str(block): stops[block] for block in sorted(stops)}
    summary = summarise(timings, name, FUSED, EAGER, seed)
    return Speed(summary, images, tokens / (images * depth), histogram)


def refuse_company() -> None:
    """RequestError in a process of a launcher that is not its rank 0: if all of them timed, each
    would disturb the others.
    """
    number, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if number not in ("", "0") and size not in ("", "1"):
        raise RequestError(
            f"throughput is timed by rank 0 alone, and this process has RANK={number} of "
            f"WORLD_SIZE={size}: leave it to rank 0, or unset both"
        )
