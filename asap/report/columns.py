"""The columns of the result table: first those of the paper's tables in their order, then further
ones of ours, then the paper's own numbers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asap.report.beside import BESIDE, PUBLISHED, Beside
from asap.report.table import TableColumn

ROW, FORM, PAIRED, COST = "", "in the paper's form", "against dense, paired", "cost per image"
SPEED, TOKENS, NAMED = "images per second", "tokens and sinks", "in the paper"
FURTHER = "of the timed images"

Values = Mapping[str, Any]
Text = Callable[[Values], str | None]

# Machine-readable only: timm's names where timm has one.
EXTRA_KEYS = (
    "paper_row",
    *("backbone", "extension", "dense", "key", "data", "precision", "device", "comparable"),
    *("top1_lo", "top1_hi", "top1_err", "top5", "top5_err", "mcnemar_b", "mcnemar_c", "n_paired"),
    *("gmacs_sd", "gmacs_no_attention", "missed_pct"),
    *("sink_on_object_pct", "object_share_pct", "object_recall_pct"),
    *("infer_batch_size", "device_name", "throughput_precision", "files_left_out"),
    *("clock", "cpu_share", "wall_eager", "wall_eager_lo", "wall_eager_hi"),
    *("dense_best_per_sec", "dense_compiled_per_sec"),
    *("timed_gmacs", "timed_gmacs_dense"),
    *("latency_eager_p50_ms", "latency_fused_p95_ms", "latency_best_p95_ms"),
    *("peak_memory_fused_mb", "peak_memory_best_mb"),
    *("joules_per_image_fused", "joules_per_image_best"),
    *("paper_top1", "paper_top1_delta", "paper_flops_pct", "flops_pct_rounded"),
    *("paper_throughput_pct", "top1_minus_paper", "top1_delta_minus_paper"),
    *("flops_pct_minus_paper", "throughput_pct_minus_paper", "paper_gmacs", "gmacs_minus_paper"),
    *("paper_samples_per_sec", "samples_per_sec_minus_paper"),
)


def number(key: str, spec: str) -> Text:
    """Text of one value. The z of a format turns a rounded -0.00 into 0.00."""
    return lambda values: None if values.get(key) is None else format(values[key], spec)


def columns(gmacs: float, paper_table: str | None = None) -> tuple[TableColumn, ...]:
    """All columns; `gmacs`, the largest total in the table, sets the decimals of the MACs.

    With a table of the paper: its columns too, each with our value, the paper's and their
    difference. Without: the name that the paper gives each row's method.
    """
    beside = [column for b in BESIDE.get(paper_table or "", ()) for column in published(b)]
    ours = (*_form(), *_ours(decimals(gmacs)), *(() if beside else (_named(),)))
    return (*_identity(), *ours, *_speed(), *_further(), *_tokens(), *beside)


def csv_keys(shown: Sequence[TableColumn]) -> tuple[str, ...]:
    """The CSV's columns: the keys of all columns but the paper's, then `EXTRA_KEYS`."""
    shown = [column for column in shown if column.group not in (*PUBLISHED, NAMED)]
    return tuple(dict.fromkeys([*(key for c in shown for key in c.keys), *EXTRA_KEYS]))


def _identity() -> list[TableColumn]:
    return [
        TableColumn("Model", ROW, ("model",), number("model", ""), left=True),
        TableColumn("Method", ROW, ("method",), number("method", ""), left=True),
    ]


def _named() -> TableColumn:
    return TableColumn(
        "row of\nthe paper", NAMED, ("paper_row",), number("paper_row", ""), left=True
    )


def _form() -> list[TableColumn]:
    return [
        TableColumn("Acc (%)\nbase", FORM, ("top1_base",), number("top1_base", ".2f")),
        TableColumn("Acc (%)\nreduced", FORM, ("top1",), _reduced),
        TableColumn("Δ", FORM, ("top1_delta",), number("top1_delta", "+z.2f")),
        TableColumn("FLOPs\n(%)", FORM, ("flops_pct",), number("flops_pct", "+z.2f")),
        TableColumn(
            "Throughput\n(%)", FORM, ("throughput_pct",), number("throughput_pct", "+z.2f")
        ),
    ]


def _ours(decimals: int) -> list[TableColumn]:
    interval = ("top1_delta_lo", "top1_delta_hi")
    macs = ("gmacs_backbone", "gmacs_method", "infer_gmacs")
    return [
        TableColumn("Δ, 95 %\ninterval", PAIRED, interval, _interval(*interval, "+z.2f")),
        TableColumn("McNemar\np", PAIRED, ("mcnemar_p",), _p_value),
        TableColumn("n", PAIRED, ("n", "n_failed"), _count),
        TableColumn("not\nfinite", PAIRED, ("n_nonfinite",), number("n_nonfinite", "")),
        TableColumn("GMACs\nbackbone + method = total", COST, macs, _sum(*macs, f".{decimals}f")),
        TableColumn(
            "% of\ndense", COST, ("macs_pct_of_dense",), number("macs_pct_of_dense", ".3f")
        ),
    ]


def published(b: Beside) -> list[TableColumn]:
    """Ours, the paper's and the difference; for FLOPs also ours in the paper's rounding."""
    signed = f"+z{b.spec.removeprefix('+z')}"
    found = [
        TableColumn("ours", b.title, (b.ours,), _of(b, number(b.ours, b.spec))),
        TableColumn("paper", b.title, (b.paper,), _of(b, number(b.paper, b.spec))),
        TableColumn("difference", b.title, (b.minus,), _of(b, number(b.minus, signed))),
    ]
    if b.column == "flops_pct":
        key = "flops_pct_rounded"
        found.insert(1, TableColumn("ours, its\nrounding", b.title, (key,), number(key, b.spec)))
    return found


def _of(b: Beside, text: Text) -> Text:
    """`text` for the rows that the column applies to, None for others."""
    return lambda values: None if b.dense not in (None, bool(values["dense"])) else text(values)


def _speed() -> list[TableColumn]:
    fused = ("ratio_fused", "ratio_fused_lo", "ratio_fused_hi")
    eager = ("ratio_eager", "ratio_eager_lo", "ratio_eager_hi")
    best = ("ratio_best", "ratio_best_lo", "ratio_best_hi")
    compiled = ("ratio_compiled", "ratio_compiled_lo", "ratio_compiled_hi")
    wall = ("wall_fused", "wall_fused_lo", "wall_fused_hi")
    return [
        TableColumn("img/s", SPEED, ("infer_samples_per_sec",), rate("infer_samples_per_sec")),
        TableColumn("fused\ndense", SPEED, ("dense_fused_per_sec",), rate("dense_fused_per_sec")),
        TableColumn("eager\ndense", SPEED, ("dense_eager_per_sec",), rate("dense_eager_per_sec")),
        TableColumn("ratio to\nfused dense", SPEED, fused, _ratio(*fused)),
        TableColumn("ratio to\nbest dense", SPEED, best, _ratio(*best)),
        TableColumn("ratio to\ncompiled dense", SPEED, compiled, _ratio(*compiled)),
        TableColumn("ratio to\neager dense", SPEED, eager, _ratio(*eager)),
        TableColumn("to fused,\nby the wall", SPEED, wall, _ratio(*wall)),
    ]


def _further() -> list[TableColumn]:
    """MACs of the timed images, and what was measured beside their throughput."""
    latency = ("latency_p50_ms", "latency_p95_ms")
    dense = ("latency_fused_p50_ms", "latency_best_p50_ms")
    return [
        TableColumn(
            "MACs, %\nof dense", FURTHER, ("timed_macs_pct",), number("timed_macs_pct", ".1f")
        ),
        TableColumn(
            "tokens\nin a block", FURTHER, ("timed_tokens",), number("timed_tokens", ".1f")
        ),
        TableColumn("latency, ms\np50 / p95", FURTHER, latency, _pair(*latency)),
        TableColumn("of fused / best\ndense, p50", FURTHER, dense, _pair(*dense)),
        TableColumn("run by", FURTHER, ("engine_path",), number("engine_path", "")),
        TableColumn("memory\n(MiB)", FURTHER, ("peak_memory_mb",), rate("peak_memory_mb")),
        TableColumn(
            "energy\n(J/image)", FURTHER, ("joules_per_image",), number("joules_per_image", ".4g")
        ),
    ]


def _tokens() -> list[TableColumn]:
    return [
        TableColumn("final\ntokens", TOKENS, ("final_tokens",), number("final_tokens", ".1f")),
        TableColumn("missed\nimages (%)", TOKENS, ("missed_pct",), number("missed_pct", ".1f")),
        TableColumn(
            "sink on\nobject (%)",
            TOKENS,
            ("sink_on_object_pct",),
            number("sink_on_object_pct", ".1f"),
        ),
        TableColumn(
            "chance\n(%)", TOKENS, ("object_share_pct",), number("object_share_pct", ".1f")
        ),
        TableColumn(
            "object\nrecall (%)", TOKENS, ("object_recall_pct",), number("object_recall_pct", ".1f")
        ),
    ]


def decimals(gmacs: float) -> int:
    """Decimals for MACs: three from 1 GMAC on, four significant digits below."""
    return 3 if gmacs >= 1 or gmacs <= 0 else 3 - math.floor(math.log10(gmacs))


def _reduced(values: Values) -> str | None:
    return None if values.get("dense") else number("top1", ".2f")(values)


def _count(values: Values) -> str | None:
    if values.get("n") is None:
        return None
    return (
        f"{values['n']} ({values['n_failed']} failed)" if values["n_failed"] else f"{values['n']}"
    )


def _p_value(values: Values) -> str | None:
    p = values.get("mcnemar_p")
    return None if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _interval(low: str, high: str, spec: str) -> Text:
    return lambda v: None if v.get(low) is None else f"[{v[low]:{spec}}, {v[high]:{spec}}]"


def _sum(first: str, second: str, total: str, spec: str) -> Text:
    return lambda v: (
        None
        if v.get(total) is None
        else f"{v[first]:{spec}} + {v[second]:{spec}} = {v[total]:{spec}}"
    )


def _pair(first: str, second: str) -> Text:
    """Two times in milliseconds; the second may be missing."""

    def text(values: Values) -> str | None:
        if values.get(first) is None:
            return None
        found = [values[key] for key in (first, second) if values.get(key) is not None]
        return " / ".join(f"{value:.{1 if value >= 10 else 2}f}" for value in found)

    return text


def rate(key: str) -> Text:
    return lambda v: None if v.get(key) is None else f"{v[key]:,.{0 if v[key] >= 100 else 1}f}"


def _ratio(key: str, low: str, high: str) -> Text:
    return lambda v: None if v.get(key) is None else f"{v[key]:.3f} [{v[low]:.3f}, {v[high]:.3f}]"
