"""The run that a record came from, read back from the config.yaml beside it."""

from asap.errors import RequestError
from asap.records.store import Cell
from asap.spec.read import spec_from
from asap.spec.run_spec import RunSpec


def saved_spec(cell: Cell) -> RunSpec:
    """The spec of one row as it was run. RequestError if it is missing or damaged."""
    config = dict(cell.config() or {})
    row = config.pop("row", None)
    if not isinstance(row, dict):
        raise RequestError(f"{cell.path}/config.yaml is missing or damaged: run the command again")
    return spec_from({**config, "rows": [row]})
