"""Accuracy and cost over alpha, the weight of the attention in a step of the walk."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from asap.report.figures.families import Options, families, frame_of, name_families
from asap.report.figures.style import FAINT, INK, RED, canvas, styled
from asap.report.paper import paper_model, paper_table
from asap.report.result import Result


def alpha(results: Sequence[Result], default: Options) -> list[pd.DataFrame]:
    """One frame for each family with at least two alpha, sorted by alpha. Columns as of `frame_of`,
    and `paper_top1`: the paper's top-1 at this alpha on this backbone, NaN if it has none.
    """
    frames = []
    for family in families(results, ("alpha",)):
        frame = frame_of(family, results, ("alpha",), default)
        if frame["alpha"].nunique() > 1:
            model = paper_model(str(family[0].backbone))
            printed = {float(row["alpha"]): float(row["acc"]) for row in paper_table("alpha_sweep")}
            known = printed if model == "DeiT-Base" else {}
            frame["paper_top1"] = [known.get(round(a, 9), np.nan) for a in frame["alpha"]]
            frames.append((family, frame.sort_values("alpha", ignore_index=True)))
    return name_families(frames, ("alpha",))


def draw_alpha(frame: pd.DataFrame) -> Figure:
    """Accuracy over alpha with its interval, beside the paper's; MACs below."""
    cost, title = ("macs_pct", "MACs (%)") if frame["macs_pct"].notna().all() else (
        "gmacs", "GMACs")  # fmt: skip
    with styled():
        figure = canvas(6.2, 4.6, layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
        errors = [frame["top1"] - frame["top1_lo"], frame["top1_hi"] - frame["top1"]]
        top.errorbar(
            frame["alpha"], frame["top1"], yerr=np.maximum(errors, 0), color="#d55e00",
            marker="o", ms=5, capsize=2.5, elinewidth=1, label="measured here",
        )  # fmt: skip
        for i, row in enumerate(frame.itertuples()):
            top.plot(row.alpha, row.top1, "o", ms=5, color="#d55e00", gid=f"point-{i}")
        printed = frame.dropna(subset=["paper_top1"])
        if len(printed):
            top.plot(printed["alpha"], printed["paper_top1"], "s--", color=INK, ms=4, label="paper")
        for row in frame[frame["default"]].itertuples():
            top.plot(row.alpha, row.top1, "o", ms=13, mfc="none", mec=RED, mew=1.8, label="default")
        top.set_ylabel("top-1 (%), 95 % interval")
        top.legend(fontsize=8)
        bottom.plot(frame["alpha"], frame[cost], "o-", color=FAINT, ms=4)
        bottom.set_ylabel(title)
        bottom.set_xlabel("α, weight of the attention in a step of the walk")
        for axes in (top, bottom):
            axes.grid()
        return figure
