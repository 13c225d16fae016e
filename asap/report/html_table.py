"""A table for the page: texts, footnote marks, sort keys, and the exact values behind each cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from asap.report.render import NOT_APPLICABLE, Column, Row, Table


@dataclass(frozen=True)
class HtmlCell:
    """text as shown; marks of its footnotes; sort: a number or a lower-case text, "" last; tip: the
    unrounded values, one a line.
    """

    text: str
    marks: tuple[str, ...] = ()
    sort: str = ""
    tip: str = ""


@dataclass(frozen=True)
class HtmlHead:
    """A column's title, its marks, and whether it is text."""

    title: str
    marks: tuple[str, ...]
    left: bool


@dataclass(frozen=True)
class HtmlTable:
    """What the template loops over. `groups`: (heading, columns it spans); `notes`: (mark, text);
    `heading`: the column that heads each row.
    """

    title: str
    caption: tuple[str, ...]
    groups: tuple[tuple[str, int], ...]
    heads: tuple[HtmlHead, ...]
    rows: tuple[tuple[HtmlCell, ...], ...]
    notes: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


def html_table(table: Table) -> HtmlTable:
    """The table with marks given in reading order. A model that all rows share is left to the
    caption: on a small screen the first column should be the method.
    """
    marks: dict[str, str] = {}
    models = {row.values.get("model") for row in table.rows}
    columns = [c for c in table.columns if not (c.keys == ("model",) and len(models) == 1)]

    def marked(notes: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(marks.setdefault(note, _mark(len(marks))) for note in notes))

    heads = tuple(
        HtmlHead(c.title.replace("\n", " "), marked(_notes(c, table.column_notes)), c.left)
        for c in columns
    )
    rows = tuple(tuple(_cell(row, c, marked(_notes(c, row.notes))) for c in columns)
                 for row in table.rows)  # fmt: skip
    groups = tuple((name, len(list(run))) for name, run in groupby(c.group for c in columns))
    model = [f"Model: {models.pop()}."] if len(models) == 1 else []
    notes = tuple((mark, text) for text, mark in marks.items())
    return HtmlTable(
        table.title, (*model, *table.caption), groups, heads, rows, notes, table.remarks
    )


def html_frame(frame: pd.DataFrame, title: str) -> HtmlTable:
    """The numbers of a figure as a table, unrounded; looks are left out."""
    names = [str(n) for n in frame.columns if n not in ("colour", "marker", "filled")]
    heads = tuple(HtmlHead(n, (), frame[n].dtype == object) for n in names)
    rows = tuple(
        tuple(HtmlCell(_plain(value), sort=_sort(value)) for value in values)
        for values in frame[names].itertuples(index=False)
    )
    return HtmlTable(title, (), (("", len(names)),), heads, rows, (), ())


def tips(frame: pd.DataFrame) -> list[str]:
    """For each row of a figure's numbers its values in one text, to show on its mark."""
    names = [n for n in frame.columns if n not in ("colour", "marker", "filled")]
    return [
        "\n".join(f"{n}: {_plain(v)}" for n, v in zip(names, values, strict=True))
        for values in frame[names].itertuples(index=False)
    ]


def _cell(row: Row, column: Column, marks: tuple[str, ...]) -> HtmlCell:
    text = column.text(row.values)
    known = [(key, row.values[key]) for key in column.keys if row.values.get(key) is not None]
    shown = text if text is not None else "" if marks else NOT_APPLICABLE
    value = known[-1 if "total" in column.title else 0][1] if known and text is not None else None
    return HtmlCell(shown, marks, _sort(value), "\n".join(_tip(row, known)))


def _tip(row: Row, known: Sequence[tuple[str, Any]]) -> list[str]:
    """The exact values of a cell and the record they are from; nothing for an empty cell."""
    key = row.values.get("key")
    lines = [f"{name}: {_plain(value)}" for name, value in known]
    return [*lines, f"record: {key}"] if lines and key else lines


def _notes(column: Column, notes: Mapping[str, Sequence[str]]) -> list[str]:
    return [note for key in column.keys for note in notes.get(key, ())]


def _sort(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return repr(float(value)) if isinstance(value, (int, float)) else str(value).lower()


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return NOT_APPLICABLE if value != value else f"{value:.15g}"
    return str(value)


def _mark(index: int) -> str:
    """a, b, ... z, aa, ..."""
    return chr(ord("a") + index % 26) * (index // 26 + 1)
