"""Accuracy against a cost, every method with its interval: against multiply-accumulates (the
paper's Figure 1), of questions also against the rows in a layer of the language model.
"""

from collections.abc import Sequence
from dataclasses import asdict
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from asap.report.figures.point_labels import place_labels
from asap.report.figures.style import FAINT, INK, canvas, look, styled
from asap.report.paper import paper_model
from asap.report.result import Result, accuracy_name
from asap.report.scalars import scalars

_CROWD = 12  # with more rows, only the front and dense are named
_FEW = 6  # with more rows of different looks, names go into a legend
_WIDTH = 30  # letters in a line of the legend
_LOOK = ["colour", "marker", "filled"]
_AXES = {
    "gmacs": "GMACs per {}, backbone and method",
    "layer_visual_rows": "visual rows in a layer of the language model, mean per {}",
}


def accuracy_macs(results: Sequence[Result], cost: str = "gmacs") -> pd.DataFrame:
    """One row per result with an accuracy record: label, GMACs per example (backbone and method),
    top-1 with its 95 % interval in %, key, and the look. front: no other row of the same model is
    at least as accurate at no more MACs.

    cost: what stands in place of the MACs, a number of `scalars`. `attrs` have its name and that of
    the examples. ValueError if no result has a record.
    """
    shown = [result for result in results if result.accuracy is not None]
    if not shown:
        raise ValueError("no result has an accuracy record: there is nothing to draw")
    frame = pd.DataFrame([_row(result, cost) for result in shown])
    if frame["model"].nunique() > 1:
        frame["label"] += " (" + frame["model"] + ")"
    frame["front"] = [_is_front(frame, i, cost) for i in range(len(frame))]
    frame.attrs |= {"cost": cost, "things": shown[0].things}
    frame.attrs["accuracy"] = accuracy_name(shown[0].measured)
    return frame


def _row(result: Result, cost: str) -> dict:
    record = result.measured
    low, high = record["top1_interval"]
    return {
        "label": result.label,
        "model": paper_model(record["backbone"]) or record["backbone"],
        cost: scalars(result)[cost],
        "top1": record["top1"],
        "top1_lo": low,
        "top1_hi": high,
        "dense": result.is_dense,
        "key": record["key"],
        **asdict(look(result)),
    }


def _is_front(frame: pd.DataFrame, i: int, cost: str) -> bool:
    """Whether no row of the same model is at least as accurate and as cheap as row i, and better
    in one of them.
    """
    one = frame.iloc[i]
    same = frame[frame["model"] == one["model"]]
    as_good = (same["top1"] >= one["top1"]) & (same[cost] <= one[cost])
    better = (same["top1"] > one["top1"]) | (same[cost] < one[cost])
    return not bool((as_good & better).any())


def draw_accuracy_macs(frame: pd.DataFrame) -> Figure:
    """A point with its interval for each row, a dotted line through the front of each model."""
    cost, things = frame.attrs["cost"], frame.attrs["things"]
    looks = frame.groupby(_LOOK, sort=False)["label"].agg(list)
    listed = len(frame) > _FEW and (len(looks) == len(frame) or len(looks) > _FEW)
    with styled():
        figure = canvas(9.8 if listed else 7.4, 4.8, layout="constrained")
        axes = figure.subplots()
        for i, row in enumerate(frame.itertuples()):
            _draw_point(axes, row, cost, f"point-{i}")
        _draw_guides(axes, frame, cost)
        axes.margins(x=0.16, y=0.1)
        axes.set_xlabel(_AXES[cost].format(things.removesuffix("s")))
        axes.set_ylabel(f"{frame.attrs['accuracy']} (%), 95 % interval")
        axes.grid()
        figure.canvas.draw()
        if listed:
            handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
            first = [handles[fill(labels[0], _WIDTH)] for labels in looks]
            names = [fill(_of_all(labels), _WIDTH) for labels in looks]
            figure.legend(first, names, loc="outside right upper", fontsize=8, labelspacing=0.9)
        else:
            _name(axes, frame, cost)
        return figure


def _of_all(labels: list[str]) -> str:
    """One name for rows of one look: "ToMe, 14, 7" for "ToMe, 14" and "ToMe, 7"."""
    parts = [label.partition(", ") for label in labels]
    if len({stem for stem, _, _ in parts}) > 1:
        return " / ".join(labels)
    return ", ".join([parts[0][0], *(rest for _, _, rest in parts if rest)])


def _name(axes: Axes, frame: pd.DataFrame, cost: str) -> None:
    """Write names beside the points."""
    bars = [_bar(axes, row, cost) for row in frame.itertuples()]
    named = frame[frame["front"] | frame["dense"]] if len(frame) > _CROWD else frame
    points = list(zip(named[cost], named["top1"], strict=True))
    place_labels(axes, points, list(named["label"]), bars)


def _draw_point(axes: Axes, row, cost: str, gid: str) -> None:
    errors = [[max(row.top1 - row.top1_lo, 0)], [max(row.top1_hi - row.top1, 0)]]
    drawn = axes.errorbar(
        getattr(row, cost),
        row.top1,
        yerr=errors,
        fmt=row.marker,
        color=row.colour,
        ms=6.5,
        elinewidth=1,
        capsize=2.5,
        mfc=row.colour if row.filled else "white",
        zorder=3,
        label=fill(row.label, _WIDTH),
    )
    drawn[0].set_gid(gid)


def _draw_guides(axes: Axes, frame: pd.DataFrame, cost: str) -> None:
    """The accuracy of each dense baseline, and the front of each model."""
    for top1 in frame.loc[frame["dense"], "top1"].tolist():
        axes.axhline(top1, color=FAINT, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
    for _, rows in frame[frame["front"]].groupby("model"):
        front = rows.sort_values(cost)
        if len(front) > 1:
            axes.plot(front[cost], front["top1"], ":", color=INK, lw=0.9, zorder=2)


def _bar(axes: Axes, row, cost: str) -> Bbox:
    """The error bar's box in pixels."""
    ends = [(getattr(row, cost), end) for end in (row.top1_lo, row.top1_hi)]
    (x, y0), (_, y1) = axes.transData.transform(ends)
    return Bbox.from_extents(x - 4, y0 - 2, x + 4, y1 + 2)
