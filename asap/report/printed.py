"""The table for a terminal: accuracy, cost and speed. The files have all columns."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace

from asap.report.benchmarks.named import BENCHMARKS
from asap.report.benchmarks.table import OVER
from asap.report.beside import PUBLISHED
from asap.report.columns import (
    NAMED,
    ROW,
    decimals,
    number,
    rate_column,
    value_column,
    with_interval,
)
from asap.report.latency import PAPER, TIMES
from asap.report.modular_cost import MODULAR
from asap.report.monospace import width_of
from asap.report.questions import SCORES
from asap.report.table import Table, TableColumn
from asap.report.table_parts import parts

_METHOD = value_column("Method", ROW, "method", "", left=True)
MEDIANS = "ms per question, medians"
MOST, LEAST = 120, 80  # columns of a terminal
_NAME = 24  # width that is kept for a method's name before more numbers are shown
# Columns shown beside the paper's main table; beside its other tables all are.
_MAIN = {"paper_top1_delta", "paper_flops_pct"}
_FAST = {"paper_throughput_pct"}  # beside it, where only speed was measured
_BENCHMARKS = tuple(one.column for one in BENCHMARKS)
_FURTHER = ("timed_macs_pct", "latency_p50_ms")  # shown where only speed was measured


def console_width() -> int:
    """The terminal's columns, between LEAST and MOST; MOST where there is no terminal."""
    return min(MOST, max(LEAST, shutil.get_terminal_size((MOST, 24)).columns))


def printed(table: Table, title: str, width: int) -> str:
    """The whole table of `build_table` as text in lines of at most `width` columns.

    Always method, top-1 with its difference and interval, MACs and speed, if measured; the paper's
    numbers, GMACs and images per second where there is room. Footnotes are of shown cells only.
    """
    if any(column.group == OVER for column in table.columns):
        return _over_benchmarks(table, title, width)
    costs = _costs(table, title, width)
    again = bool(costs) or _measured(table, "n")
    times = costs + _times(table, title, width, again)
    if times and not _measured(table, "n"):
        return times
    shown = _columns(table)
    for columns in _more(table):
        wider = _in_order([*shown, *columns])
        shown = wider if _needs(table, wider) <= width else shown
    what = "Accuracy and cost" if _measured(table, "n") or not _timed(table) else "Speed"
    head = f"{what}: {' '.join(title.split())}"
    caption = (*table.caption, *_how_many(table))
    said = replace(table, title=head, columns=tuple(shown), caption=caption).to_console(width)
    return f"{said}\n{times}" if times else said


def _costs(table: Table, title: str, width: int) -> str:
    """The modular costs without their parts; empty if there are none."""
    columns = [column for column in table.columns if column.group in MODULAR]
    columns = [column for column in columns if not column.keys[0].startswith("tflops_of_")]
    if not columns:
        return ""
    shown = replace(table, title=" ".join(title.split()), columns=(_METHOD, *columns))
    return shown.to_console(width)


def _times(table: Table, title: str, width: int, again: bool) -> str:
    """The times of questions: medians, and the whole against full; empty if there are none.

    again: caption and remarks of the table stand above already.
    """
    found = [column for column in table.columns if column.group == TIMES]
    if not found:
        return ""
    rows = value_column("visual\nrows", ROW, "timed_visual_rows", ".1f")
    medians = [replace(c, text=number(c.keys[0], ".2f"), group=MEDIANS) for c in found]
    against = value_column("total,\nx full", ROW, "total_over_full", ".3f")
    beside = [replace(c, group=NAMED) for c in table.columns if c.group == PAPER]
    beside = [c for c in beside if c.keys[0].startswith("paper_")]
    columns = (_METHOD, rows, *medians, against, *beside)
    head = f"Time of a question: {' '.join(title.split())}"
    kept = replace(table, caption=(), remarks=()) if again else table
    return replace(kept, title=head, columns=columns).to_console(width)


def _over_benchmarks(table: Table, title: str, width: int) -> str:
    """Its parts one below the other, without intervals, and of the paper the differences alone,
    where there is any.
    """
    first, *beside = parts(table)
    minus = [column for part in beside for column in part.columns if column.title == "difference"]
    named = " ".join(title.split())
    shown = [replace(first, title=f"{first.title}: {named}")]
    if any(_measured(table, *column.keys) for column in minus):
        columns = (first.columns[0], *minus)
        shown.append(replace(beside[-1], title=f"Ours minus the paper's: {named}", columns=columns))
    else:
        shown[0] = replace(shown[0], remarks=table.remarks)
    return "\n".join(
        replace(part, columns=tuple(map(_plain, part.columns))).to_console(width) for part in shown
    )


def _plain(column: TableColumn) -> TableColumn:
    """A column of a table over benchmarks in few letters."""
    if column.group in PUBLISHED:
        return replace(column, title=column.group, group="")
    if column.group != OVER:
        return replace(column, group=ROW)
    key = column.keys[0]
    return replace(column, group=ROW, text=number(key, ".0f" if key == "mme" else ".1f"))


