"""The paper's numbers (arXiv 2605.22372).

The tables are read from `results/paper/*.csv`, transcribed as printed. "FLOPs" there are
multiply-accumulates.
"""

import csv
import functools
import logging
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from asap.spec.run_spec import LLAVA

log = logging.getLogger(__name__)

_NUMBERS = ("acc_base", "acc_reduced", "acc_delta", "flops_pct", "throughput_pct")
# Columns of names in the tables that ours are set beside, and the overhead table's models.
_NAMES = ("model", "anchor", "alpha", "method", "tokens")
# Tables of answers to questions, by LLaVA. A row's name there may need its tokens: "ToMe, 64".
ANSWERS = ("llava15", "llava_next", "composition", "anchor_llava_next")
LLAVA15, NEXT = "LLaVA-1.5", "LLaVA-NeXT"
TABLES_OF = {  # of whose answers or times a table is
    **dict.fromkeys(("llava15", "composition", "llava_latency"), LLAVA15),
    **dict.fromkeys(("llava_next", "anchor_llava_next", "llava_next_latency"), NEXT),
    "modular_cost": NEXT,
}
_CLIP = ("vit_large_patch14_clip_quickgelu_336.openai", "vit_large_patch14_clip_336.openai")
_OVERHEAD = {
    "DeiT-Base": "DeiT-B",
    **dict.fromkeys(_CLIP, "ClipViT-L"),
    "ClipViT-Large": "ClipViT-L",
}

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE.parent / "results" / "paper", _PACKAGE / "_paper")  # checkout, wheel

MODELS = {
    "deit_base_patch16_224.fb_in1k": "DeiT-Base",
    "deit_small_patch16_224.fb_in1k": "DeiT-Small",
    "deit_tiny_patch16_224.fb_in1k": "DeiT-Tiny",
    "vit_small_patch16_224.augreg_in21k_ft_in1k": "ViT-AugReg",
    "lvvit_s": "LV-ViT-S",
}

# The paper's video backbone; it does not say at which resolution.
_VIDEO = "ClipViT-Large"
MODELS |= {
    f"vit_large_patch14_clip_{gelu}{size}.openai": _VIDEO
    for gelu in ("quickgelu_", "")
    for size in (224, 336)
}

# Printed GMACs of the dense model, and the decimals to which the paper rounds GMACs before it
# divides them for its FLOPs column.
ROUNDING = {
    "DeiT-Base": (17.6, 1),
    "DeiT-Small": (4.6, 1),
    "DeiT-Tiny": (1.3, 1),
    "ViT-AugReg": (4.55, 2),
    "LV-ViT-S": (6.6, 1),
}

# Where the paper has one ASAP row only, it is called "Ours"; the text presents pooling as the
# method.
_ALIASES = {"Ours (pool.)": "Ours"}


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's image or video table; accuracies and percentages in %, None where it
    is empty.
    """

    model: str
    method: str
    acc_base: float | None
    acc_reduced: float | None
    acc_delta: float | None
    flops_pct: float | None
    throughput_pct: float | None


@functools.cache
def paper_table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of `results/paper/<name>.csv` as printed (strings). Without the file: a warning, and no
    rows.
    """
    paths = (folder / f"{name}.csv" for folder in _FOLDERS)
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        log.warning("the paper's table %s is not installed: its columns stay empty", name)
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def paper_model(backbone: str) -> str | None:
    """The paper's name of a backbone (a paper's name maps to itself), None if the paper has no such
    model.
    """
    return backbone if backbone in (*ROUNDING, _VIDEO) else MODELS.get(backbone)


def paper_row(model: str, method: str | None) -> PaperRow | None:
    """The paper's row, `model` being its name of the model or ours; None if there is none."""
    name = paper_model(model) or model
    for wanted in (method, _ALIASES.get(method or "")):
        for table in ("image_classification", "kinetics"):
            for row in paper_table(table):
                if wanted is not None and (row["model"], row["method"]) == (name, wanted):
                    return _parse(row)
    anchors = (row for row in paper_table("anchor_image") if _is_anchor(row, name, method))
    return next(map(_anchor, anchors), None)


