"""The paper's numbers (arXiv 2605.22372) and what they contradict, as data.

The tables are read from `results/paper/*.csv` of the checkout, verbatim. "FLOPs" there are
multiply-accumulates.
"""

import csv
import functools
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

# The tables that ours are set beside, their columns of names, and the overhead table's models.

_NUMBERS = ("acc_base", "acc_reduced", "acc_delta", "flops_pct", "throughput_pct")
_NAMES = ("model", "anchor", "alpha", "method")
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

# The printed GMACs of the dense model and the decimals its FLOPs column was rounded to before
# dividing.
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


@dataclass(frozen=True)
class Footnote:
    """An inconsistency of the paper: which table, which models and methods (empty: all), which
    column.
    """

    table: str
    text: str
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    column: str | None = None

    def concerns(self, model: str, method: str | None) -> bool:
        """Whether the row (model, method), in the paper's names, is one this note is about."""
        return (not self.models or model in self.models) and (
            not self.methods or method in self.methods
        )


@functools.cache
def paper_table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of `results/paper/<name>.csv` as printed (strings); empty, with a warning, if the file
    is absent.
    """
    paths = (folder / f"{name}.csv" for folder in _FOLDERS)
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        logging.warning("the paper's table %s is not installed: its columns stay empty", name)
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def paper_model(backbone: str) -> str | None:
    """The paper's name of a backbone (a paper's name maps to itself), None if the paper has no such
    model.
    """
    return backbone if backbone in ROUNDING else MODELS.get(backbone)


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

    `method` is the row's name there; the dense row of the main table has the base accuracy.
    """
    model = paper_model(backbone) or backbone
    if table == "image_classification":
        if dense:
            base = paper_base(model)
            return None if base is None else {"acc_base": base}
        row = paper_row(model, method)
        return None if row is None else {k: getattr(row, k) for k in _NUMBERS}
    rows = [row for row in paper_table(table) if _is_row(table, row, model, method)]
    if table == "accumulation_overhead" and not rows:
        rows = _below(table, _OVERHEAD.get(model), method)
    return {k: float(v) for k, v in rows[0].items() if k not in _NAMES and v} if rows else None


def in_table(table: str, backbone: str) -> bool:
    """Whether one of the paper's tables has this backbone."""
    model = paper_model(backbone)
    if table == "accumulation_overhead":
        return model in _OVERHEAD or backbone.startswith("vit_large_patch14_clip")
    if table == "alpha_sweep":
        return model == "DeiT-Base"
    return model is not None and any(row["model"] == model for row in paper_table(table))


def _is_row(table: str, row: dict[str, str], model: str, method: str | None) -> bool:
    if table == "alpha_sweep":
        return model == "DeiT-Base" and row["alpha"] == method
    if table == "anchor_image":
        return _is_anchor(row, model, method)
    return row["model"] == method and method == _OVERHEAD.get(model)


def _below(table: str, above: str | None, method: str | None) -> list[dict[str, str]]:
    """The row of this name right below another one."""
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
    """FLOPs (%) as the paper rounds it: both sides to the decimals it prints, then the ratio."""
    if (name := paper_model(model)) is None:
        return None
    base, decimals = ROUNDING[name]
    scale = 10**decimals
    return 100 * (math.floor(gmacs * scale + 0.5) / scale / base - 1)


def footnotes(table: str, rows: Iterable[tuple[str, str | None]]) -> list[Footnote]:
    """The notes of one of the paper's tables that concern any of the (model, method) rows."""
    rows = [(paper_model(model) or model, method) for model, method in rows]
    return [
        note
        for note in FOOTNOTES
        if note.table == table and any(note.concerns(*row) for row in rows)
    ]


def _parse(row: dict[str, str]) -> PaperRow:
    values = {name: float(row[name]) if row[name] else None for name in _NUMBERS}
    return PaperRow(model=row["model"], method=row["method"], **values)


_IMAGES, _FLOPS, _SPEED = "image_classification", "flops_pct", "throughput_pct"

