"""What a table says of the time of a question: its parts, against the full model, and beside the
paper's where the device is the paper's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from asap.errors import counted
from asap.records.latency_record import LATENCY, SPANS
from asap.records.schema import CLOCKS
from asap.report.columns import Text, Values, ratio_column, value_column
from asap.report.footnotes import footnotes
from asap.report.latency_checks import MACS_NOTE, checks, off_its_macs
from asap.report.paper import paper_table as rows_of_paper
from asap.report.result import Result
from asap.report.table import TableColumn, TableRow

TIMES, AGAINST = "ms per question, median (quartiles)", "x full, with 95 % interval"
SIZES, PAPER = "rows, cost and memory of the timed questions", "beside the paper, ms"
TABLES = ("llava_latency", "llava_next_latency")
PAPERS_DEVICE = "A100 with 80 GB"  # most likely in half precision
_TITLES = {
    "tower": "tower",
    "projector": "pro-\njector",
    "prefill": "prefill",
    "first_token": "first\ntoken",
    "decode": "decoded\ntoken",
    "total": "total",
}
_PAPERS = {"inference_ms": "total", "prefill_ms": "first_token"}  # the paper's column: our span
_NOTES = {
    "tower_ms": "The vision tower with the reduction, and the trace of it.",
    "prefill_ms": "The language model up to the first logits, its pruner included.",
    "first_token_ms": "Tower, projector and prefill as one span.",
    "decode_ms": "One more token, by the cached keys and values.",
    "total_ms": "Of an answer of one token and its end: two passes of the language model, whatever "
    "the model says.",
    "total_over_full": "Against the full model, with fused attention unless the run asks for "
    "engine.attention=eager, both timed in turn on every question.",
    "latency_peak_mb": "Peak of a question, beside the weights and its picture.",
    "paper_first_token_ms": "The paper's prefill time. At equal rows ASAP's is the shorter there, "
    "which only the tower can explain, so it is taken to hold the tower.",
}


def has_latency(results: Sequence[Result]) -> bool:
    """Whether some row has a record of the time of a question."""
    return any(_record(result) is not None for result in results)


def columns(results: Sequence[Result], paper_table: str) -> tuple[TableColumn, ...]:
    """The columns of times; those of the paper only if all rows were timed on its device."""
    if not has_latency(results):
        return ()
    times = [TableColumn(title, TIMES, *_time(span)) for span, title in _TITLES.items()]
    ratios = [
        ratio_column(_TITLES[span], AGAINST, f"{span}_over_full")
        for span in ("tower", "prefill", "first_token", "total")
    ]
    sizes = [
        value_column(title, SIZES, key, spec)
        for title, key, spec in (
            ("visual\nrows", "timed_visual_rows", ".1f"),
            ("in a\nlayer", "timed_layer_rows", ".1f"),
            ("GMACs of\nthe tower", "timed_gmacs_tower", ".4g"),
            ("prefill", "timed_gmacs_prefill", ".4g"),
            ("methods", "timed_gmacs_methods", ".3g"),
            ("KV cache\n(MiB)", "timed_kv_mib", ".4g"),
            ("memory\n(MiB)", "latency_peak_mb", ",.0f"),
        )
    ]
    paper = _of_paper(paper_table) if _beside_paper(results, paper_table) else []
    return (*times, *ratios, *sizes, *paper)


def csv_keys(results: Sequence[Result]) -> tuple[str, ...]:
    """What the CSV has beside the keys of the columns."""
    return ("weights_mb", "latency_questions", "latency_clock") if has_latency(results) else ()


def notes(results: Sequence[Result]) -> dict[str, list[str]]:
    """What the columns mean, by key."""
    return {key: [text] for key, text in _NOTES.items()} if has_latency(results) else {}


def add_to(row: TableRow, result: Result, results: Sequence[Result], paper_table: str) -> None:
    """Add the values of `columns` to the row of a result, one of `results`."""
    record = _record(result)
    if record is None:
        if has_latency(results):
            reason = (result.reason or "it was not measured").rstrip(".")
            row.note(f"No record of times: {reason}.", *(f"{span}_ms" for span in SPANS))
        return
    row.values |= values_of(record)
    if record["backbone"] != result.backbone:
        row.note(f"Timed was {record['backbone']}, not {result.backbone}.", "method")
    dense = result.is_dense
    for span in ("tower", "prefill", "first_token", "total"):
        if dense:
            for end in ("", "_lo", "_hi"):
                row.values.pop(f"{span}_over_full{end}", None)
        elif record["ratios"].get(span) is None:
            row.note(f"No ratio: {record['refused']}.", f"{span}_over_full")
        elif off_its_macs(record, span):
            row.note(MACS_NOTE, f"{span}_over_full")
    if (why := record["missing"].get("peak_memory_mb")) is not None:
        row.note(f"Empty: {why}.", "latency_peak_mb")
    _add_paper(row, result, paper_table)


def values_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The single numbers of a record by name."""
    found: dict[str, Any] = {}
    for span, times in record["times_ms"].items():
        found |= {f"{span}_ms": times["median"]}
        found |= {f"{span}_ms_{quartile}": times[quartile] for quartile in ("q1", "q3")}
    for span, ratio in record["ratios"].items():
        if ratio is not None:
            found |= {f"{span}_over_full": ratio["median"]}
            found |= {f"{span}_over_full_{end}": ratio[end] for end in ("lo", "hi")}
    gmacs, layers = record["gmacs"], record["layer_rows"]
    found |= {
        "timed_visual_rows": record["visual_rows"],
        "timed_layer_rows": sum(layers) / len(layers) - record["prompt_rows"],
        "timed_gmacs_tower": gmacs["tower"],
        "timed_gmacs_prefill": gmacs["prefill"],
        "timed_gmacs_methods": gmacs["vision_method"] + gmacs["language_method"],
        "timed_kv_mib": record["kv_mib"],
        "latency_peak_mb": record["peak_memory_mb"],
        "weights_mb": record["weights_mb"],
        "latency_questions": record["n_questions"],
        "latency_clock": record["clock"],
    }
    return found


