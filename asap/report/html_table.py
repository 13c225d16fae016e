"""A table for the page: texts, footnote marks, sort keys, and the exact values of each cell."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import pandas as pd

from asap.report.table import NOT_APPLICABLE, MarkedCell, Table, TableColumn, TableRow


@dataclass(frozen=True)
class HtmlCell:
    """text: as shown; marks: of its footnotes; sort: a number or a lower-case text, "" sorts last;
    tip: the unrounded values, one per line.
    """

    text: str
    marks: tuple[str, ...] = ()
    sort: str = ""
    tip: str = ""


@dataclass(frozen=True)
class HtmlHead:
    """A column's title, its footnote marks, and whether it is aligned left."""

    title: str
    marks: tuple[str, ...]
    left: bool


@dataclass(frozen=True)
class HtmlTable:
    """A table as the template needs it. groups: (heading, columns that it spans); notes: (mark,
    text).
    """

    title: str
    caption: tuple[str, ...]
    groups: tuple[tuple[str, int], ...]
    heads: tuple[HtmlHead, ...]
    rows: tuple[tuple[HtmlCell, ...], ...]
    notes: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


def html_table(table: Table) -> HtmlTable:
    """The table for the page. A model that all rows share is left to the caption: on a small screen
    the first column should be the method.
    """
    models = {row.values.get("model") for row in table.rows}
    columns = [c for c in table.columns if not (c.keys == ("model",) and len(models) == 1)]
    header, body, marks = replace(table, columns=tuple(columns)).marked()
    heads = tuple(
        HtmlHead(c.flat_title, marked, c.left) for c, marked in zip(columns, header, strict=True)
    )
    rows = tuple(
        tuple(_cell(row, c, cell) for c, cell in zip(columns, cells, strict=True))
        for row, cells in zip(table.rows, body, strict=True)
    )
    groups = tuple((name, len(list(run))) for name, run in groupby(c.group for c in columns))
    model = [f"Model: {models.pop()}."] if len(models) == 1 else []
    notes = tuple((mark, text) for text, mark in marks.items())
    return HtmlTable(
        table.title, (*model, *table.caption), groups, heads, rows, notes, table.remarks
    )


def html_frame(frame: pd.DataFrame, title: str) -> HtmlTable:
    """The numbers of a figure as a table, unrounded, without colours and markers."""
    names = [str(n) for n in frame.columns if n not in ("colour", "marker", "filled")]
    heads = tuple(HtmlHead(n, (), frame[n].dtype == object) for n in names)
    rows = tuple(
        tuple(HtmlCell(_plain(value), sort=_sort(value)) for value in values)
        for values in frame[names].itertuples(index=False)
    )
    return HtmlTable(title, (), (("", len(names)),), heads, rows, (), ())


def tips(frame: pd.DataFrame) -> list[str]:
    """The tooltip of each row's mark in a figure: its values, one per line."""
    names = [n for n in frame.columns if n not in ("colour", "marker", "filled")]
    return [
        "\n".join(f"{n}: {_plain(v)}" for n, v in zip(names, values, strict=True))
        for values in frame[names].itertuples(index=False)
    ]


def _cell(row: TableRow, column: TableColumn, cell: MarkedCell) -> HtmlCell:
    known = [(key, row.values[key]) for key in column.keys if row.values.get(key) is not None]
    sorted_by = known[-1 if "total" in column.title else 0][1] if known else None
    value = None if cell.text is None else sorted_by
    return HtmlCell(cell.shown, cell.marks, _sort(value), "\n".join(_tip(row, known)))


def _tip(row: TableRow, known: Sequence[tuple[str, Any]]) -> list[str]:
    """The unrounded values of a cell and the key of their record; none for an empty cell."""
    key = row.values.get("key")
    lines = [f"{name}: {_plain(value)}" for name, value in known]
    return [*lines, f"record: {key}"] if lines and key else lines


def _sort(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return repr(float(value)) if isinstance(value, (int, float)) else str(value).lower()


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return NOT_APPLICABLE if value != value else f"{value:.15g}"
    return str(value)
