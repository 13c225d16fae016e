"""The run that a record came from, read back from the config.yaml beside it."""

from dataclasses import replace
from pathlib import Path

from asap.errors import RequestError
from asap.measure.session import Session
from asap.records.store import Cell
from asap.report.result import Result
from asap.spec.read import spec_from
from asap.spec.run_spec import RunSpec


def saved_spec(cell: Cell) -> RunSpec:
    """The spec of one row as it was run. RequestError if it is missing or damaged."""
    config = dict(cell.config() or {})
    row = config.pop("row", None)
    if not isinstance(row, dict):
        raise RequestError(f"{cell.path}/config.yaml is missing or damaged: run the command again")
    return spec_from({**config, "rows": [row]})


def session_of(cell: Cell, result: Result, results: Path) -> Session:
    """The backbone and the data that a record in the cell was made from, with its row.

    RequestError if they are missing or the data has changed.
    """
    session = Session(replace(saved_spec(cell), results=results))
    if session.data.digest != result.measured["identity"]["data"]["content"]:
        raise RequestError("the data is no longer what the record was made from")
    return session
