"""tau x K as maps and as curves (the paper's Figures 6 and 8)."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from asap.report.figures.families import Options, families, frame_of, name_families, option
from asap.report.figures.style import RED, canvas, styled
from asap.report.result import Result

_MARKERS = "osD^vP*X<>ph"


def tau_k(results: Sequence[Result], default: Options) -> list[pd.DataFrame]:
    """One frame for each family with at least two tau and two K, sorted by K, then tau. Columns as
    of `frame_of`, with tau and clusters (K).
    """
    frames = []
    for family in families(results, ("tau", "clusters")):
        members = [one for one in family if isinstance(option(one, "clusters"), int)]
        frame = frame_of(members, results, ("tau", "clusters"), default)
        if len(frame) and frame["tau"].nunique() > 1 and frame["clusters"].nunique() > 1:
            frames.append((family, frame.sort_values(["clusters", "tau"], ignore_index=True)))
    return name_families(frames, ("tau", "clusters"))


def draw_tau_k(frame: pd.DataFrame) -> Figure:
    """Maps of accuracy and of MACs over tau and K, and accuracy against MACs with a line for each
    K; the default is circled.
    """
    cost = "macs_pct" if frame["macs_pct"].notna().all() else "gmacs"
    costs = {"macs_pct": "MACs against dense (%)", "gmacs": "GMACs per image"}
    taus, ks = sorted(frame["tau"].unique()), sorted(frame["clusters"].unique())
    with styled():
        height = max(3.4, 0.34 * len(ks) + 1.6)
        figure = canvas(max(10.6, 0.95 * 2 * len(taus) + 5.4), height, layout="constrained")
        widths = [len(taus), len(taus), 1.35 * len(taus) if len(taus) > 3 else 4]
        left, middle, right = figure.subplots(1, 3, width_ratios=widths)
        _map(left, frame, "top1", "top-1 (%)", "viridis", "{:.2f}")
        form = "{:+.1f}" if cost == "macs_pct" else "{:.3g}"
        _map(middle, frame, cost, costs[cost], "cividis_r", form, "cost")
        _curves(right, frame, cost, costs[cost])
        return figure


def _map(
    axes: Axes,
    frame: pd.DataFrame,
    name: str,
    title: str,
    colours: str,
    form: str,
    gid: str = "map",
) -> None:
    """One coloured square per setting, with its number in it; missing settings stay empty."""
    taus, ks = sorted(frame["tau"].unique()), sorted(frame["clusters"].unique())
    low, high = frame[name].min(), frame[name].max()
    for i, row in enumerate(frame.itertuples()):
        x, y, value = taus.index(row.tau), ks.index(row.clusters), getattr(row, name)
        shade = mpl.colormaps[colours]((value - low) / (high - low) if high > low else 0.5)
        cell = Rectangle((x - 0.5, y - 0.5), 1, 1, fc=shade, ec="white", lw=1)
        cell.set_gid(f"{gid}-{i}")
        axes.add_patch(cell)
        bright = np.dot(shade[:3], (0.299, 0.587, 0.114)) > 0.55
        text = axes.text(x, y, form.format(value), ha="center", va="center", size=7.5)
        text.set_color("#101010" if bright else "#fafafa")
        if row.default:
            ring = Ellipse((x, y), 0.9, 0.78, fc="none", ec=RED, lw=1.8)
            axes.add_patch(ring)
    axes.set(xlim=(-0.5, len(taus) - 0.5), ylim=(-0.5, len(ks) - 0.5), title=title)
    axes.set_xticks(range(len(taus)), [f"{tau:g}" for tau in taus])
    axes.set_yticks(range(len(ks)), [str(k) for k in ks])
    axes.set_xlabel("τ")
    axes.set_ylabel("K")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _curves(axes: Axes, frame: pd.DataFrame, cost: str, title: str) -> None:
    ks = sorted(frame["clusters"].unique())
    shades = mpl.colormaps["plasma"](np.linspace(0.35, 0.82, len(ks)))
    for i, (shade, k) in enumerate(zip(shades, ks, strict=True)):
        rows = frame[frame["clusters"] == k]
        errors = [rows["top1"] - rows["top1_lo"], rows["top1_hi"] - rows["top1"]]
        axes.errorbar(
            rows[cost], rows["top1"], yerr=np.maximum(errors, 0), color=shade, lw=1.2,
            elinewidth=0.6, marker=_MARKERS[i % len(_MARKERS)], ms=4, label=f"K = {k}",
        )  # fmt: skip
    for x, y in frame.loc[frame["default"], [cost, "top1"]].to_numpy():
        axes.plot(x, y, "o", ms=13, mfc="none", mec=RED, mew=1.8)
    axes.set_xlabel(title)
    axes.set_ylabel("top-1 (%), 95 % interval")
    axes.set_title("τ grows along each line" + ("; ring: default" * bool(frame["default"].any())))
    axes.grid()
    axes.legend(fontsize=7.5, bbox_to_anchor=(1.0, 1.0), loc="upper left")
