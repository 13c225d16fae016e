"""The result table in parts for a page, without the columns that its data cannot fill."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from asap.report import clips, questions
from asap.report.benchmarks.table import OVER
from asap.report.beside import PUBLISHED
from asap.report.clips import CHANGES, CLIPS
from asap.report.columns import (
    COST,
    FORM,
    FURTHER,
    NAMED,
    PAIRED,
    ROW,
    SPEED,
    TOKENS,
)
from asap.report.latency import AGAINST, PAPER, SIZES, TIMES
from asap.report.modular_cost import MODULAR
from asap.report.questions import OF_PARTS, ROWS, SCORES
from asap.report.table import Table

_MASK_KEYS = {"sink_on_object_pct", "object_share_pct", "object_recall_pct"}


def parts(table: Table) -> tuple[Table, ...]:
    """The table in parts for a page: accuracy and cost; beside the paper's numbers, if it has this
    backbone; latency, memory and energy, if they were measured; frames and clips of a video, or
    scores and rows of questions; speed, tokens and sinks. A table over benchmarks has scores, rows
    and costs in its first part, and a second one beside the paper's numbers.

    The first part has the caption, the last the remarks. Columns that the data cannot fill are left
    out. If only speeds, or times of questions, were measured, they are the first part, and none is
    about accuracy.
    """
    if any(column.group == OVER for column in table.columns):
        return _over_benchmarks(table)
    table = _without_undefined(table)
    shown = (ROW, FORM, PAIRED, COST, NAMED)
    first = table.select("Accuracy and cost", shown)
    paper_too = table.select("Beside the paper", (ROW, *PUBLISHED))
    in_paper = any(column.group in PUBLISHED for column in table.columns)
    further = table.select("Latency, memory and energy", (ROW, FURTHER))
    measured = any(column.group == FURTHER for column in table.columns)
    middle = [*([paper_too] if in_paper else []), *([further] if measured else [])]
    groups = {column.group for column in table.columns}
    if CLIPS in groups:
        middle.append(table.select("Frames and clips", (ROW, CLIPS, CHANGES)))
    if SCORES in groups:
        middle.append(table.select("Scores by category", (ROW, SCORES)))
        if OF_PARTS in groups:
            middle.append(table.select("Parts of the benchmark's number", (ROW, OF_PARTS)))
        middle.append(table.select("Rows and cost of the language model", (ROW, ROWS)))
    evaluated = any(row.values.get("n") is not None for row in table.rows)
    timed = any(row.values.get("infer_samples_per_sec") is not None for row in table.rows)
    fast = table.select("Speed", (ROW, SPEED))
    ending = "Tokens and sinks" if SCORES in groups else "Speed, tokens and sinks"
    last = table.select(ending, (ROW, SPEED, TOKENS))
    asked = [table.select("Modular costs", (ROW, *MODULAR))] if MODULAR[0] in groups else []
    asked += _times(table) if TIMES in groups else []
    if asked and not evaluated:
        return _in_turn(asked)
    middle += asked
    found = [fast, *middle] if timed and not evaluated else [first, *middle, last]
    return _in_turn([_worded(part, groups) for part in found])


def _times(table: Table) -> list[Table]:
    """The time of a question, what there was to compute, and the paper's times if there are any."""
    found = [
        table.select("Time of a question", (ROW, TIMES, AGAINST)),
        table.select("Rows, cost and memory of the timed questions", (ROW, SIZES)),
    ]
    beside = table.select("Times beside the paper's", (ROW, PAPER))
    return [*found, *([beside] if any(c.group == PAPER for c in table.columns) else [])]


def _over_benchmarks(table: Table) -> tuple[Table, ...]:
    found = [table.select("Scores, rows and costs", (ROW, OVER, ROWS))]
    beside = table.select("Paper, and ours minus the paper's", (ROW, *PUBLISHED))
    return _in_turn([*found, *([beside] if len(beside.columns) > 1 else [])])


def _in_turn(found: Sequence[Table]) -> tuple[Table, ...]:
    """The parts of one table: the caption above the first, the remarks below the last."""
    return tuple(
        replace(
            part,
            caption=part.caption if i == 0 else (),
            remarks=part.remarks if i == len(found) - 1 else (),
        )
        for i, part in enumerate(found)
    )


def _worded(part: Table, groups: Collection[str]) -> Table:
    """The part in the words of its examples."""
    if CLIPS in groups:
        return clips.worded(part)
    return questions.worded(part) if SCORES in groups else part


def _without_undefined(table: Table) -> Table:
    """The table without columns that the data cannot fill, such as those of masks."""
    hidden: set[str] = set()
    remarks = table.remarks
    masks = [row.values[key] for row in table.rows for key in _MASK_KEYS if key in row.values]
    if masks and all(value is None for value in masks):
        hidden |= _MASK_KEYS
        remarks += (
            "The data set has no object masks: sinks on the object and object recall are "
            "undefined.",
        )

    def empty(*keys: str) -> bool:
        return all(row.values.get(key) is None for row in table.rows for key in keys)

    for key in ("wall_fused", "ratio_best", "ratio_compiled"):
        timed = [row for row in table.rows if row.values.get("infer_samples_per_sec") is not None]
        said = key != "wall_fused" and any(row.notes.get(key) for row in timed)
        hidden |= {key} if empty(key) and not said else set()
    if {row.values.get("engine_path") for row in table.rows} <= {None, "torch"}:
        hidden.add("engine_path")
    if empty("latency_p50_ms", "peak_memory_mb", "joules_per_image"):
        hidden |= {key for c in table.columns if c.group == FURTHER for key in c.keys}
    kept = tuple(column for column in table.columns if not hidden & set(column.keys))
    return replace(table, columns=kept, remarks=remarks)