def caption(results: Sequence[Result]) -> list[str]:
    """How the times were taken, and what is not among them."""
    timed = [(one, r.backbone) for r in results if (one := _record(r)) is not None]
    return list(dict.fromkeys(_setting(one, shown) for one, shown in timed))


def remarks(results: Sequence[Result], paper_table: str) -> list[str]:
    """Whether the times agree with one another, and why the paper's are not beside them."""
    found = checks([(r.label, one) for r in results if (one := _record(r)) is not None])
    if paper_table in TABLES and has_latency(results) and not _beside_paper(results, paper_table):
        names = dict.fromkeys(one["device_name"] for r in results if (one := _record(r)))
        found.append(
            f"The paper's times are of an {PAPERS_DEVICE}; these are of {' and '.join(names)}, so "
            "they are not set beside one another."
        )
    return found


def _record(result: Result) -> Mapping[str, Any] | None:
    return result.record(LATENCY.name)


def _setting(record: Mapping[str, Any], shown: str | None) -> str:
    """shown: the model that the table names; costs by arithmetic are of a larger one."""
    timed = "" if record["backbone"] == shown else f" of {record['backbone']}"
    threads = "one thread" if record["threads"] == 1 else f"{record['threads']} threads"
    clock = CLOCKS[record["clock"]]
    clock += "" if record["clock"] == "cuda events" else f" of {threads}"
    before = record["preparation_ms"]
    return (
        f"Times{timed} on {record['device_name']}: {record['precision']}, {clock}, one question at "
        f"a time, {counted(record['n_questions'], 'question')} about "
        f"{counted(record['n_pictures'], 'picture')} after "
        f"{record['warmup']} that do not count; tower run by {record['path']}. Not in them: "
        f"reading a picture ({before['picture']['median']:.3g} ms) and tokenising a prompt "
        f"({before['prompt']['median']:.3g} ms)."
    )


def _time(span: str) -> tuple[tuple[str, ...], Text]:
    keys = (f"{span}_ms", f"{span}_ms_q1", f"{span}_ms_q3")

    def text(values: Values) -> str | None:
        if values.get(keys[0]) is None:
            return None
        digits = 1 if values[keys[0]] >= 10 else 2
        middle, low, high = (f"{values[key]:.{digits}f}" for key in keys)
        return f"{middle} ({low}–{high})"

    return keys, text


# ---- the paper's


def _beside_paper(results: Sequence[Result], paper_table: str) -> bool:
    records = [one for result in results if (one := _record(result)) is not None]
    return paper_table in TABLES and all(_is_the_papers(one["device_name"]) for one in records)


def _is_the_papers(device: str) -> bool:
    return "A100" in device and "80GB" in device.replace(" ", "")


def _of_paper(paper_table: str) -> list[TableColumn]:
    found = []
    for column, span in _PAPERS.items():
        name = column.removesuffix("_ms")
        keys = (f"{span}_ms", f"paper_{span}_ms", f"{span}_ms_minus_paper")
        specs = (".1f", ".0f", "+z.1f")
        titles = ("ours", "paper", "difference")
        for title, key, spec in zip(titles, keys, specs, strict=True):
            found.append(value_column(f"{name},\n{title}", PAPER, key, spec))
    return found


def _add_paper(row: TableRow, result: Result, paper_table: str) -> None:
    """The paper's times of the row that the result names; full is its first row."""
    printed = rows_of_paper(paper_table) if paper_table in TABLES else ()
    wanted = printed[0]["method"] if printed and result.is_dense else result.paper_method
    record = _record(result)
    if record is None or not _is_the_papers(record["device_name"]):
        return
    for line in printed:
        if line["method"] != wanted:
            continue
        for column, span in _PAPERS.items():
            row.values[f"paper_{span}_ms"] = float(line[column])
            row.values[f"{span}_ms_minus_paper"] = row.values[f"{span}_ms"] - float(line[column])
        for note in footnotes(paper_table, [("", wanted)]):
            row.note(note.text, "paper_total_ms")
