"""Answers and traces of many cells in one pass over a data set, saved as shards of each cell.

The evaluation of a single cell uses the same functions, see accuracy.py.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import torch
from torch import Tensor

from asap.data.base import DataSet, Sample
from asap.data.loading import loader
from asap.engine.executor import ReducedViT
from asap.engine.trace import Trace
from asap.measure.questions import PictureEncoder
from asap.measure.traces import columns_of, fields_of, table_of_traces
from asap.methods import Method
from asap.records.store import Cell
from asap.records.tables import ANSWER_COLUMNS, Evaluated, joined, table_of
from asap.tasks.base import Task

MOST_ROWS = 512  # examples in memory before a shard is written, even before its time


@dataclass
class Evaluation:
    """How a data set is fed through a model, and the task of its examples."""

    batch_size: int
    workers: int
    device: torch.device
    dtype: torch.dtype
    task: Task
    shard_seconds: float = 10.0  # about this much work is lost to a kill
    halved: int = 0  # times the batch was halved for lack of memory


@dataclass(frozen=True)
class Target:
    """A cell to be filled, and the method of its row."""

    cell: Cell
    method: Method


@runtime_checkable
class JointAnswers(Protocol):
    """Outputs, such as logits, and trace of every cell for one batch."""

    def __getitem__(self, cell: int, /) -> tuple[Any, Trace]: ...


@runtime_checkable
class Model(Protocol):
    """A model that answers for many cells at once; `failed`: the cells it gave up, and why."""

    failed: dict[int, Exception]

    def __call__(self, images: Tensor, image_ids: Sequence[int], /) -> JointAnswers: ...


class OneCell:
    """A model of one cell; its errors are raised."""

    def __init__(self, model: ReducedViT | PictureEncoder) -> None:
        self.model = model
        self.failed: dict[int, Exception] = {}

    def __call__(self, images: Tensor, image_ids: Sequence[int], /) -> JointAnswers:
        return [self.model(images, image_ids, return_trace=True)]


def evaluate_together(
    make: Callable[[list[int]], Model],
    data: DataSet,
    targets: Sequence[Target],
    how: Evaluation,
    advance: Callable[[int], object] = lambda images: None,
) -> dict[int, Exception]:
    """Write the shards that the cells lack; returns which of `targets` failed, and why.

    `make(members)` gives the model of some cells: every image is evaluated only for the cells that
    lack it. `advance` is called with the number of results, one for every cell and image. The cells
    must be locked.
    """
    failed: dict[int, Exception] = {}
    for todo, members in intervals([target.cell for target in targets], len(data)):
        going = [cell for cell in members if cell not in failed]
        if going:
            model = make(going)
            evaluate_range(model, data, todo, [targets[i] for i in going], how, advance)
            failed |= {going[i]: error for i, error in model.failed.items()}
    return failed


def intervals(cells: Sequence[Cell], total: int) -> Iterator[tuple[range, list[int]]]:
    """Ranges of images, and the numbers of the cells that have no shard of them."""
    gaps = [
        list(missing([(start, stop) for start, stop, _ in cell.shards()], total)) for cell in cells
    ]
    edges = sorted({edge for spans in gaps for span in spans for edge in span})
    for start, stop in pairwise(edges):
        members = [
            i for i, spans in enumerate(gaps) if any(a <= start and stop <= b for a, b in spans)
        ]
        if members:
            yield range(start, stop), members


def missing(done: list[tuple[int, int]], total: int) -> Iterator[tuple[int, int]]:
    """The ranges of 0..total that no shard covers; `done` is sorted."""
    position = 0
    for start, stop in [*done, (total, total)]:
        if position < start:
            yield position, start
        position = max(position, stop)


def evaluate_range(
    model: Model,
    data: DataSet,
    todo: range,
    targets: Sequence[Target],
    how: Evaluation,
    advance: Callable[[int], object],
) -> None:
    """Evaluate images `todo` for all cells; shards of the same images, one every few seconds."""
    found: dict[int, list[Evaluated]] = {i: [] for i in range(len(targets))}
    written, done, since = todo.start, todo.start, time.monotonic()
    for samples in loader(data, todo, how.batch_size, how.workers):
        for i, part in _evaluate(model, samples, targets, found.keys(), how).items():
            found[i].append(part)
        for cell in model.failed.keys() & found.keys():
            del found[cell]
        if not found:
            return
        advance(len(samples) * len(found))
        done += len(samples)
        full = done - written >= MOST_ROWS or time.monotonic() - since > how.shard_seconds
        if full or done == todo.stop:
            for i, parts in found.items():
                targets[i].cell.write_shard(written, done, joined(parts))
            found = {i: [] for i in found}
            written, since = done, time.monotonic()


def _evaluate(
    model: Model,
    samples: list[Sample],
    targets: Sequence[Target],
    wanted: Any,
    how: Evaluation,
) -> dict[int, Evaluated]:
    """Answers and traces of one batch for the wanted cells that did not fail.

    Images that could not be read are among the answers, with an error: the next run reads them
    again.
    """
    readable = [s for s in samples if s.inputs is not None]
    unread = [s for s in samples if s.inputs is None]
    found: dict[int, list[Evaluated]] = {i: [] for i in wanted}
    for part, answers in halving(model, readable, how):
        for i in found.keys() - model.failed.keys():
            outputs, trace = answers[i]
            if isinstance(outputs, Tensor):
                outputs = outputs.cpu()
            found[i].append(_answered(how.task, targets[i].method, part, outputs, trace))
    kept = {i: parts for i, parts in found.items() if i not in model.failed}
    if unread:
        kept = {i: [*p, _unread(how.task, targets[i].method, unread)] for i, p in kept.items()}
    return {i: _in_order(joined(parts)) for i, parts in kept.items()}


def halving(
    answer: Callable[[Tensor, list[int]], Any], samples: list[Sample], how: Evaluation
) -> Iterator[tuple[list[Sample], Any]]:
    """Readable samples in parts, each with `answer(images, ids)`.

    If memory runs out, the parts are halved.
    """
    step = max(1, min(how.batch_size, len(samples)))
    start = 0
    while start < len(samples):
        part = samples[start : start + step]
        try:
            images = torch.cat([s.inputs for s in part if s.inputs is not None])
            images = images.to(how.device, how.dtype, non_blocking=True)
            answered = answer(images, [one for s in part for one in s.image_ids])
        except torch.OutOfMemoryError:
            if step == 1:
                raise
            step = how.batch_size = step // 2
            how.halved += 1
            torch.cuda.empty_cache()
            continue
        yield part, answered
        start += len(part)


def _answered(
    task: Task, method: Method, samples: list[Sample], outputs: Any, trace: Trace
) -> Evaluated:
    """Answers and traces of images that were evaluated; an example that failed has no trace."""
    traces = columns_of(method, trace)
    known = {**traces, "assignment": trace.assignment}
    columns = {**_about(samples), **task.answered(samples, outputs, known)}
    failed = [error is not None for error in columns["error"]]
    columns["n"] = [0 if lost else n for lost, n in zip(failed, columns["n"], strict=True)]
    answers = table_of(columns, (*ANSWER_COLUMNS, *task.columns))
    images = [
        (lost, (s.index, *place))
        for s, lost in zip(samples, failed, strict=True)
        for place in s.places
    ]
    kept = torch.tensor([not lost for lost, _ in images])
    places = [place for lost, place in images if not lost]
    traces = {name: values[kept] for name, values in traces.items()}
    return Evaluated(answers, table_of_traces(method, traces, places))


def _unread(task: Task, method: Method, samples: list[Sample]) -> Evaluated:
    """Answers of images that could not be read: their core columns and the error."""
    columns = {**_about(samples), **task.unread(samples)}
    answers = table_of(columns, (*ANSWER_COLUMNS, *task.columns))
    return Evaluated(answers, pa.schema(fields_of(method)).empty_table())


def _about(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """The core columns of the samples' answers."""
    return {
        "index": [s.index for s in samples],
        "id": [s.id for s in samples],
        "path": [s.source for s in samples],
        "cluster": [s.cluster for s in samples],
        "n": [s.n_images for s in samples],
        "error": [s.error for s in samples],
    }


def _in_order(part: Evaluated) -> Evaluated:
    """Sort the answers by position; the traces are in order, as unread examples have none."""
    return Evaluated(part.answers.sort_by("index"), part.traces)
