"""Predictions of a reduced model over a data set, in shards that survive an interruption."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd
import torch
from torch import Tensor

from asap.data.base import DataSet, Sample, loader
from asap.engine.executor import ReducedViT
from asap.engine.trace import Trace
from asap.measure.objects import best_classes, object_recall, object_share, sink_on_object
from asap.records.store import Cell

NAN = float("nan")
MARGINS = ("margin_mass", "margin_sink", "margin_bin")
Part = tuple[int, int, pd.DataFrame]  # a shard: first image, one after its last, rows
Ranges: TypeAlias = list[tuple[int, int]]  # of images: first, one after the last
ROUNDS = 3  # more than one, in case a terminated process still writes overlapping shards
MOST_ROWS = 512  # in memory before they are saved, whatever the time: they are large as they come
NOTHING: dict[str, Any] = {
    "top5": [], "top5_logits": [], "stop_block": -1, "sink": -1, "tokens": [], "mass": [],
    "margin_mass": NAN, "margin_sink": NAN, "margin_bin": NAN, "object_share": NAN,
    "object_recall": NAN, "sink_on_object": NAN, "macs_backbone": -1, "macs_method": -1,
}  # fmt: skip


@dataclass
class Evaluation:
    """How a data set is fed through a model."""

    batch_size: int
    workers: int
    device: torch.device
    dtype: torch.dtype
    shard_seconds: float = 10.0  # about this much work is lost to a kill
    halved: int = 0  # times the batch was halved for lack of memory
    scored: tuple[int, ...] | None = None  # the classes compared; None for all


def evaluate(
    model: ReducedViT,
    data: DataSet,
    cell: Cell,
    how: Evaluation,
    advance: Callable[[int], object] = lambda images: None,
    spread: Callable[[Ranges], object] | None = None,
) -> pd.DataFrame:
    """One row per image. Continues from the cell's shards; `advance` is told of images done.

    `spread(ranges)` evaluates ranges of images and leaves their shards in the cell, see
    `workers.spread`; None: this process does.
    """

    def here(ranges: Ranges) -> None:
        evaluate_ranges(model, data, ranges, cell, how, advance)

    lacking = uncovered(cell.shards(), len(data))
    advance(len(data) - count_of(lacking))
    for _ in range(ROUNDS):
        (spread or here)(lacking)
        parts = cell.shards()
        lacking = uncovered(parts, len(data))
        if not lacking:
            return pd.concat([frame for _, _, frame in parts], ignore_index=True)
    raise RuntimeError("saved images are missing: is another process removing them?")


def uncovered(parts: list[Part], total: int) -> Ranges:
    """The ranges of images that no shard holds."""
    return list(missing([(start, stop) for start, stop, _ in parts], total))


def count_of(ranges: Ranges) -> int:
    """How many images are in ranges."""
    return sum(stop - start for start, stop in ranges)


def evaluate_ranges(
    model: ReducedViT,
    data: DataSet,
    ranges: Ranges,
    cell: Cell,
    how: Evaluation,
    advance: Callable[[int], object] = lambda images: None,
) -> None:
    """Evaluate ranges of images in this process and leave them as shards."""
    for start, stop in ranges:
        _evaluate_range(model, data, range(start, stop), cell, how, advance)


def missing(done: list[tuple[int, int]], total: int) -> Iterator[tuple[int, int]]:
    """The ranges of 0..total that no shard covers; `done` is sorted."""
    position = 0
    for start, stop in [*done, (total, total)]:
        if position < start:
            yield position, start
        position = max(position, stop)


def _evaluate_range(
    model: ReducedViT,
    data: DataSet,
    todo: range,
    cell: Cell,
    how: Evaluation,
    advance: Callable[[int], object],
) -> None:
    """Evaluate images `todo` and write them as shards, one every few seconds."""
    rows: list[dict[str, Any]] = []
    written = todo.start
    since = time.monotonic()
    for samples in loader(data, todo, how.batch_size, how.workers):
        rows += _predict(model, samples, how)
        advance(len(samples))
        full = len(rows) >= MOST_ROWS or time.monotonic() - since > how.shard_seconds
        if full or rows[-1]["index"] == todo.stop - 1:
            stop = written + len(rows)
            cell.write_shard(written, stop, pd.DataFrame(rows))
            rows, written, since = [], stop, time.monotonic()


def _predict(model: ReducedViT, samples: list[Sample], how: Evaluation) -> list[dict[str, Any]]:
    """Rows of one batch, unreadable images included; halves the batch when memory runs out.

    Only an image that could not be read has an error: the next run reads it again.
    """
    readable = [s for s in samples if s.image is not None]
    answers = iter(_forward(model, readable, how))
    return [{**about(s), **(next(answers) if s.image is not None else NOTHING)} for s in samples]


def about(s: Sample) -> dict[str, Any]:
    """What predictions say of an image before it is evaluated."""
    return {
        "index": s.index, "id": s.id, "path": s.path, "label": s.label,
        "other_labels": list(s.other_labels), "cluster": s.cluster, "error": s.error,
    }  # fmt: skip


def _forward(model: ReducedViT, samples: list[Sample], how: Evaluation) -> Iterator[dict[str, Any]]:
    def answer(images: Tensor, ids: list[int]) -> Any:
        return model(images, ids, return_trace=True)

    for part, (logits, trace) in halving(answer, samples, how):
        yield from rows_of(part, logits.cpu(), trace, how.scored)


def halving(
    answer: Callable[[Tensor, list[int]], Any], samples: list[Sample], how: Evaluation
) -> Iterator[tuple[list[Sample], Any]]:
    """Readable samples in parts, and what `answer(images, ids)` says; smaller parts where memory
    runs out."""
    step = max(1, min(how.batch_size, len(samples)))
    start = 0
    while start < len(samples):
        part = samples[start : start + step]
        try:
            images = torch.stack([s.image for s in part if s.image is not None])
            images = images.to(how.device, how.dtype, non_blocking=True)
            answered = answer(images, [s.id for s in part])
        except torch.OutOfMemoryError:
            if step == 1:
                raise
            step = how.batch_size = step // 2
            how.halved += 1
            torch.cuda.empty_cache()
            continue
        yield part, answered
        start += len(part)


def rows_of(
    samples: list[Sample], logits: Tensor, trace: Trace, scored: tuple[int, ...] | None
) -> Iterator[dict[str, Any]]:
    """What predictions say of images that were evaluated.

    One NaN or infinity among the logits, of classes that are not scored too, and the answer is not
    finite (half precision can overflow): it names no class, so it is right about none, and the rest
    of the row is as for every other image.
    """
    classes, scores = best_classes(logits, scored)
    finite = logits.isfinite().all(1).tolist()
    for i, s in enumerate(samples):
        sink, mask = int(trace.sink[i]), s.mask
        margins = {n: float(trace.columns[n][i]) if n in trace.columns else NAN for n in MARGINS}
        yield {
            "top5": classes[i].tolist() if finite[i] else [],
            "top5_logits": scores[i].tolist() if finite[i] else [],
            "stop_block": int(trace.stop_block[i]),
            "sink": sink,
            "tokens": trace.tokens[i].tolist(),
            "mass": trace.mass[i].tolist(),
            **margins,
            "object_share": NAN if mask is None else object_share(mask),
            "object_recall": NAN if mask is None else object_recall(trace.assignment[i], mask),
            "sink_on_object": NAN if mask is None else sink_on_object(sink, mask),
            "macs_backbone": int(trace.macs_backbone[i]),
            "macs_method": int(trace.macs_method[i]),
        }
