"""What the paper's tables contradict: results/paper/notes.csv, printed where a row is concerned."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from asap.report.paper import paper_model, paper_table


@dataclass(frozen=True)
class Footnote:
    """An inconsistency of the paper: its table, models and methods (empty: all), column (None: of
    no one column).
    """

    table: str
    text: str
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    column: str | None = None

    def concerns(self, model: str, method: str | None) -> bool:
        """Whether the note is about the row (model, method), in the paper's names."""
        return (not self.models or model in self.models) and (
            not self.methods or method in self.methods
        )


def footnotes(table: str, rows: Iterable[tuple[str, str | None]]) -> list[Footnote]:
    """The notes of one of the paper's tables that concern any of the (model, method) rows."""
    rows = [(paper_model(model) or model, method) for model, method in rows]
    return [
        note
        for note in all_footnotes()
        if note.table == table and any(note.concerns(*row) for row in rows)
    ]


@functools.cache
def all_footnotes() -> tuple[Footnote, ...]:
    """The notes of all tables, in the order of the file; models and methods stand apart by `;`."""
    return tuple(
        Footnote(
            row["table"], row["text"], _names(row["models"]), _names(row["methods"]),
            row["column"] or None,
        )
        for row in paper_table("notes")
    )  # fmt: skip


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(";") if name)
