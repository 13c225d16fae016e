"""Which columns of the paper's tables stand beside which of our values."""

from dataclasses import dataclass

from asap.report.benchmarks.named import AVERAGE, BENCHMARKS, RELATIVE
from asap.report.paper import ANSWERS


@dataclass(frozen=True)
class Beside:
    """A column of one of the paper's tables and the values shown for it.

    column: its name in results/paper; ours, paper, minus: keys of our value, the paper's and their
    difference; spec: number format; dense: only for dense rows (True), the others (False) or both.
    """

    column: str
    title: str
    ours: str
    paper: str
    minus: str
    spec: str
    dense: bool | None = None


_TOP1 = ("paper_top1", "top1_minus_paper")
_SIGNED, _PERCENT = "+z.2f", ".2f"
_MAIN = (
    Beside("acc_base", "Acc (%), base", "top1", *_TOP1, _PERCENT, True),
    Beside("acc_reduced", "Acc (%), reduced", "top1", *_TOP1, _PERCENT, False),
    Beside(
        "acc_delta", "Δ", "top1_delta", "paper_top1_delta", "top1_delta_minus_paper", _SIGNED, False
    ),
    Beside(
        "flops_pct", "FLOPs (%)", "flops_pct", "paper_flops_pct", "flops_pct_minus_paper", _SIGNED,
        False,
    ),
    Beside(
        "throughput_pct", "Throughput (%)", "throughput_pct", "paper_throughput_pct",
        "throughput_pct_minus_paper", _SIGNED, False,
    ),
)  # fmt: skip
_ACCURACY = Beside("acc", "Acc (%)", "top1", *_TOP1, _PERCENT, False)
_RATE = Beside(
    "throughput_img_s", "Images per second", "infer_samples_per_sec", "paper_samples_per_sec",
    "samples_per_sec_minus_paper", ",.1f",
)  # fmt: skip
MAIN_TABLES = ("image_classification", "kinetics")  # of accuracies before and after reduction


def _of(key: str, title: str, spec: str, column: str | None = None) -> Beside:
    """A column of our numbers under `key`, by default the paper's name of the column."""
    return Beside(column or key, title, key, f"paper_{key}", f"{key}_minus_paper", spec)


_SCORES = tuple(_of(one.column, one.title, one.spec) for one in BENCHMARKS)
_AVERAGE = _of(AVERAGE, "Avg", ".1f")
_RELATIVE = ("Rel (%)", ".1f")
BESIDE = {
    **dict.fromkeys(ANSWERS, (*_SCORES, _AVERAGE, _of(RELATIVE, *_RELATIVE))),
    "anchor_llava_next": (*_SCORES, _AVERAGE, _of(RELATIVE, *_RELATIVE, "avg_rel_pct")),
    **dict.fromkeys(MAIN_TABLES, _MAIN),
    "anchor_image": (_ACCURACY, _MAIN[-1]),
    "alpha_sweep": (_ACCURACY, _RATE),
    "accumulation_overhead": (
        Beside("flops_g", "GFLOPs", "infer_gmacs", "paper_gmacs", "gmacs_minus_paper", ".3f"),
        _RATE,
    ),
}  # by the paper's table
PUBLISHED = tuple(dict.fromkeys(b.title for table in BESIDE.values() for b in table))  # groups
PUBLISHED_SCORES = tuple(b.title for b in BESIDE[ANSWERS[0]])  # those of them about answers
