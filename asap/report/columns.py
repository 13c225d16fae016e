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


def value_column(title: str, group: str, key: str, spec: str, left: bool = False) -> TableColumn:
    """A column of one value."""
    return TableColumn(title, group, (key,), number(key, spec), left)


def rate_column(title: str, group: str, key: str) -> TableColumn:
    """A column of one value, with a decimal if it is below 100."""
    return TableColumn(
        title, group, (key,),
        lambda v: None if v.get(key) is None else f"{v[key]:,.{0 if v[key] >= 100 else 1}f}",
    )  # fmt: skip


def ratio_column(title: str, group: str, key: str) -> TableColumn:
    """A column of a ratio with its interval."""
    low, high = f"{key}_lo", f"{key}_hi"
    return TableColumn(
        title, group, (key, low, high),
        lambda v: None if v.get(key) is None else f"{v[key]:.3f} [{v[low]:.3f}, {v[high]:.3f}]",
    )  # fmt: skip


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
        value_column("Model", ROW, "model", "", left=True),
        value_column("Method", ROW, "method", "", left=True),
    ]


def _named() -> TableColumn:
    return value_column("row of\nthe paper", NAMED, "paper_row", "", left=True)


def _form() -> list[TableColumn]:
    return [
        value_column("Acc (%)\nbase", FORM, "top1_base", ".2f"),
        TableColumn("Acc (%)\nreduced", FORM, ("top1",), _reduced),
        value_column("Δ", FORM, "top1_delta", "+z.2f"),
        value_column("FLOPs\n(%)", FORM, "flops_pct", "+z.2f"),
        value_column("Throughput\n(%)", FORM, "throughput_pct", "+z.2f"),
    ]


def _ours(decimals: int) -> list[TableColumn]:
    interval = ("top1_delta_lo", "top1_delta_hi")
    macs = ("gmacs_backbone", "gmacs_method", "infer_gmacs")
    return [
        TableColumn("Δ, 95 %\ninterval", PAIRED, interval, _interval(*interval, "+z.2f")),
        TableColumn("McNemar\np", PAIRED, ("mcnemar_p",), _p_value),
        TableColumn("n", PAIRED, ("n", "n_failed"), _count),
        value_column("not\nfinite", PAIRED, "n_nonfinite", ""),
        TableColumn("GMACs\nbackbone + method = total", COST, macs, _sum(*macs, f".{decimals}f")),
        value_column("% of\ndense", COST, "macs_pct_of_dense", ".3f"),
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
        found.insert(1, value_column("ours, its\nrounding", b.title, key, b.spec))
    return found


def _of(b: Beside, text: Text) -> Text:
    """`text` for the rows that the column applies to, None for others."""
    return lambda values: None if b.dense not in (None, bool(values["dense"])) else text(values)


def _speed() -> list[TableColumn]:
    return [
        rate_column("img/s", SPEED, "infer_samples_per_sec"),
        rate_column("fused\ndense", SPEED, "dense_fused_per_sec"),
        rate_column("eager\ndense", SPEED, "dense_eager_per_sec"),
        ratio_column("ratio to\nfused dense", SPEED, "ratio_fused"),
        ratio_column("ratio to\nbest dense", SPEED, "ratio_best"),
        ratio_column("ratio to\ncompiled dense", SPEED, "ratio_compiled"),
        ratio_column("ratio to\neager dense", SPEED, "ratio_eager"),
        ratio_column("to fused,\nby the wall", SPEED, "wall_fused"),
    ]


def _further() -> list[TableColumn]:
    """MACs of the timed images, and what was measured beside their throughput."""
    latency = ("latency_p50_ms", "latency_p95_ms")
    dense = ("latency_fused_p50_ms", "latency_best_p50_ms")
    return [
        value_column("MACs, %\nof dense", FURTHER, "timed_macs_pct", ".1f"),
        value_column("tokens\nin a block", FURTHER, "timed_tokens", ".1f"),
        TableColumn("latency, ms\np50 / p95", FURTHER, latency, _pair(*latency)),
        TableColumn("of fused / best\ndense, p50", FURTHER, dense, _pair(*dense)),
        value_column("run by", FURTHER, "engine_path", ""),
        rate_column("memory\n(MiB)", FURTHER, "peak_memory_mb"),
        value_column("energy\n(J/image)", FURTHER, "joules_per_image", ".4g"),
    ]


def _tokens() -> list[TableColumn]:
    return [
        value_column("final\ntokens", TOKENS, "final_tokens", ".1f"),
        value_column("missed\nimages (%)", TOKENS, "missed_pct", ".1f"),
        value_column("sink on\nobject (%)", TOKENS, "sink_on_object_pct", ".1f"),
        value_column("chance\n(%)", TOKENS, "object_share_pct", ".1f"),
        value_column("object\nrecall (%)", TOKENS, "object_recall_pct", ".1f"),
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


def with_interval(key: str, low: str, high: str) -> Text:
    """A difference with its interval, if it has one."""

    def text(values: Values) -> str | None:
        if values.get(key) is None:
            return None
        said = f"{values[key]:+z.2f}"
        if values.get(low) is None:
            return said
        return f"{said} [{values[low]:+z.2f}, {values[high]:+z.2f}]"

    return text


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
