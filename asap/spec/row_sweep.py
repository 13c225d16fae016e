"""Expands a row with a sweep into one row for every combination of its values."""

from collections.abc import Mapping
from itertools import product
from typing import Any

from asap.errors import RequestError


def expand(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of `sweep: {option: [value, ...], ...}`, the last option varying fastest.

    Each has its values under "with", and under "point" for its label. A row without a sweep stays
    as it is. RequestError for a sweep that is not lists of values, has a value twice, or has an
    option that is under "with" too.
    """
    if row.get("sweep") is None:
        return [{k: v for k, v in row.items() if k != "sweep"}]
    grid, given = row["sweep"], row.get("with") or {}
    if not isinstance(grid, Mapping) or not grid:
        raise RequestError(f"rows: sweep={grid!r} is not possible: give option: [value, ...]")
    for option, values in grid.items():
        _check(option, values, given)
    plain = {k: v for k, v in row.items() if k not in ("sweep", "with")}
    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return [{**plain, "with": {**given, **point}, "point": point} for point in points]


def _check(option: Any, values: Any, given: Any) -> None:
    where = f"rows: sweep.{option}={values!r} is not possible"
    if not isinstance(values, list) or not values:
        raise RequestError(f"{where}: give a list of values")
    if any(value in values[:i] for i, value in enumerate(values)):
        raise RequestError(f"{where}: give every value once")
    if isinstance(given, Mapping) and option in given:
        raise RequestError(f"{where}: {option} is also under with: remove one of them")
