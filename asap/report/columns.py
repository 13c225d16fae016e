"""The columns of the result table: the paper's first and in its order, then ours, then the paper's
own numbers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asap.report.render import Column

ROW, FORM, PAIRED, COST = "", "in the paper's form", "against dense, paired", "cost per image"
PUBLISHED, SPEED, TOKENS = "published in the paper", "images per second", "tokens and sinks"

Values = Mapping[str, Any]
Text = Callable[[Values], str | None]

# Machine-readable only: timm's names where timm has one.
EXTRA_KEYS = (
    *("backbone", "extension", "dense", "key", "data", "precision", "device", "comparable"),
    *("top1_lo", "top1_hi", "top1_err", "top5", "top5_err", "mcnemar_b", "mcnemar_c"),
    *("gmacs_sd", "gmacs_no_attention", "missed_pct"),
    *("sink_on_object_pct", "object_share_pct", "object_recall_pct"),
    *("infer_batch_size", "device_name", "throughput_precision"),
    *("paper_top1", "paper_top1_delta", "paper_flops_pct", "flops_pct_rounded"),
    *("paper_throughput_pct", "top1_minus_paper"),
)


def number(key: str, spec: str) -> Text:
    """Text of one value; z keeps a rounded -0.001 from reading -0.00."""
    return lambda values: None if values.get(key) is None else format(values[key], spec)


def columns(gmacs: float) -> tuple[Column, ...]:
    """All columns; `gmacs`, the largest total in the table, sets the decimals of the MACs."""
    return (*_identity(), *_form(), *_ours(_decimals(gmacs)), *_published(), *_speed(), *_tokens())


def csv_keys(shown: Sequence[Column]) -> tuple[str, ...]:
    """Every key of the columns and the extra ones: the same header whatever a table leaves out."""
    return tuple(dict.fromkeys([*(key for c in shown for key in c.keys), *EXTRA_KEYS]))


def _identity() -> list[Column]:
    return [
        Column("Model", ROW, ("model",), number("model", ""), left=True),
        Column("Method", ROW, ("method",), number("method", ""), left=True),
    ]


def _form() -> list[Column]:
    return [
        Column("Acc (%)\nbase", FORM, ("top1_base",), number("top1_base", ".2f")),
        Column("Acc (%)\nreduced", FORM, ("top1",), _reduced),
        Column("Δ", FORM, ("top1_delta",), number("top1_delta", "+z.2f")),
        Column("FLOPs\n(%)", FORM, ("flops_pct",), number("flops_pct", "+z.2f")),
        Column("Throughput\n(%)", FORM, ("throughput_pct",), number("throughput_pct", "+z.2f")),
    ]


def _ours(decimals: int) -> list[Column]:
    interval = ("top1_delta_lo", "top1_delta_hi")
    macs = ("gmacs_backbone", "gmacs_method", "infer_gmacs")
    return [
        Column("Δ, 95 %\ninterval", PAIRED, interval, _interval(*interval, "+z.2f")),
        Column("McNemar\np", PAIRED, ("mcnemar_p",), _p_value),
        Column("n", PAIRED, ("n", "n_failed"), _count),
        Column("GMACs\nbackbone + method = total", COST, macs, _sum(*macs, f".{decimals}f")),
        Column("% of\ndense", COST, ("macs_pct_of_dense",), number("macs_pct_of_dense", ".3f")),
    ]


def _published() -> list[Column]:
    return [
        Column("paper\nacc (%)", PUBLISHED, ("paper_top1",), number("paper_top1", ".2f")),
        Column("paper\nΔ", PUBLISHED, ("paper_top1_delta",), number("paper_top1_delta", "+z.2f")),
        Column(
            "paper\nFLOPs (%)", PUBLISHED, ("paper_flops_pct",), number("paper_flops_pct", "+z.2f")
        ),
        Column(
            "ours, its\nrounding",
            PUBLISHED,
            ("flops_pct_rounded",),
            number("flops_pct_rounded", "+z.2f"),
        ),
        Column(
            "paper\nthroughput (%)",
            PUBLISHED,
            ("paper_throughput_pct",),
            number("paper_throughput_pct", "+z.2f"),
        ),
        Column(
            "acc, ours\n- paper",
            PUBLISHED,
            ("top1_minus_paper",),
            number("top1_minus_paper", "+z.2f"),
        ),
    ]


def _speed() -> list[Column]:
    fused = ("ratio_fused", "ratio_fused_lo", "ratio_fused_hi")
    eager = ("ratio_eager", "ratio_eager_lo", "ratio_eager_hi")
    return [
        Column("img/s", SPEED, ("infer_samples_per_sec",), _rate("infer_samples_per_sec")),
        Column("fused\ndense", SPEED, ("dense_fused_per_sec",), _rate("dense_fused_per_sec")),
        Column("eager\ndense", SPEED, ("dense_eager_per_sec",), _rate("dense_eager_per_sec")),
        Column("ratio to\nfused dense", SPEED, fused, _ratio(*fused)),
        Column("ratio to\neager dense", SPEED, eager, _ratio(*eager)),
    ]


def _tokens() -> list[Column]:
    return [
        Column("final\ntokens", TOKENS, ("final_tokens",), number("final_tokens", ".1f")),
        Column("missed\nimages (%)", TOKENS, ("missed_pct",), number("missed_pct", ".1f")),
        Column(
            "sink on\nobject (%)",
            TOKENS,
            ("sink_on_object_pct",),
            number("sink_on_object_pct", ".1f"),
        ),
        Column("chance\n(%)", TOKENS, ("object_share_pct",), number("object_share_pct", ".1f")),
        Column(
            "object\nrecall (%)", TOKENS, ("object_recall_pct",), number("object_recall_pct", ".1f")
        ),
    ]


def _decimals(gmacs: float) -> int:
    """Three decimals for models of a GMAC and more, four significant digits for smaller ones."""
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


def _rate(key: str) -> Text:
    return lambda v: None if v.get(key) is None else f"{v[key]:,.{0 if v[key] >= 100 else 1}f}"


def _ratio(key: str, low: str, high: str) -> Text:
    return lambda v: None if v.get(key) is None else f"{v[key]:.3f} [{v[low]:.3f}, {v[high]:.3f}]"
