"""What the paper's tables contradict, as data: printed below ours where a row is concerned."""

from collections.abc import Iterable
from dataclasses import dataclass

from asap.report.paper import paper_model


@dataclass(frozen=True)
class Footnote:
    """An inconsistency of the paper: its table, models and methods (empty: all), column."""

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


def footnotes(table: str, rows: Iterable[tuple[str, str | None]]) -> list[Footnote]:
    """The notes of one of the paper's tables that concern any of the (model, method) rows."""
    rows = [(paper_model(model) or model, method) for model, method in rows]
    return [
        note
        for note in FOOTNOTES
        if note.table == table and any(note.concerns(*row) for row in rows)
    ]


_IMAGES, _FLOPS, _SPEED = "image_classification", "flops_pct", "throughput_pct"

FOOTNOTES = (
    Footnote(
        _IMAGES,
        "Paper: DynamicViT and ToMe on DeiT-Base carry identical FLOPs (-34.09 %) and "
        "identical throughput (+38.01 %); no constant r of ToMe gives 11.6 G (r=11: 11.46 G), "
        "and DynamicViT is a trained method.",
        models=("DeiT-Base",),
        methods=("DynamicViT", "ToMe"),
        column=_FLOPS,
    ),
    Footnote(
        _IMAGES,
        "Paper: its FLOPs (%) are ratios of GMACs rounded to 0.1 G, so one step is 0.6 points "
        "on DeiT-Base, 2.2 on DeiT-Small, 7.7 on DeiT-Tiny and 1.5 on LV-ViT-S.",
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
        "Paper: the headline row (81.68) is the default point of the grid; the grid's best "
        "point is 82.03.",
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
        'Paper: "ViT-AugReg" at 81.41 % and 4.55 G is ViT-S/16, though the appendix writes '
        '"-B"; the identical architecture DeiT-Small is counted as 4.6 G (4.599).',
        models=("ViT-AugReg",),
        column="acc_base",
    ),
    Footnote(
        _IMAGES,
        "Paper: ToMe on ViT-AugReg mixes two settings: 79.30 % is the published value of r=13 "
        "(-41.2 %), -38.54 % is nearest to r=12 and not on the row's 0.01 G grid.",
        models=("ViT-AugReg",),
        methods=("ToMe",),
        column=_FLOPS,
    ),
    Footnote(
        _IMAGES,
        "Paper: Zero-TPrune's +26.89 % has no public code behind it; its authors report +45.3 "
        "% on an A100.",
        models=("DeiT-Small",),
        methods=("ZeroTPrune",),
        column=_SPEED,
    ),
    Footnote(
        _IMAGES,
        "Paper: PPT's own authors give 79.50 % at 2.94 G for off-the-shelf DeiT-S; this row is"
        " 79.24 % at 2.8 G.",
        models=("DeiT-Small",),
        methods=("PPT",),
        column="acc_reduced",
    ),
    Footnote(
        "kinetics",
        "Paper: all four FLOPs percentages equal the DeiT-Base rows digit for digit (-34.09, "
        "-32.95, -36.36, -35.23) although the model is CLIP ViT-L/14: to be read as not "
        "measured.",
        column=_FLOPS,
    ),
    Footnote(
        "accumulation_overhead",
        "Paper: CLIP ViT-L's 174.6 G is 336-pixel input counted without the attention products"
        " (with them 190.96 G); DeiT-B's 17.6 G counts them.",
        models=("ClipViT-L",),
        column="flops_g",
    ),
    Footnote(
        "accumulation_overhead",
        "Paper: accumulating an N x N product in all layers costs 4.61 G (CLIP ViT-L) and 0.09"
        " G (DeiT-B), not the 0.1 G that 174.7 implies.",
        column="flops_g",
    ),
    Footnote(
        "alpha_sweep",
        "Paper: 1,799 img/s over the overhead table's 1,206.13 is +49.2 %; the main table says"
        " +48.21 %.",
        column="throughput_img_s",
    ),
    Footnote(
        "sweep_prose",
        'Paper: the "ViT-AugReg-B" of the sweep drops 6.87 points to 74.54, which is from '
        "81.41: ViT-S/16.",
        models=("ViT-AugReg",),
    ),
    Footnote(
        "llava15",
        "Paper: Avg. is the mean over the benchmarks with MME divided by 20; in the 64-token "
        "block Rel of ToMe, FastV and SparseVLM (72.2, 72.5, 88.1) uses a denominator of 69.0;"
        " over 72.6 it is 68.6, 68.9, 83.7.",
        column="rel_pct",
    ),
    Footnote(
        "llava15",
        "Paper: at 64 tokens the MME of ToMe, FastV and SparseVLM (922, 1020, 1221) is 0.81 "
        "times the widely copied values: it looks like a perception-only score beside totals.",
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
        "Paper: the latency text says PruneSID reaches 77.0 % POPE at 64 tokens; the table "
        "says 84.1 %.",
        methods=("PruneSID",),
        column="pope_acc",
    ),
)