FOOTNOTES = (
    Footnote(
        _IMAGES,
        "Paper: DynamicViT and ToMe on DeiT-Base carry identical FLOPs (-34.09 %) and identical "
        "throughput (+38.01 %); "
        "no constant r of ToMe gives 11.6 G (r=11: 11.46 G), and DynamicViT is a trained method.",
        models=("DeiT-Base",),
        methods=("DynamicViT", "ToMe"),
        column=_FLOPS,
    ),
    Footnote(
        _IMAGES,
        "Paper: its FLOPs (%) are ratios of GMACs rounded to 0.1 G, so one step is 0.6 points on "
        "DeiT-Base, "
        "2.2 on DeiT-Small, 7.7 on DeiT-Tiny and 1.5 on LV-ViT-S.",
        models=("DeiT-Base", "DeiT-Small", "DeiT-Tiny", "LV-ViT-S"),
        column=_FLOPS,
    ),
    Footnote(
        _IMAGES,
        "Paper: -34.13 % is not on the 0.1 G grid of the other DeiT-Base rows.",
        models=("DeiT-Base",),
        methods=("Ours (w/o accumulation)",),
        column=_FLOPS,
    ),
    Footnote(
        _IMAGES,
        "Paper: the headline row (81.68) is the default point of the grid; the grid's best point "
        "is 82.03.",
        models=("DeiT-Base",),
        methods=("Ours (pool.)",),
        column="acc_reduced",
    ),
    Footnote(
        _IMAGES,
        "Paper: +48.21 % is 1,787.6 img/s over a base of 1,206.13; its table over α has 1,799 "
        "img/s (+49.2 %).",
        models=("DeiT-Base",),
        methods=("Ours (pool.)",),
        column=_SPEED,
    ),
    Footnote(
        _IMAGES,
        'Paper: "ViT-AugReg" at 81.41 % and 4.55 G is ViT-S/16, though the appendix writes "-B"; '
        "the identical "
        "architecture DeiT-Small is counted as 4.6 G (4.599).",
        models=("ViT-AugReg",),
        column="acc_base",
    ),
    Footnote(
        _IMAGES,
        "Paper: ToMe on ViT-AugReg mixes two settings: 79.30 % is the published value of r=13 "
        "(-41.2 %), "
        "-38.54 % is nearest to r=12 and not on the row's 0.01 G grid.",
        models=("ViT-AugReg",),
        methods=("ToMe",),
        column=_FLOPS,
    ),
    Footnote(
        _IMAGES,
        "Paper: Zero-TPrune's +26.89 % has no public code behind it; its authors report +45.3 % "
        "on an A100.",
        models=("DeiT-Small",),
        methods=("ZeroTPrune",),
        column=_SPEED,
    ),
    Footnote(
        _IMAGES,
        "Paper: PPT's own authors give 79.50 % at 2.94 G for off-the-shelf DeiT-S; this row is "
        "79.24 % at 2.8 G.",
        models=("DeiT-Small",),
        methods=("PPT",),
        column="acc_reduced",
    ),
    Footnote(
        "kinetics",
        "Paper: all four FLOPs percentages equal the DeiT-Base rows digit for digit (-34.09, "
        "-32.95, -36.36, -35.23) "
        "although the model is CLIP ViT-L/14: to be read as not measured.",
        column=_FLOPS,
    ),
    Footnote(
        "accumulation_overhead",
        "Paper: CLIP ViT-L's 174.6 G is 336-pixel input counted without the attention products "
        "(with them 190.96 G); "
        "DeiT-B's 17.6 G counts them.",
        models=("ClipViT-L",),
        column="flops_g",
    ),
    Footnote(
        "accumulation_overhead",
        "Paper: accumulating an N x N product in all layers costs 4.61 G (CLIP ViT-L) and 0.09 G "
        "(DeiT-B), "
        "not the 0.1 G that 174.7 implies.",
        column="flops_g",
    ),
    Footnote(
        "alpha_sweep",
        "Paper: 1,799 img/s over the overhead table's 1,206.13 is +49.2 %; the main table says "
        "+48.21 %.",
        column="throughput_img_s",
    ),
    Footnote(
        "sweep_prose",
        'Paper: the "ViT-AugReg-B" of the sweep drops 6.87 points to 74.54, which is from 81.41: '
        "ViT-S/16.",
        models=("ViT-AugReg",),
    ),
    Footnote(
        "llava15",
        "Paper: Avg. is the mean over the benchmarks with MME divided by 20; in the 64-token "
        "block Rel of ToMe, FastV "
        "and SparseVLM (72.2, 72.5, 88.1) uses a denominator of 69.0; over 72.6 it is 68.6, 68.9, "
        "83.7.",
        column="rel_pct",
    ),
    Footnote(
        "llava15",
        "Paper: at 64 tokens the MME of ToMe, FastV and SparseVLM (922, 1020, 1221) is 0.81 times "
        "the widely copied "
        "values: it looks like a perception-only score beside totals.",
        column="mme",
    ),
    Footnote(
        "llava15",
        "Paper: ASAP-Hybrid's Avg. recomputes to 70.5; printed 70.2 (Rel 96.6).",
        methods=("ASAP (Ours) + Hybrid",),
        column="avg",
    ),
    Footnote(
        "composition",
        "Paper: ASAP-Hybrid's Avg. recomputes to 70.5; printed 70.2 (Rel 96.6).",
        methods=("+ ASAP + VisPruner (ASAP Hybrid)",),
        column="avg",
    ),
    Footnote(
        "llava_latency",
        "Paper: the latency text says PruneSID reaches 77.0 % POPE at 64 tokens; the table says "
        "84.1 %.",
        methods=("PruneSID",),
        column="pope_acc",
    ),
)
