"""Rows that are timed together: those without a record, all at once, alone on the device."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from asap.errors import RequestError
from asap.experiment.rows import Row, among
from asap.measure.session import Session
from asap.measure.throughput import refuse_company
from asap.records.kinds import Kind
from asap.records.store import Cell
from asap.spec.run_spec import RunSpec

log = logging.getLogger("asap")
CellOf = Callable[[Row], Cell]
Time = Callable[[list[Row]], Sequence[Mapping[str, Any]]]


def refuse_timing(spec: RunSpec) -> None:
    """RequestError if nothing could be timed; called before anything is evaluated.

    This process is not the first of its launcher, or there are fewer processors than threads.
    """
    refuse_company()
    threads, processors = spec.measure.threads or 1, os.cpu_count() or 1
    if threads > processors:
        raise RequestError(
            f"measure.threads={threads} is not possible on {processors} processors: give "
            f"{processors} or fewer, or leave it null"
        )


def timed_together(
    session: Session, rows: list[Row], kind: Kind, cell_of: CellOf, time: Time
) -> list[Row]:
    """The rows with their records of a kind; rows that have one are not timed again.

    cell_of: where a row's record is; time: measures some rows, and gives a record for each. Both
    run with the CPU threads that the run asks for.
    """

    def is_lacking(row: Row) -> bool:
        # All rows are timed together, so one that has failed already would make the others fail.
        return row.open and cell_of(row).record(kind.name) is None

    with _threads(session.spec.measure.threads):
        rows = among(rows, is_lacking, lambda lacking: _timed(lacking, kind, cell_of, time))
        return [_called(session, row, kind, cell_of) for row in rows]


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute with `count` CPU threads; None leaves their number as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(rows: list[Row], kind: Kind, cell_of: CellOf, time: Time) -> list[Row]:
    """Time the rows and store their records; after an error, the rows with the reason."""
    try:
        for row, record in zip(rows, time(rows) if rows else (), strict=True):
            cell = cell_of(row)
            with cell.lock():
                cell.finish(kind.name, row.config, record)
        return rows
    except RequestError:
        raise
    except Exception as error:  # the accuracy records stay; the table shows what is missing
        reason = f"{kind.name} failed: {type(error).__name__}: {error}".splitlines()[0]
        cells = [cell_of(row) for row in rows]
        for cell in cells:
            cell.fail(error)
        log.error("%s (details: %s/error.json)", reason, cells[0].path)
        return [row.without(reason, failed=True) for row in rows]


def _called(session: Session, row: Row, kind: Kind, cell_of: CellOf) -> Row:
    """The row with its record, if there is one; label and data are named as in this run."""
    record = cell_of(row).record(kind.name)
    if record is None:
        return row
    named = {**record, "label": row.method.label, "data": session.data.description}
    return row.with_records(**{kind.name: named})
