"""The run that a record came from, read back from the config.yaml beside it."""

from pathlib import Path
from typing import Any, NoReturn

import yaml

from asap.errors import RequestError
from asap.runs.disk import read_bytes
from asap.runs.spec import RunSpec, read_spec
from asap.runs.store import Cell


def saved_spec(cell: Cell) -> RunSpec:
    """The spec of one row as `config_of` wrote it. RequestError if it is missing or damaged."""
    path = cell.path / "config.yaml"
    config = _read(path)
    method = config.pop("method", None)
    if not isinstance(method, dict) or not isinstance(method.get("options"), dict):
        raise RequestError(f"{path} names no method: run the command again")
    flat = {**method.pop("options"), **method}
    return read_spec({**config, "method": flat, "baseline": False}, _no_other_method)


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(read_bytes(path) or b"")
    except yaml.YAMLError:
        config = None
    if not isinstance(config, dict):
        raise RequestError(f"{path} is missing or damaged: run the command again")
    return config


def _no_other_method(name: str) -> NoReturn:
    raise RequestError(f"a record has one method, this one refers to {name!r} as well")
