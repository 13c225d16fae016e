"""Largest column mass per block and the thresholds (the paper's Figure 7, bottom)."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from asap.records.tables import matrix
from asap.report.figures.style import FAINT, RED, canvas, look, styled
from asap.report.result import Result

_LOW, _HIGH = 10, 90  # percentiles of the band


def column_mass(results: Sequence[Result], most: int | None = None) -> pd.DataFrame:
    """One row per walk and block: label, block (from 1), images that had not stopped before the
    block, mean, 10th and 90th percentile of their largest column mass, tau, key, colour.

    Results with equal masses (ablations of one walk) are one walk, with their first three labels.
    Empty without any mass, and if there are more than `most` walks.
    """
    walks: dict[bytes, tuple[Result, np.ndarray, list[str]]] = {}
    for result in results:
        if not result.has_answers or result.method.get("name") != "asap":
            continue
        mass = _masses(result.traces())
        if mass.size:
            if mass.tobytes() not in walks and len(walks) == most:
                walks.clear()  # too many to be told apart in one figure
                break
            walks.setdefault(mass.tobytes(), (result, mass, []))[2].append(result.label)
    rows = [row for result, mass, labels in walks.values() for row in _rows(result, mass, labels)]
    names = ("label", "block", "images", "mean", "p10", "p90", "tau", "key", "colour")
    return pd.DataFrame(rows, columns=list(names))


def _masses(traces: pd.DataFrame) -> np.ndarray:
    """(images, blocks) float64, NaN after an image's stop; without images that have no mass."""
    mass = matrix(traces, "vision.mass").astype(np.float64)
    return mass[~np.isnan(mass).all(axis=1)]


def _rows(result: Result, mass: np.ndarray, labels: Sequence[str]) -> list[dict]:
    rows, more = [], f" and {len(labels) - 3} more" * (len(labels) > 3)
    label = ", ".join(labels[:3]) + more
    for block, column in enumerate(mass.T, start=1):
        there = column[~np.isnan(column)]
        if len(there) == 0:
            continue
        low, high = np.percentile(there, [_LOW, _HIGH])
        rows.append(
            {"label": label, "block": block, "images": len(there)}
            | {"mean": float(there.mean()), "p10": float(low), "p90": float(high)}
            | {"tau": float(result.method["options"]["tau"]), "key": result.key}
            | {"colour": look(result).colour}
        )
    return rows


def draw_column_mass(frame: pd.DataFrame) -> Figure:
    """Mean and middle 80 % of the images per block with the thresholds; below, the number of images
    behind each mean.
    """
    with styled():
        figure = canvas(7.0, 4.6, layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        colours = _colours(frame)
        for i, (label, rows) in enumerate(frame.groupby("label", sort=False)):
            colour, dash = colours[label], ("-", "--", "-.", ":")[i % 4]
            top.fill_between(
                rows["block"], rows["p10"], rows["p90"], color=colour, alpha=0.15, lw=0
            )
            top.plot(
                rows["block"], rows["mean"], dash, color=colour, marker="o", ms=3.5, label=label
            )
            bottom.plot(rows["block"], rows["images"], dash, color=colour, marker="o", ms=3.5)
        for i, row in enumerate(frame.itertuples()):
            top.plot(row.block, row.mean, "o", ms=3.5, color=colours[row.label], gid=f"point-{i}")
        _thresholds(top, sorted(set(frame["tau"])))
        top.set_ylabel("largest column mass")
        names = top.get_legend_handles_labels()
        figure.legend(*names, loc="outside lower left", fontsize=7.5)
        many = frame.attrs.get("images", "images")
        bottom.set(xlabel="block", ylabel=f"{many} not\nyet stopped", ylim=(0, None))
        bottom.set_xticks(range(1, int(frame["block"].max()) + 1))
        for axes in (top, bottom):
            axes.grid()
        return figure


def _colours(frame: pd.DataFrame) -> dict:
    """Each walk's own colour, or a colour ramp if two walks would have the same."""
    own = frame.groupby("label", sort=False)["colour"].first()
    if own.is_unique:
        return own.to_dict()
    ramp = mpl.colormaps["plasma"](np.linspace(0.35, 0.82, len(own)))
    return dict(zip(own.index, ramp, strict=True))


def _thresholds(axes, taus: Sequence[float]) -> None:
    low, high = min(taus), max(taus)
    if high > low:
        axes.axhspan(low, high, color=RED, alpha=0.22, lw=0, label=f"τ = {low:g} to {high:g}")
    else:
        axes.axhline(low, color=RED, lw=1.2, ls=(0, (5, 3)), label=f"τ = {low:g}")
    axes.axhline(1, color=FAINT, lw=0.6)  # mass of every column before the first block
