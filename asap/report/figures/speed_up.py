"""Achieved speed-up against the multiply-accumulates saved, with what these would allow."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asap.report.figures.style import FAINT, INK, canvas, look, styled
from asap.report.paper import paper_model
from asap.report.result import Result

_COLUMNS = 3  # panels side by side
_SAVES = 1.05  # rows that save fewer MACs take a method apart, or reduce nothing
_AGAINST = ("best", "fused")  # dense models, the first that was timed counts


def speed_up(results: Sequence[Result]) -> pd.DataFrame:
    """One row per result that saves MACs and has a ratio: label, model, the dense model's MACs over
    its own on the timed images (`saved`, at least 1.05), its speed over a dense model's with the
    95 % interval (`speed`, `lo`, `hi`), which dense model that is (`against`), its speed over the
    fused one (`fused`, NaN without a ratio), and the look.

    A model's rows are all against the same dense model: the best one, else the fused one.
    """
    found = [r for r in results if r.throughput is not None and not r.is_dense]
    by_model: dict[str, list[Result]] = {}
    for result in found:
        by_model.setdefault(_model(result), []).append(result)
    rows = []
    for model, own in by_model.items():
        against = next((name for name in _AGAINST if any(_ratio(r, name) for r in own)), None)
        if against is not None:
            rows += [_row(r, model, against) for r in own if _ratio(r, against)]
    return pd.DataFrame([row for row in rows if row["saved"] >= _SAVES])


def _model(result: Result) -> str:
    backbone = result.backbone or ""
    return paper_model(backbone) or backbone


def _ratio(result: Result, name: str) -> Mapping[str, float] | None:
    record: Mapping[str, Any] = result.throughput or {}
    return record.get(f"ratio_{name}") if "gmacs_dense" in record else None


def _row(result: Result, model: str, against: str) -> dict:
    record, ratio, fused = result.throughput, _ratio(result, against), _ratio(result, "fused")
    assert record is not None and ratio is not None
    return {
        "label": result.label,
        "model": model,
        "saved": record["gmacs_dense"] / (record["gmacs_backbone"] + record["gmacs_method"]),
        "speed": ratio["median"],
        "lo": ratio["lo"],
        "hi": ratio["hi"],
        "against": against,
        "fused": fused["median"] if fused else float("nan"),
        "key": record["key"],
        **asdict(look(result)),
    }


def draw_speed_up(frame: pd.DataFrame) -> Figure:
    """A panel for each model: points, their floor (as fast as MACs are saved) and dense at 1."""
    models = list(dict.fromkeys(frame["model"]))
    wide = min(len(models), _COLUMNS)
    high = -(-len(models) // wide)
    with styled():
        figure = canvas(3.6 * wide + 2.6, 3.4 * high, layout="constrained")
        panels = figure.subplots(high, wide, squeeze=False).ravel()
        for axes, model in zip(panels, models, strict=False):
            _draw_panel(axes, frame[frame["model"] == model], model)
        for axes in panels[len(models) :]:
            axes.set_axis_off()
        drawn: dict[str, Artist] = {}
        for axes in panels[: len(models)]:
            handles, labels = axes.get_legend_handles_labels()
            drawn |= dict(zip(labels, handles, strict=True))
        figure.legend(
            list(drawn.values()), list(drawn), loc="outside right upper", fontsize=8,
            labelspacing=0.8,
        )  # fmt: skip
        return figure


def _draw_panel(axes: Axes, rows: pd.DataFrame, model: str) -> None:
    for i, row in enumerate(rows.itertuples()):
        _draw_point(axes, row, f"point-{i}")
    ends = [1.0, max(1.05, rows["saved"].max() * 1.06)]
    axes.plot(ends, ends, color=INK, lw=0.9, ls=":", label="as MACs allow")
    axes.axhline(1, color=FAINT, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
    axes.set_title(model)
    axes.set_xlabel("dense MACs / own MACs")
    axes.set_ylabel(f"speed / {rows['against'].iloc[0]} dense")
    axes.grid()


def _draw_point(axes: Axes, row, gid: str) -> None:
    (point, *_) = axes.errorbar(
        row.saved, row.speed, yerr=[[row.speed - row.lo], [row.hi - row.speed]], fmt=row.marker,
        color=row.colour, ms=6, elinewidth=1, capsize=2.5,
        mfc=row.colour if row.filled else "white", zorder=3, label=row.label,
    )  # fmt: skip
    point.set_gid(gid)
    if row.against != "fused":
        axes.plot(row.saved, row.fused, "_", color=row.colour, ms=9, zorder=2)
