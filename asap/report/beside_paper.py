"""The paper's numbers beside a row's own, and their differences."""

from collections.abc import Iterable, Mapping
from typing import Any

from asap.report import footnotes, paper
from asap.report.beside import BESIDE, MAIN_TABLES, Beside
from asap.report.result import Result
from asap.report.table import TableRow

_TIMED = ("throughput_pct", "infer_samples_per_sec")


def add_paper(row: TableRow, result: Result, backbone: str, table: str) -> None:
    """The paper's numbers beside ours, and the differences."""
    if not paper.in_table(table, backbone) or (not result.is_dense and result.paper_method is None):
        return
    model = paper.paper_model(backbone) or backbone
    if result.accuracy is not None and not result.is_dense and model in paper.ROUNDING:
        gmacs = result.accuracy["gmacs_backbone"]
        row.values["flops_pct_rounded"] = paper.flops_pct_rounded(model, gmacs)
    beside = [b for b in BESIDE[table] if b.dense in (None, result.is_dense)]
    numbers = paper.published(table, backbone, result.paper_method, result.is_dense)
    if numbers is None:
        if not result.is_dense:
            text = f"The paper has no row {result.paper_method!r} for {model}."
            row.note(text, *(key for b in beside for key in (b.paper, b.minus)))
        return
    for b in beside:
        row.values[b.paper] = numbers.get(b.column)
        if row.values[b.paper] is None:
            row.note("The paper leaves this cell empty.", b.paper, b.minus)
        else:
            _add_difference(row, result, b)
    _add_paper_notes(row, result, model, table)


def column_notes(pairs: Iterable[tuple[str, str | None]], table: str) -> dict[str, list[str]]:
    """What one of the paper's tables contradicts in whole columns, by the key of the paper's
    number; pairs: (model, name in the paper) of the rows.
    """
    key_of = {b.column: b.paper for b in BESIDE.get(table, ())}
    notes: dict[str, list[str]] = {}
    for note in footnotes.footnotes(table, pairs):
        if not note.methods and note.column in key_of:
            notes.setdefault(key_of[note.column], []).append(note.text)
    return notes


def _add_difference(row: TableRow, result: Result, b: Beside) -> None:
    """Ours minus the paper's; for speeds only on the paper's device and likely precision."""
    if row.values.get(b.ours) is None:
        return
    timed = result.throughput if b.ours in _TIMED else None
    if timed is not None and not _is_the_papers(timed):
        row.note(
            f"Timed on {timed['device_name']} in {timed['precision']}: no difference is formed "
            "from the paper's RTX 4090, most likely in float32.",
            b.minus,
        )
        return
    row.values[b.minus] = row.values[b.ours] - row.values[b.paper]


def _is_the_papers(record: Mapping[str, Any]) -> bool:
    return "RTX 4090" in record["device_name"] and record["precision"] in ("fp32", "float32")


def _add_paper_notes(row: TableRow, result: Result, model: str, table: str) -> None:
    name = result.paper_method
    own = paper.paper_row(model, name) if table in MAIN_TABLES else None
    if own is not None and own.method != name:
        row.note(f"The paper's only ASAP row for {model} is {own.method!r}.", "paper_top1")
        name = own.method
    key_of = {b.column: b.paper for b in BESIDE.get(table, ())}
    for note in footnotes.footnotes(table, [(model, name)]):
        if note.methods and note.column in key_of:
            row.note(note.text, key_of[note.column])
