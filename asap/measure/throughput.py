"""Throughput of methods, compared with dense models, and what else is measured of the same calls.

For all candidates, the timed work is to normalise a batch of bytes that is already on the device,
and the forward pass. Weights are in the stated precision, without autocast.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from asap.core.macs import backbone_macs
from asap.engine.backend import Backend
from asap.engine.executor import ReducedViT
from asap.errors import RequestError, one_line
from asap.measure.baselines import (
    BASELINES,
    BEST,
    COMPILED,
    candidates_of,
    dense_baselines,
    why_not_compiled,
)
from asap.measure.device import (
    Stopwatch,
    device_name,
    gauge,
    keep_memory,
    measuring_alone,
    stopwatch,
)
from asap.measure.latency import latencies
from asap.measure.ratios import summarise
from asap.measure.resources import NO_MEMORY, energy_meter, peak_memory
from asap.measure.timed_images import Prepare, TimedImages, normaliser
from asap.measure.timed_together import Further, Speed, TimedTogether
from asap.measure.timing import ThroughputPlan, Timings, interleave
from asap.methods.base import Method

log = logging.getLogger(__name__)
Candidates = dict[str, Callable[[TimedImages], object]]


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
    opponents: Sequence[str] = (),
    latency_calls: int = 0,
    backend: Backend | None = None,
) -> TimedTogether:
    """Time all methods and the dense models together, alone on the device.

    By `watch`, or else by `stopwatch` of the device and torch's threads. Of the processes that a
    launcher started, rank 0 alone may do it: RequestError elsewhere.

    The backbone must have its final precision; it and the pictures must be on the device.
    opponents: dense models beside the fused and the eager one, see `dense_baselines`; a compiled
    one that does not work is left out, with the reason. latency_calls: see `latencies`; 0: none.
    backend: how the engine computes the methods and "best dense"; None = as the device asks for. If
    memory runs out on CUDA, the batch is halved for all candidates and timing starts again.
    `progress` is called with 1 for each step, `steps(...)` times if timing does not start again.
    """
    refuse_company()
    weight = next(backbone.parameters())
    device, dtype = weight.device, weight.dtype
    kept = keep_memory(device)
    prepare = normaliser(mean, std, dtype, device)
    watch = watch or stopwatch(device, torch.get_num_threads())
    meter, why = energy_meter(device)
    missing: dict[str, str] = {}
    halved = 0
    with measuring_alone(device), torch.inference_mode():
        while True:
            batches = pictures.batches(batch_size)
            # New ones in every attempt: models on a GPU keep memory for each batch size.
            models = {k: ReducedViT(backbone, one, backend=backend) for k, one in methods.items()}
            dense = dense_baselines(backbone, opponents, backend)
            candidates = candidates_of(dense, models, prepare)
            try:
                _leave_out_uncompiled(candidates, batches[0], missing)
                memory = _memory(candidates, batches[0], device)
                _record_all({BEST, *models} & candidates.keys(), candidates, batches, device)
                timings = interleave(
                    candidates, batches, plan, watch, seed, progress, gauge(device), meter
                )
                require_recorded(models)
                break
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise
            log.warning("out of memory with batch %d: halving it", batch_size)
            del models, dense, candidates
            torch.cuda.empty_cache()
            batch_size, halved = batch_size // 2, halved + 1
        asked = {k: v for k, v in candidates.items() if k != COMPILED} if latency_calls else {}
        latency = latencies(asked, pictures.batches(1), latency_calls, watch, seed, progress)
        names = {short: name for short, name in BASELINES.items() if name in candidates}
        speeds = {
            name: _speed(timings, name, model, batches, prepare, names, seed)
            for name, model in models.items()
        }
    missing |= {} if memory else {"peak_memory_mb": NO_MEMORY}
    missing |= {} if why is None else {"joules_per_image": why}
    joules = {name: timings.joules_per_image(name) for name in candidates}
    energy = {name: used for name, used in joules.items() if used is not None}
    return TimedTogether(
        speeds, Further(latency, memory, energy, missing), plan, batch_size, halved, str(device),
        device_name(device), str(dtype).removeprefix("torch."), torch.get_num_threads(),
        watch.clock,
        kept,
        {
            name: [lap.condition for lap in laps]
            for name, laps in timings.laps.items()
            if any(lap.condition for lap in laps)
        },
    )  # fmt: skip


def steps(plan: ThroughputPlan, methods: int, opponents: int, latency_calls: int) -> int:
    """How often `measure_throughput` calls `progress`, unless a model has to be left out."""
    return plan.steps(methods + opponents + 2) + latency_calls


def _leave_out_uncompiled(
    candidates: Candidates, batch: TimedImages, missing: dict[str, str]
) -> None:
    """Compile the compiled model; if that is not possible, remove it and note the reason."""
    if COMPILED not in candidates:
        return
    reason = why_not_compiled(batch.pixels.device)
    if reason is None:
        log.info("compiling the dense model for batch %d", len(batch))
        try:
            candidates[COMPILED](batch)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the compiler's errors have many types
            reason = f"torch.compile failed: {one_line(error, kind=True)}"
    if reason is not None:
        log.warning("no compiled dense model: %s", reason)
        del candidates[COMPILED]
        missing["compiled"] = reason


def _memory(candidates: Candidates, batch: TimedImages, device: torch.device) -> dict[str, int]:
    """By candidate, the peak of its memory in its first two calls; empty where nothing tells it."""

    def twice(call: Callable[[TimedImages], object]) -> Callable[[], object]:
        return lambda: (call(batch), call(batch))

    found = {name: peak_memory(device, twice(call)) for name, call in candidates.items()}
    return {name: peak for name, peak in found.items() if peak is not None}


def _record_all(
    names: Collection[str],
    candidates: Candidates,
    batches: Sequence[TimedImages],
    device: torch.device,
) -> None:
    """Have the engine record, before anything is timed, the CUDA graphs that these batches need.

    It records a piece of work in its second call, and other images may need other pieces.
    """
    if device.type == "cuda":
        for name in sorted(names):
            for batch in (*batches, *batches):
                candidates[name](batch)


def require_recorded(models: Mapping[str, ReducedViT]) -> None:
    """RuntimeError if a pass ran step by step though its record would say "graphs"."""
    for name, model in models.items():
        if model.unrecorded is not None:
            raise RuntimeError(
                f"{name} could not be recorded as a CUDA graph ({model.unrecorded}): "
                "engine.graphs=off times all rows without graphs"
            )


def _speed(
    timings: Timings,
    name: str,
    model: ReducedViT,
    batches: list[TimedImages],
    prepare: Prepare,
    dense: Mapping[str, str],
    seed: int,
) -> Speed:
    """A method's summary, and what the traces of the images say that it was timed on."""
    tokens, stops, images, backbone, method = 0, Counter[int](), 0, 0, 0
    for batch in (batches[i] for i in timings.visited[name]):
        _, trace = model(prepare(batch.pixels), batch.ids, return_trace=True)
        tokens += int(trace.tokens[:, :-1].sum())
        stops.update(trace.stop_block.tolist())
        backbone += int(trace.macs_backbone.sum())
        method += int(trace.macs_method.sum())
        images += len(batch)
    anatomy = model.adapter.anatomy
    full = np.full((1, anatomy.depth + 1), anatomy.tokens)
    whole = int(backbone_macs(model.adapter.cost, full, model.method.position)[0])
    return Speed(
        summarise(timings, name, dense, seed),
        model.path,
        images,
        tokens / (images * anatomy.depth),
        {str(block): stops[block] for block in sorted(stops)},
        (backbone / images / 1e9, method / images / 1e9, whole / 1e9),
    )


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
