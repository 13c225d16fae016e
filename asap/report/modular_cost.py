"""What a table says of costs in closed form, stage by stage, beside the paper's modular costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from asap.records.cost_record import COST
from asap.records.latency_record import LATENCY
from asap.report.columns import value_column
from asap.report.footnotes import footnotes
from asap.report.paper import paper_table as rows_of_paper
from asap.report.result import Result
from asap.report.table import TableColumn, TableRow

TABLE = "modular_cost"
FLOPS, MEMORY, TIME = "TFLOPs of a question (2 x MACs)", "memory (GB)", "time (ms)"
MODULAR = (FLOPS, MEMORY, TIME)
TERA, GIGA, MIB = 1e12, 1e9, 2**20
SAME_SIZE = 0.01  # within which weights are those of one model
_PARTS = ("tower", "projector", "prefill", "method")
# The paper's column, and where its note stands.
_PAPERS = {"flops_t": "paper_tflops", "gpu_memory_gb": "paper_memory_gb"}
_PAPERS |= {"cuda_time_ms": "paper_time_ms"}
_NOTES = {
    "cost_visual_rows": "Rows of the picture in the language model, as the paper prints them; a "
    "fifth of them from each crop.",
    "tflops_of_tower": "Of five crops, 23 blocks each: the 24th is never run.",
    "tflops_of_method": "Column mass in every block, P at the stop (in every block for the walk in "
    "all blocks), distances to the sink.",
    "tflops": "With the text.",
    "tflops_paper_way": "As the paper's first row adds up: 24 blocks in each tower, no text, no "
    "projector.",
    "memory_gb": "Weights and cache after the prefill, in half precision, by arithmetic.",
    "measured_memory_gb": "Weights, and the peak of a question beside them.",
    "measured_ms": "The whole question of measure=latency.",
}


def has_costs(results: Sequence[Result]) -> bool:
    """Whether some row has a record of costs in closed form."""
    return any(result.record(COST.name) is not None for result in results)


def columns(results: Sequence[Result], paper_table: str) -> tuple[TableColumn, ...]:
    """The columns of costs, each with the paper's beside it."""
    if not has_costs(results):
        return ()
    titled = (
        ("visual\nrows", FLOPS, "cost_visual_rows", ","),
        *((part, FLOPS, f"tflops_of_{part}", ".2f") for part in _PARTS),
        ("total", FLOPS, "tflops", ".2f"),
        ("the paper's\nway", FLOPS, "tflops_paper_way", ".2f"),
        ("paper", FLOPS, "paper_tflops", ".1f"),
        ("difference", FLOPS, "tflops_minus_paper", "+z.2f"),
        ("weights,\ncache", MEMORY, "memory_gb", ".2f"),
        ("measured", MEMORY, "measured_memory_gb", ".2f"),
        ("paper", MEMORY, "paper_memory_gb", ".1f"),
        ("measured", TIME, "measured_ms", ".1f"),
        ("paper", TIME, "paper_time_ms", ".0f"),
    )
    return tuple(value_column(title, group, key, spec) for title, group, key, spec in titled)


def csv_keys(results: Sequence[Result]) -> tuple[str, ...]:
    """What the CSV has beside the keys of the columns."""
    return ("cost_text_rows", "cost_stop") if has_costs(results) else ()


def notes(results: Sequence[Result]) -> dict[str, list[str]]:
    """What the columns mean and what is odd in the paper's, by key."""
    if not has_costs(results):
        return {}
    found = {key: [text] for key, text in _NOTES.items()}
    for note in footnotes(TABLE, [("", None)]):
        if note.column in _PAPERS:
            found.setdefault(_PAPERS[note.column], []).append(note.text)
    return found


def add_to(row: TableRow, result: Result, results: Sequence[Result], paper_table: str) -> None:
    """Add the values of `columns` to a row."""
    record = result.record(COST.name)
    if record is None:
        return
    row.values |= values_of(record)
    for line in rows_of_paper(TABLE):
        if line["stage"] == record["stage"]:
            row.values |= {key: float(line[column]) for column, key in _PAPERS.items()}
            row.values["tflops_minus_paper"] = (
                row.values["tflops_paper_way"] - row.values["paper_tflops"]
            )
    for note in footnotes(TABLE, [("", record["stage"])]):
        if note.methods and note.column in _PAPERS:
            row.note(note.text, _PAPERS[note.column])
    _add_measured(row, result, record)


def values_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The single numbers of a record by name."""
    macs = record["macs"]
    found = {f"tflops_of_{part}": 2 * macs[part] / TERA for part in _PARTS}
    return found | {
        "cost_visual_rows": record["visual_rows"],
        "cost_text_rows": record["text_rows"],
        "cost_stop": record["stop"],
        "tflops": 2 * sum(macs.values()) / TERA,
        "tflops_paper_way": 2 * record["macs_paper"] / TERA,
        "memory_gb": (record["weights_bytes"] + record["kv_bytes"]) / GIGA,
    }


def caption(results: Sequence[Result]) -> list[str]:
    """What the costs are of."""
    found = [one for result in results if (one := result.record(COST.name)) is not None]
    stops = dict.fromkeys(one["stop"] for one in found if one["stop"] is not None)
    return list(
        dict.fromkeys(
            f"Costs of {one['backbone']} by arithmetic: {one['text_rows']} rows of text, five "
            f"crops; those that stop do so in block {' or '.join(map(str, stops))}."
            for one in found
        )
    )


def remarks(results: Sequence[Result], paper_table: str) -> list[str]:
    """Nothing: the footnotes of the columns say it."""
    return []


def _add_measured(row: TableRow, result: Result, record: Mapping[str, Any]) -> None:
    """Memory and time, where the row was timed too, on a model of this size."""
    timed = result.record(LATENCY.name)
    if timed is None:
        reason = result.reason or (
            "nothing was measured; measure=latency with a checkpoint of LLaVA-NeXT does"
        )
        row.note(f"Empty: {reason.rstrip('.')}.", "measured_memory_gb", "measured_ms")
        return
    weights = timed["weights_mb"] * MIB
    if abs(weights / record["weights_bytes"] - 1) > SAME_SIZE:
        text = f"Empty: what was timed is no {record['backbone']} in half precision."
        row.note(text, "measured_memory_gb", "measured_ms")
        return
    row.values["measured_ms"] = timed["times_ms"]["total"]["median"]
    if timed["peak_memory_mb"] is None:
        row.note(f"Empty: {timed['missing']['peak_memory_mb']}.", "measured_memory_gb")
        return
    row.values["measured_memory_gb"] = (weights + timed["peak_memory_mb"] * MIB) / GIGA
