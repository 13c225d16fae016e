"""Finds tables and rows of earlier runs by their titles and labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from asap.errors import RequestError
from asap.records.disk import stem_of
from asap.report.manifest import Manifest, read_manifests
from asap.report.result import RowRef

T = TypeVar("T")
_LISTED = 40


def table_named(results: Path, name: str) -> Manifest:
    """The table with this title or file name, or the only one whose title begins so."""
    tables = read_manifests(results)
    if not tables:
        raise RequestError(f"{results}/tables holds no table: run an experiment first")
    titles = {table.title: table for table in tables}
    files = {stem_of(title): table for title, table in titles.items()}
    return _only(name, files if _alike(name, files) else titles, "table")


def row_named(table: Manifest, name: str) -> RowRef:
    """The row with that label, or the only one whose label begins so; case does not matter.

    RequestError if it has no accuracy record, or several rows with records of their own are called
    so.
    """
    rows: dict[str, list[RowRef]] = {}
    for row in table.rows:
        rows.setdefault(row.label, []).append(row)
    found = _only(name, rows, f"row of {table.title!r}")
    records = {row.records["accuracy"]: row for row in found if "accuracy" in row.records}
    if not records:
        raise RequestError(f"the row {found[0].label!r} has no accuracy record: choose another")
    if len(records) > 1:
        raise RequestError(
            f"{len(records)} rows of {table.title!r} are called {found[0].label!r}: give two keys, "
            f"here {', '.join(map(str, records))}"
        )
    return next(iter(records.values()))


def _only(name: str, things: Mapping[str, T], what: str) -> T:
    """The thing with that name; else RequestError, which lists the names."""
    alike = _alike(name, things)
    if len(alike) != 1:
        listed = [repr(one) for one in alike or things]
        said = f"{len(alike)} begin so" if alike else "there is"
        more = ", ..." if len(listed) > _LISTED else ""
        raise RequestError(
            f"{name!r} is not the name of one {what}: {said}: {', '.join(listed[:_LISTED])}{more}"
        )
    return things[alike[0]]


def _alike(name: str, known: Mapping[str, object]) -> Sequence[str]:
    """Names equal to `name`, else equal up to case, else beginning with it."""
    folded = name.casefold().strip()
    same = [one for one in known if one.casefold() == folded]
    begun = [one for one in known if folded and one.casefold().startswith(folded)]
    return [name] if name in known else same or begun