def published(
    table: str, backbone: str, method: str | None, dense: bool
) -> dict[str, float | None] | None:
    """The printed numbers of one row by column of results/paper/<table>.csv; None without one.

    `method` is the row's name there; the dense row of a main table has the base accuracy.
    """
    if table in ANSWERS:
        return {**full_row(table)} or None if dense else _answered(table, method)
    model = paper_model(backbone) or backbone
    if table == "accumulation_overhead" and model == _VIDEO:
        model = backbone  # the paper's is the one of 336 pixels
    if table in ("image_classification", "kinetics"):
        if dense:
            base = paper_base(model)
            return None if base is None else {"acc_base": base}
        row = paper_row(model, method)
        return None if row is None else {k: getattr(row, k) for k in _NUMBERS}
    rows = [row for row in paper_table(table) if _is_row(table, row, model, method)]
    if table == "accumulation_overhead" and not rows:
        rows = _below(table, _OVERHEAD.get(model), method)
    return {**_numbers(rows[0])} if rows else None


def in_table(table: str, backbone: str) -> bool:
    """Whether one of the paper's tables has this backbone; of LLaVA any checkpoint but the bundled
    one, as its numbers must show which it is.
    """
    if table in ANSWERS:
        return backbone.startswith(f"{LLAVA}:")
    model = paper_model(backbone)
    if table == "accumulation_overhead":
        return model in _OVERHEAD or backbone.startswith("vit_large_patch14_clip")
    if table == "alpha_sweep":
        return model == "DeiT-Base"
    return model is not None and any(row["model"] == model for row in paper_table(table))


def full_row(table: str) -> dict[str, float]:
    """The numbers of the unreduced LLaVA by column. Of a table without such a row those of the
    table of its model; empty if there are none.
    """
    for name in (table, "llava_next" if "llava_next" in table else "llava15"):
        for row in paper_table(name):
            if "(Full)" in row.get("method", ""):
                return _numbers(row)
    return {}


def _answered(table: str, method: str | None) -> dict[str, float | None] | None:
    """The row of a table of answers; None also where the name fits several."""
    names = [(row.get("method") or row["anchor"], row.get("tokens")) for row in paper_table(table)]
    fitting = [i for i, (name, n) in enumerate(names) if method in (name, f"{name}, {n}")]
    return {**_numbers(paper_table(table)[fitting[0]])} if len(fitting) == 1 else None


def _numbers(row: dict[str, str]) -> dict[str, float]:
    return {k: float(v) for k, v in row.items() if k not in _NAMES and v}


def _is_row(table: str, row: dict[str, str], model: str, method: str | None) -> bool:
    if table == "alpha_sweep":
        return model == "DeiT-Base" and row["alpha"] == method
    if table == "anchor_image":
        return _is_anchor(row, model, method)
    return row["model"] == method and method == _OVERHEAD.get(model)


def _below(table: str, above: str | None, method: str | None) -> list[dict[str, str]]:
    """The rows named `method` that directly follow a row of the model `above`."""
    rows = paper_table(table)
    return [b for a, b in pairwise(rows) if above == a["model"] and b["model"] == method]


def _is_anchor(row: dict[str, str], model: str, method: str | None) -> bool:
    return (row["model"], row["anchor"]) == (model, method)


def _anchor(row: dict[str, str]) -> PaperRow:
    """A row of the anchor ablation, which prints accuracy and throughput alone."""
    return PaperRow(
        model=row["model"],
        method=row["anchor"],
        acc_base=paper_base(row["model"]),
        acc_reduced=float(row["acc"]),
        acc_delta=None,
        flops_pct=None,
        throughput_pct=float(row["throughput_pct"]),
    )


def paper_base(model: str) -> float | None:
    """The paper's dense accuracy of a model in %, None if it has no such model."""
    name = paper_model(model) or model
    rows = [*paper_table("image_classification"), *paper_table("kinetics")]
    return next((float(row["acc_base"]) for row in rows if row["model"] == name), None)


def flops_pct_rounded(model: str, gmacs: float) -> float | None:
    """FLOPs (%) as the paper computes it: both GMACs rounded to its decimals, then the ratio."""
    if (name := paper_model(model)) is None:
        return None
    base, decimals = ROUNDING[name]
    scale = 10**decimals
    return 100 * (math.floor(gmacs * scale + 0.5) / scale / base - 1)


def _parse(row: dict[str, str]) -> PaperRow:
    values = {name: float(row[name]) if row[name] else None for name in _NUMBERS}
    return PaperRow(model=row["model"], method=row["method"], **values)
