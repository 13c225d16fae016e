"""A table as data, and its three forms: Markdown, CSV and plain text for a terminal.

A cell without a value is "–" if the quantity does not apply to the row, and a bare footnote mark if
it was not measured. Marks are given at rendering, in reading order, so that a table cut in two
keeps its footnotes straight.
"""

import csv
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

NOT_APPLICABLE = "–"


@dataclass(frozen=True)
class Column:
    """A column as shown (`text` of a row's values, None for an empty cell) and the machine-readable
    `keys` it stands for; `title` may have several lines; `left` aligns left.
    """

    title: str
    group: str
    keys: tuple[str, ...]
    text: Callable[[Mapping[str, Any]], str | None]
    left: bool = False


@dataclass
class Row:
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
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    column_notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    csv_keys: tuple[str, ...] = ()

    def select(self, title: str, groups: Sequence[str]) -> "Table":
        """The columns of some groups only, in this table's order."""
        columns = tuple(column for column in self.columns if column.group in groups)
        return replace(self, title=title, columns=columns, csv_keys=())

    def to_csv(self) -> str:
        """One line a row under machine-readable names, numbers unrounded, empty where there is
        none.
        """
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
        """Monospace text with group headings; a model's name stands in its first row only."""
        header, body, notes = self.texts(flat=False)
        body = once(body, [row.values.get("model") for row in self.rows])
        heads = [cell.split("\n") for cell in header]
        height = max(len(head) for head in heads)
        stacked = [[""] * (height - len(head)) + head for head in heads]
        lines = [[head[i] for head in stacked] for i in range(height)]
        groups = [column.group for column in self.columns]
        widths = [max(len(row[i]) for row in [*lines, *body]) for i in range(len(groups))]
        _widen(widths, groups)
        out = [self.title, *_wrapped(self.caption, width), "", _group_line(groups, widths)]
        out += [_joined(self._pad(line, widths), groups) for line in lines]
        out += [_joined(["─" * w for w in widths], groups)]
        out += [_joined(self._pad(row, widths), groups) for row in body]
        if notes:
            out.append("")
        for text, mark in notes.items():
            out += textwrap.wrap(f"{mark} {text}", width, subsequent_indent="  ")
        if self.remarks:
            out += ["", *_wrapped(self.remarks, width)]
        return "\n".join(line.rstrip() for line in out) + "\n"

    def texts(
        self, flat: bool, named: bool = False
    ) -> tuple[list[str], list[list[str]], dict[str, str]]:
        """Header cells, body cells, and {footnote text: mark} in reading order.

        flat: every header in one line. named: a title that several columns have gets its group in
        front, for where no heading of the group stands above.
        """
        marks: dict[str, str] = {}

        def marked(text: str, notes: list[str]) -> str:
            found = dict.fromkeys(marks.setdefault(note, _mark(len(marks))) for note in notes)
            return " ".join([*([text] if text else []), "".join(found)]) if found else text

        header = []
        for column in self.columns:
            notes = [note for key in column.keys for note in self.column_notes.get(key, ())]
            header.append(marked(self._title(column, flat, named), notes))
        body = [[self._cell(row, column, marked) for column in self.columns] for row in self.rows]
        return header, body, marks

    def _title(self, column: Column, flat: bool, named: bool) -> str:
        several = sum(other.title == column.title for other in self.columns) > 1
        title = f"{column.group}: {column.title}" if named and several else column.title
        return title.replace("\n", " ") if flat else title

    @staticmethod
    def _cell(row: Row, column: Column, marked: Callable[[str, list[str]], str]) -> str:
        text = column.text(row.values)
        notes = [note for key in column.keys for note in row.notes.get(key, ())]
        if text is None:
            return marked("", notes) if notes else NOT_APPLICABLE
        return marked(text, notes)

    def _pad(self, cells: Sequence[str], widths: Sequence[int]) -> list[str]:
        return [
            cell.ljust(width) if column.left else cell.rjust(width)
            for cell, width, column in zip(cells, widths, self.columns, strict=True)
        ]


def _mark(index: int) -> str:
    """(a), (b), ... (z), (aa), ...: not a raised digit, which reads as a power."""
    letter = chr(ord("a") + index % 26)
    return f"({letter * (index // 26 + 1)})"


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _rule(rules: Sequence[str]) -> list[str]:
    """Rules come with their right padding; this adds the left one."""
    return [f"-{rule}" for rule in rules]


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [part for line in lines for part in (line, "")]


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, width)]


def once(body: list[list[str]], models: Sequence[str | None]) -> list[list[str]]:
    """Blank the first column where the row above has the same model."""
    repeated = [i > 0 and model == models[i - 1] for i, model in enumerate(models)]
    return [["", *row[1:]] if again else row for row, again in zip(body, repeated, strict=True)]


def _separator(groups: Sequence[str], i: int) -> str:
    return " │ " if i and groups[i] != groups[i - 1] else "  "


def _joined(cells: Sequence[str], groups: Sequence[str]) -> str:
    return "".join(("" if i == 0 else _separator(groups, i)) + cell for i, cell in enumerate(cells))


def spans(groups: Sequence[str]) -> list[tuple[str, int, int]]:
    """Runs of equal groups: (group, first column, column after the last)."""
    starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
    ends = [*starts[1:], len(groups)]
    return [(groups[start], start, end) for start, end in zip(starts, ends, strict=True)]


def _widen(widths: list[int], groups: Sequence[str]) -> None:
    """Make the last column of a group wide enough for the group's heading."""
    for group, start, end in spans(groups):
        have = sum(widths[start:end]) + 2 * (end - start - 1)
        widths[end - 1] += max(0, len(group) - have)


def _group_line(groups: Sequence[str], widths: Sequence[int]) -> str:
    parts = [
        group.center(sum(widths[start:end]) + 2 * (end - start - 1))
        for group, start, end in spans(groups)
    ]
    return " │ ".join(parts)