def _columns(table: Table) -> list[TableColumn]:
    """The columns that are shown at any width."""
    several = len({row.values["model"] for row in table.rows}) > 1
    found = [value_column("Model", ROW, "model", "", left=True)] if several else []
    found += [_METHOD]
    scored = [c for c in table.columns if c.group == SCORES and c.keys[0] in _BENCHMARKS]
    found += [replace(column, group=ROW) for column in scored if _measured(table, column.keys[0])]
    if _measured(table, "n"):
        difference = ("top1_delta", "top1_delta_lo", "top1_delta_hi")
        title = "right\n(%)" if _measured(table, "visual_rows") else "top-1\n(%)"
        found += [
            value_column(title, ROW, "top1", ".2f"),
            TableColumn("Δ to dense,\n95 % interval", ROW, difference, with_interval(*difference)),
            value_column("MACs\n(%)", ROW, "flops_pct", "+z.2f"),
        ]
    if _timed(table):
        found += [value_column("speed, x\nfused dense", ROW, "ratio_fused", ".2f")]
    return found


def _more(table: Table) -> list[list[TableColumn]]:
    """Groups of further columns, the most important first."""
    paper = [c for c in table.columns if c.group in PUBLISHED and c.title == "paper"]
    main = [c for c in paper if (_MAIN if _measured(table, "n") else _FAST).issuperset(c.keys)]
    beside = [replace(c, title=c.group.replace(" (", "\n("), group=NAMED) for c in main or paper]
    most = max((row.values.get("infer_gmacs") or 0.0 for row in table.rows), default=0.0)
    gmacs = value_column("GMACs", ROW, "infer_gmacs", f".{decimals(most)}f")
    speed = rate_column("img/s", ROW, "infer_samples_per_sec")
    best, eager = (
        value_column(f"x {name}\ndense", ROW, key, ".2f")
        for name, key in (("best", "ratio_best"), ("eager", "ratio_eager"))
    )
    timed = [] if _measured(table, "n") else [c for c in table.columns if c.keys[0] in _FURTHER]
    timed = [replace(column, group=ROW) for column in timed]
    rows = value_column("rows in\na layer", ROW, "layer_visual_rows", ".1f")
    scored = [replace(column, group=ROW) for column in table.columns if column.group == SCORES]
    changes = [column for column in scored if column.keys[0].endswith("_delta")]
    asked = [c for c in scored if c.keys[0].startswith(("f1_", "yes_share_", "average"))]
    found = (*changes, rows, gmacs, *asked, *timed, speed)
    own = [[column] for column in found if _measured(table, *column.keys)]
    against = [[best]] if _measured(table, *best.keys) else []
    if beside and not _measured(table, "n"):
        against.append([eager])  # what the paper's number compares with
    return [*([beside] if beside else []), *against, *own]


def _in_order(columns: Iterable[TableColumn]) -> list[TableColumn]:
    """Names, accuracy, costs, speeds, then the paper's."""
    order = (
        "model",
        "method",
        *_BENCHMARKS,
        "top1",
        "top1_delta",
        "infer_gmacs",
        "flops_pct",
        "layer_visual_rows",
    )
    order += (*_FURTHER, "infer_samples_per_sec", "ratio_fused", "ratio_best", "ratio_eager")
    places = {key: i for i, key in enumerate(order)}
    return sorted(columns, key=lambda c: (c.group == NAMED, places.get(c.keys[0], len(order))))


def _needs(table: Table, columns: Sequence[TableColumn]) -> int:
    """Terminal columns that these table columns take, a long name at `_NAME`."""
    header, body, _ = replace(table, columns=tuple(columns)).texts(flat=False)
    total = 2 * (len(columns) - 1) + 1  # and the rule before the paper's
    for i, column in enumerate(columns):
        lines = [
            line for cell in (header[i], *(row[i] for row in body)) for line in cell.split("\n")
        ]
        natural = max(map(width_of, lines))
        total += min(natural, _NAME) if column.left else natural
    return total


def _measured(table: Table, *keys: str) -> bool:
    return any(row.values.get(key) is not None for row in table.rows for key in keys)


def _timed(table: Table) -> bool:
    return _measured(table, "infer_samples_per_sec")


def _how_many(table: Table) -> list[str]:
    """The column n as a line, with its footnotes: how many, and how many could not be read."""
    counted = [(v["n"], v["n_failed"]) for v in (row.values for row in table.rows) if v.get("n")]
    if not counted:
        return []
    said = [f"{n} ({failed} failed)" if failed else f"{n}" for n, failed in dict.fromkeys(counted)]
    if len(said) == 1:
        found = [row for row in table.rows if row.values.get("n")]  # others have a footnote
        notes = dict.fromkeys(note for row in found for note in row.notes.get("n", ()))
        return [" ".join([f"n = {said[0]}.", *notes])]
    return [f"n differs between rows, which leave out what they could not read: {', '.join(said)}."]
