"""What one measurement of several methods found, as fields of their throughput records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from asap.measure.baselines import BASELINES
from asap.measure.ratios import Summary
from asap.measure.timing import ThroughputPlan
from asap.records.schema import Latency, TimedBy

GMACS = ("gmacs_backbone", "gmacs_method", "gmacs_dense")


@dataclass(frozen=True)
class Speed:
    """One method's throughput, and its tokens, stops and MACs on the timed images.

    `path`: how the engine ran it. `tokens_mean`: tokens that enter a block, mean over blocks and
    images. `stop_histogram`: block number, from 1 -> number of images that stopped there, "0" =
    never. `gmacs`: per image, of backbone, method, and the backbone without a reduction. All cover
    exactly the `n_images` images of the counted rounds.
    """

    summary: Summary
    path: str
    n_images: int
    tokens_mean: float
    stop_histogram: dict[str, int]
    gmacs: tuple[float, float, float]


@dataclass(frozen=True)
class Further:
    """What is measured beside throughput, by candidate; `missing`: what could not be, and why."""

    latency: Mapping[str, Latency]
    peak_memory: Mapping[str, int]
    joules_per_image: Mapping[str, float]
    missing: Mapping[str, str]

    def fields(self, name: str) -> dict[str, Any]:
        """The record's fields for a method: its own numbers and those of the dense models."""
        names = {"method": name, **BASELINES}

        def of(found: Mapping[str, Any]) -> dict[str, Any]:
            return {short: found[one] for short, one in names.items() if one in found}

        return {
            "latency": of(self.latency),
            "peak_memory_mb": {k: v / 2**20 for k, v in of(self.peak_memory).items()},
            "joules_per_image": of(self.joules_per_image),
            "missing": dict(self.missing),
        }


@dataclass(frozen=True)
class TimedTogether:
    """One measurement of several methods. `conditions`: the device's clock, power, temperature."""

    speeds: dict[str, Speed]
    further: Further
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
            "path": speed.path,
            **{f"{dense}_dense": summary.dense.get(dense) for dense in BASELINES},
            **{f"ratio_{dense}": summary.ratios.get(dense) for dense in BASELINES},
            "refused": summary.refused,
            "clock": self.clock,
            "cpu_share": summary.cpu_share,
            "wall_fused": summary.walls["fused"],
            "wall_eager": summary.walls["eager"],
            "tokens_mean": speed.tokens_mean,
            "stop_histogram": speed.stop_histogram,
            **dict(zip(GMACS, speed.gmacs, strict=True)),
            **self.further.fields(name),
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
