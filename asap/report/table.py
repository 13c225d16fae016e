"""A table as data, and its three forms: Markdown, CSV and plain text for a terminal.

A cell without a value shows "–" if the quantity does not apply to the row, and only a footnote mark
if it was not measured. Footnotes are numbered when a table is rendered, so that each part of a
divided table has its own marks in reading order.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from asap.report.monospace import fitted, padded, stacked, width_of, wrapped

NOT_APPLICABLE = "–"
_NAMES = (16, 10)  # widths to which names are narrowed before numbers are broken


@dataclass(frozen=True)
class TableColumn:
    """A column. text: what a cell shows, from the row's values (None: no value); keys: the
    machine-readable values behind it; title: may have several lines; left: align left.
    """

    title: str
    group: str
    keys: tuple[str, ...]
    text: Callable[[Mapping[str, Any]], str | None]
    left: bool = False

    @property
    def flat_title(self) -> str:
        """The title on one line; a word that a hyphen breaks is whole again."""
        return self.title.replace("-\n", "").replace("\n", " ")


@dataclass
class TableRow:
    """Values by key, and footnotes by key."""

    values: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def note(self, text: str, *keys: str) -> None:
        """Attach a footnote to the cells that show these keys."""
        for key in keys:
            self.notes.setdefault(key, []).append(text)


@dataclass(frozen=True)
class Table:
    """Columns, rows, lines above (`caption`) and below (`remarks`), and footnotes of whole columns
    by key.
    """

    title: str
    columns: tuple[TableColumn, ...]
    rows: tuple[TableRow, ...]
    caption: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    column_notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    csv_keys: tuple[str, ...] = ()

    def select(self, title: str, groups: Sequence[str]) -> "Table":
        """The table with the columns of these groups only."""
        columns = tuple(column for column in self.columns if column.group in groups)
        return replace(self, title=title, columns=columns, csv_keys=())

    def to_csv(self) -> str:
        """One line per row under machine-readable names, numbers unrounded, missing ones empty."""
        shown = (key for column in self.columns for key in column.keys)
        keys = self.csv_keys or tuple(dict.fromkeys(shown))
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(keys)
        for row in self.rows:
            writer.writerow(["" if row.values.get(k) is None else row.values[k] for k in keys])
        return out.getvalue()

    def to_markdown(self) -> str:
        """A GitHub table with aligned columns, so that it also reads well as plain text."""
        header, body, notes = self.texts(flat=True, named=True)
        header, body = [_escape(cell) for cell in header], [[_escape(c) for c in r] for r in body]
        widths = [
            max(3, *(len(row[i]) for row in [header, *body])) for i in range(len(self.columns))
        ]
        rules = [
            f"{'-' * w}-" if c.left else f"{'-' * w}:"
            for c, w in zip(self.columns, widths, strict=True)
        ]
        lines = [f"### {self.title}", "", *_paragraphs(self.caption)]
        lines += [f"| {' | '.join(self._pad(header, widths))} |", f"|{'|'.join(_rule(rules))}|"]
        lines += [f"| {' | '.join(self._pad(row, widths))} |" for row in body]
        lines += ["", *(f"- {mark} {text}" for text, mark in notes.items())]
        lines += [*([""] if notes else []), *_paragraphs(self.remarks)]
        return "\n".join(lines).rstrip() + "\n"

    def to_console(self, width: int = 120) -> str:
        """Monospace text in lines of at most `width` columns, with group headings; a model's name
        stands in its first row only. A table that is too wide breaks headers first, then names.
        """
        header, body, notes = self.texts(flat=False)
        body = self.named_once(body)
        groups = [column.group for column in self.columns]
        left = [column.left for column in self.columns]
        between = [_separator(groups, i) for i in range(len(groups))]
        widths = _console_widths(header, body, groups, left, width - sum(map(len, between)))

        def row_of(cells: Sequence[str], bottom: bool = False) -> list[str]:
            """A row as lines; a cell's own lines stay apart."""
            parts = [
                [x for line in cell.split("\n") for x in wrapped(line, w, "  " if text else "")]
                for cell, w, text in zip(cells, widths, left, strict=True)
            ]
            return [_joined(line, widths, left, between) for line in stacked(parts, bottom)]

        out = [*wrapped(self.title, width), *_wrapped(self.caption, width), ""]
        out += _group_lines(groups, widths)
        out += row_of(header, bottom=True)
        out += row_of(["─" * w for w in widths])
        out += [line for cells in body for line in row_of(cells)]
        if notes:
            out.append("")
        for text, mark in notes.items():
            out += wrapped(f"{mark} {text}", width, "  ")
        if self.remarks:
            out += ["", *_wrapped(self.remarks, width)]
        return "\n".join(line.rstrip() for line in out) + "\n"

    def marked(self) -> "MarkedTable":
        """Texts and footnote marks of all cells; marks are given in reading order, the header
        first. The one place that numbers footnotes.
        """
        marks: dict[str, str] = {}

        def marks_of(column: TableColumn, notes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
            found = (note for key in column.keys for note in notes.get(key, ()))
            return tuple(dict.fromkeys(marks.setdefault(note, _mark(len(marks))) for note in found))

        header = [marks_of(column, self.column_notes) for column in self.columns]
        body = [
            [MarkedCell(c.text(row.values), marks_of(c, row.notes)) for c in self.columns]
            for row in self.rows
        ]
        return MarkedTable(header, body, marks)

    def texts(
        self, flat: bool, named: bool = False
    ) -> tuple[list[str], list[list[str]], dict[str, str]]:
        """Header cells, body cells, and {footnote text: mark} in reading order; marks in brackets.

        flat: every header in one line. named: a title that several columns have gets its group in
        front, for where no heading of the group stands above.
        """
        header, body, marks = self.marked()
        titles = [self._title(column, flat, named) for column in self.columns]
        return (
            [_with_marks(title, marked) for title, marked in zip(titles, header, strict=True)],
            [[_with_marks(cell.shown, cell.marks) for cell in row] for row in body],
            {note: f"({mark})" for note, mark in marks.items()},
        )

    def named_once(self, body: list[list[str]]) -> list[list[str]]:
        """The texts of the cells with a model's name in its first row only, if one stands first."""
        if not self.columns or self.columns[0].keys != ("model",):
            return body
        models = [row.values.get("model") for row in self.rows]
        again = [i > 0 and model == models[i - 1] for i, model in enumerate(models)]
        return [["", *row[1:]] if a else row for row, a in zip(body, again, strict=True)]

    def _title(self, column: TableColumn, flat: bool, named: bool) -> str:
        several = sum(other.title == column.title for other in self.columns) > 1
        own = column.flat_title if flat else column.title
        return f"{column.group}: {own}" if named and several else own

    def _pad(self, cells: Sequence[str], widths: Sequence[int]) -> list[str]:
        return [
            cell.ljust(width) if column.left else cell.rjust(width)
            for cell, width, column in zip(cells, widths, self.columns, strict=True)
        ]


class MarkedCell(NamedTuple):
    """A cell's text, None if it has no value, and the marks of its footnotes."""

    text: str | None
    marks: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The text as shown: nothing beside a mark, NOT_APPLICABLE for a cell with neither."""
        if self.text is not None:
            return self.text
        return "" if self.marks else NOT_APPLICABLE


class MarkedTable(NamedTuple):
    """Marks of each column's header, the cells row by row, and {footnote text: mark}."""

    header: list[tuple[str, ...]]
    body: list[list[MarkedCell]]
    marks: dict[str, str]


def _mark(index: int) -> str:
    """a, b, ... z, aa, ...: not a raised digit, which reads as a power."""
    return chr(ord("a") + index % 26) * (index // 26 + 1)


def _with_marks(text: str, marks: Sequence[str]) -> str:
    bracketed = "".join(f"({mark})" for mark in marks)
    return " ".join(part for part in (text, bracketed) if part)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _rule(rules: Sequence[str]) -> list[str]:
    """Adds the left padding to rules that have their right one."""
    return [f"-{rule}" for rule in rules]


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [part for line in lines for part in (line, "")]


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    return [part for line in lines for part in wrapped(line, width)]


def _separator(groups: Sequence[str], i: int) -> str:
    """The text between column i - 1 and column i."""
    if i == 0:
        return ""
    return " │ " if groups[i] != groups[i - 1] else "  "


def _joined(
    cells: Sequence[str], widths: Sequence[int], left: Sequence[bool], between: Sequence[str]
) -> str:
    columns = zip(between, cells, widths, left, strict=True)
    return "".join(space + padded(cell, w, aligned) for space, cell, w, aligned in columns)


def spans(groups: Sequence[str]) -> list[tuple[str, int, int]]:
    """Runs of equal groups: (group, first column, column after the last)."""
    starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
    ends = [*starts[1:], len(groups)]
    return [(groups[start], start, end) for start, end in zip(starts, ends, strict=True)]


def _console_widths(
    header: Sequence[str],
    body: Sequence[Sequence[str]],
    groups: Sequence[str],
    left: Sequence[bool],
    room: int,
) -> list[int]:
    """Widths of columns that together take at most `room`. To make them fit, headers are broken
    between words first, then names (`left`), then numbers, then anywhere.
    """
    cells = [max((width_of(row[i]) for row in body), default=0) for i in range(len(header))]
    lines = [max(map(width_of, head.split("\n"))) for head in header]
    words = [max(map(width_of, head.split()), default=0) for head in header]
    widths = [max(pair) for pair in zip(cells, lines, strict=True)]
    _widen(widths, groups)
    narrow = [max(pair) for pair in zip(cells, words, strict=True)]
    floors = [[w if t else n for w, n, t in zip(widths, narrow, left, strict=True)]]
    for name in _NAMES:
        floors.append([min(w, name) if t else w for w, t in zip(floors[0], left, strict=True)])
    floors.append([w if t else 1 for w, t in zip(floors[-1], left, strict=True)])
    return fitted(widths, [*floors, [1] * len(widths)], room)


def _widen(widths: list[int], groups: Sequence[str]) -> None:
    """Make the last column of a group wide enough for the group's heading."""
    for group, start, end in spans(groups):
        widths[end - 1] += max(0, width_of(group) - _across(widths, start, end))


def _across(widths: Sequence[int], start: int, end: int) -> int:
    return sum(widths[start:end]) + 2 * (end - start - 1)


def _group_lines(groups: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Lines with the groups' headings above their columns; none without groups."""
    if not any(groups):
        return []
    across = [_across(widths, start, end) for _, start, end in spans(groups)]
    pairs = zip(spans(groups), across, strict=True)
    lines = stacked([wrapped(group, w) for (group, _, _), w in pairs], bottom=True)
    return [" │ ".join(map(str.center, line, across)) for line in lines]
