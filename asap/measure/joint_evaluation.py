"""Predictions of many cells in one pass over a data set, as shards of each."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import pandas as pd
from torch import Tensor

from asap.data.base import DataSet, Sample, loader
from asap.engine.trace import Trace
from asap.measure.accuracy import MOST_ROWS, NOTHING, Evaluation, about, halving, missing, rows_of
from asap.records.store import Cell


@runtime_checkable
class Answers(Protocol):
    """Logits and trace of every cell for one batch."""

    def __getitem__(self, cell: int, /) -> tuple[Tensor, Trace]: ...


@runtime_checkable
class Model(Protocol):
    """A model that answers for many cells at once; `failed`: those that it gave up."""

    failed: dict[int, Exception]

    def __call__(self, images: Tensor, image_ids: Sequence[int], /) -> Answers: ...


def evaluate_together(
    make: Callable[[list[int]], Model],
    data: DataSet,
    cells: Sequence[Cell],
    how: Evaluation,
    advance: Callable[[int], object] = lambda images: None,
) -> dict[int, Exception]:
    """Write the shards that the cells lack; which cells failed, and why.

    `make(members)` gives the model of some cells: every image is evaluated only for the cells that
    lack it. `advance` is told of results, one for every cell and image. The cells must be locked.
    """
    failed: dict[int, Exception] = {}
    for todo, members in intervals(cells, len(data)):
        going = [cell for cell in members if cell not in failed]
        if going:
            model = make(going)
            _evaluate_range(model, data, todo, [cells[i] for i in going], how, advance)
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


def _evaluate_range(
    model: Model,
    data: DataSet,
    todo: range,
    cells: Sequence[Cell],
    how: Evaluation,
    advance: Callable[[int], object],
) -> None:
    """Evaluate images `todo` for all cells; shards of the same images, one every few seconds."""
    rows: dict[int, list[dict[str, Any]]] = {i: [] for i in range(len(cells))}
    written, done, since = todo.start, todo.start, time.monotonic()
    for samples in loader(data, todo, how.batch_size, how.workers):
        _predict(model, samples, how, rows)
        for cell in model.failed.keys() & rows.keys():
            del rows[cell]
        if not rows:
            return
        advance(len(samples) * len(rows))
        done += len(samples)
        full = done - written >= MOST_ROWS or time.monotonic() - since > how.shard_seconds
        if full or done == todo.stop:
            for i, found in rows.items():
                cells[i].write_shard(written, done, pd.DataFrame(found))
            rows = {i: [] for i in rows}
            written, since = done, time.monotonic()


def _predict(
    model: Model, samples: list[Sample], how: Evaluation, rows: dict[int, list[dict[str, Any]]]
) -> None:
    """Add the rows of one batch to every cell that has not failed."""
    readable = [s for s in samples if s.image is not None]
    answered: dict[int, list[dict[str, Any]]] = {i: [] for i in rows}
    for part, answers in halving(model, readable, how):
        for i in rows.keys() - model.failed.keys():
            logits, trace = answers[i]
            answered[i] += rows_of(part, logits, trace, how.scored)
    for i in rows.keys() - model.failed.keys():
        found = iter(answered[i])
        rows[i] += [
            {**about(s), **(next(found) if s.image is not None else NOTHING)} for s in samples
        ]
