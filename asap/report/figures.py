"""Figures from records and traces: what a method did to a picture, and accuracy against cost.

Written twice, as SVG and as PNG, byte for byte the same from the same input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox

from asap.report.labels import place_labels
from asap.report.paper import paper_model
from asap.report.result import CellResult

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "asap",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
INK, FAINT, RIGHT, WRONG = "#1f2933", "#7b8794", "#1f7a4d", "#b42318"
_ASAP, _OTHER = "#c2410c", "#2563a8"
_COLUMNS = ("input", "CLS row of the walk", "distance to the sink", "clusters", "kept tokens")


@dataclass(frozen=True)
class Panel:
    """One image and what a method did to it.

    image (H, W, 3) uint8; grid: patches (down, across); sink: patch index, -1 = none; mass
    (n_patches,): the map that shows the sink, its CLS row; distance (n_patches,) to the sink;
    cluster (n_patches,) int, 0 nearest to the sink; kept (n_patches,) bool, false where pooled or
    dropped; stop_block: from 1, 0 = never reduced; tokens: how many leave the last block.
    """

    image: np.ndarray
    label: str
    prediction: str
    grid: tuple[int, int]
    sink: int
    mass: np.ndarray
    distance: np.ndarray
    cluster: np.ndarray
    kept: np.ndarray
    stop_block: int
    tokens: int


def scene_panels(panels: Sequence[Panel], path: Path) -> list[Path]:
    """One row an image: input, map of the sink, distance to it, clusters, kept tokens.

    An image that never stopped shows its input and the words "never reduced". Writes `path` with
    the suffixes .svg and .png and returns both. ValueError without a panel.
    """
    if not panels:
        raise ValueError("panels=[]: expected at least one image to draw")
    highest = max((int(p.cluster.max()) for p in panels if p.stop_block), default=1)
    colours = cluster_colours(max(2, highest + 1))
    with mpl.rc_context(STYLE):
        height = 2.32 * len(panels) + 1.0
        figure = Figure(figsize=(10.6, height), dpi=150)
        FigureCanvasAgg(figure)
        figure.subplots_adjust(0.012, 0.62 / height, 0.988, 1 - 0.52 / height, 0.05, 0.19)
        axes = figure.subplots(len(panels), len(_COLUMNS), squeeze=False)
        for row, panel in zip(axes, panels, strict=True):
            _draw_row(list(row), panel, colours)
        for column, title in zip(axes[0], _COLUMNS, strict=True):
            _above(column, title, 19, weight="bold", color=INK)
        _legend(figure, colours, height)
        return save(figure, path)


def accuracy_vs_macs(results: Sequence[CellResult], path: Path) -> list[Path]:
    """Top-1 with its 95 % interval against MACs per image (backbone and method), one point a
    result.

    Results without an accuracy record are left out; returns the .svg and .png written. ValueError
    if nothing is left to draw.
    """
    cells = [cell for cell in results if cell.accuracy is not None]
    if not cells:
        raise ValueError("no result has an accuracy record: there is nothing to draw")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 4.8), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        points = [_point(cell) for cell in cells]
        _guides(axes, cells, points)
        for cell, point in zip(cells, points, strict=True):
            _draw_point(axes, cell, point)
        axes.margins(x=0.16, y=0.1)
        axes.set_xlabel("GMACs per image, backbone and method")
        axes.set_ylabel("top-1 (%), 95 % interval")
        axes.grid(color="#e4e7eb", linewidth=0.6)
        axes.set_axisbelow(True)
        legend = _kinds(axes)
        figure.canvas.draw()
        bars = [_bar(axes, cell, point) for cell, point in zip(cells, points, strict=True)]
        place_labels(axes, points, _texts(cells), [*bars, legend.get_window_extent()])
        return save(figure, path)


def _draw_row(row: Sequence[Axes], panel: Panel, colours: ListedColormap) -> None:
    for axes in row:
        axes.set_axis_off()
    right = panel.label == panel.prediction
    row[0].imshow(panel.image)
    verdict = f"{panel.label}, predicted {panel.prediction}"
    _above(row[0], verdict, 4, color=RIGHT if right else WRONG)
    if panel.stop_block == 0:  # halfway between the second and the last column
        row[2].text(1.025, 0.5, "never reduced", ha="center", va="center", color=FAINT, size=13)
        return
    _heat(row[1], panel, panel.mass, "magma")
    _heat(row[2], panel, panel.distance, "viridis", skip_sink=True)
    row[3].imshow(on_pixels(panel.cluster, panel), cmap=colours, vmin=-0.5, vmax=colours.N - 0.5)
    row[4].imshow(darkened(panel))
    for axes in row[1:]:
        _mark_sink(axes, panel)
    _above(row[1], f"reduced in block {panel.stop_block}", 4, color=FAINT)
    kept = f"{int(panel.kept.sum())} of {panel.kept.size} patches, {panel.tokens} tokens"
    _above(row[4], kept, 4, color=FAINT)


def _above(axes: Axes, text: str, points: int, **style: Any) -> None:
    axes.annotate(
        text, (0.5, 1), (0, points), "axes fraction", "offset points", ha="center", **style
    )


def _heat(
    axes: Axes, panel: Panel, values: np.ndarray, colours: str, skip_sink: bool = False
) -> None:
    """A map over the patches, over a grey copy of the image so that one sees what lies where.

    `skip_sink` scales the colours to the other patches: the sink's own distance is 0 and far below
    all others, which would come out in one colour.
    """
    axes.imshow(panel.image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    others = np.delete(values, panel.sink) if skip_sink else values
    low, high = float(others.min()), float(others.max())
    axes.imshow(on_pixels(values, panel), cmap=colours, alpha=0.78, vmin=low, vmax=high)


def on_pixels(values: np.ndarray, panel: Panel) -> np.ndarray:
    """Values per patch (n_patches,) -> per pixel (H, W), whatever the sizes."""
    (down, across), (height, width) = panel.grid, panel.image.shape[:2]
    rows, columns = np.arange(height) * down // height, np.arange(width) * across // width
    return np.asarray(values).reshape(down, across)[rows[:, None], columns[None, :]]


def darkened(panel: Panel) -> np.ndarray:
    kept = on_pixels(panel.kept, panel)[..., None]
    grey = panel.image.mean(axis=2, keepdims=True)
    return np.where(kept, panel.image, 0.25 * grey).astype(np.uint8)


def _mark_sink(axes: Axes, panel: Panel) -> None:
    if panel.sink < 0:
        return
    (down, across), (height, width) = panel.grid, panel.image.shape[:2]
    y, x = divmod(panel.sink, across)
    centre = ((x + 0.5) * width / across - 0.5, (y + 0.5) * height / down - 0.5)
    for colour, line in (("black", 3.2), ("white", 1.6)):
        axes.plot(*centre, "o", ms=9, mfc="none", mec=colour, mew=line)


def cluster_colours(n: int) -> ListedColormap:
    """Grey for the cluster nearest to the sink, then light to dark with the distance."""
    ramp = mpl.colormaps["YlOrRd"](np.linspace(0.22, 0.92, n - 1))
    return ListedColormap(np.vstack([[0.78, 0.8, 0.82, 1.0], ramp]))


def _legend(figure: Figure, colours: ListedColormap, height: float) -> None:
    names = ["cluster 0 (nearest to the sink)", *map(str, range(1, colours.N))]
    figure.legend(
        handles=[Patch(color=colours(i), label=name) for i, name in enumerate(names)],
        loc="lower center",
        ncols=colours.N,
        frameon=False,
        bbox_to_anchor=(0.5, 0.24 / height),
        handlelength=1,
        columnspacing=1.2,
    )
    text = "Ring: the sink. Maps: dark is low, bright is high, scaled per image. "
    text += "Darkened: pooled or dropped."
    figure.text(0.5, 0.12 / height, text, ha="center", color=FAINT, size=8)


def _point(cell: CellResult) -> tuple[float, float]:
    record = cell.measured
    return record["gmacs_backbone"] + record["gmacs_method"], record["top1"]


def _guides(axes: Axes, cells: Sequence[CellResult], points: Sequence[tuple[float, float]]) -> None:
    """A dashed line at the accuracy of each dense baseline."""
    for cell, (_, top1) in zip(cells, points, strict=True):
        if cell.is_dense:
            axes.axhline(top1, color=FAINT, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)


def _draw_point(axes: Axes, cell: CellResult, point: tuple[float, float]) -> None:
    low, high = cell.measured["top1_interval"]
    errors = [[max(point[1] - low, 0)], [max(high - point[1], 0)]]
    kind, marker, colour, fill = _look(cell)
    axes.errorbar(
        *point,
        yerr=errors,
        fmt=marker,
        color=colour,
        ms=6,
        elinewidth=1,
        capsize=2.5,
        mfc=fill,
        zorder=3,
        label=kind,
    )


def _look(cell: CellResult) -> tuple[str, str, str, str]:
    """Kind of method, marker, colour, fill."""
    if cell.is_dense:
        return "dense", "D", INK, INK
    if cell.ours:
        return "our extension", "o", _ASAP, "white"
    if cell.method["name"] == "asap":
        return "ASAP and its ablations", "o", _ASAP, _ASAP
    return "other method", "s", _OTHER, _OTHER


def _kinds(axes: Axes) -> Legend:
    """A legend with every kind of method once."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    return axes.legend(list(once.values()), list(once), frameon=False, loc="best", fontsize=8)


def _texts(cells: Sequence[CellResult]) -> list[str]:
    """Labels of the points; with the backbone where there are several."""
    backbones = [cell.measured["backbone"] for cell in cells]
    if len(set(backbones)) == 1:
        return [cell.label for cell in cells]
    names = [paper_model(backbone) or backbone for backbone in backbones]
    return [f"{cell.label} ({name})" for cell, name in zip(cells, names, strict=True)]


def _bar(axes: Axes, cell: CellResult, point: tuple[float, float]) -> Bbox:
    """The error bar's box in pixels."""
    low, high = cell.measured["top1_interval"]
    (x, y0), (_, y1) = axes.transData.transform([(point[0], low), (point[0], high)])
    return Bbox.from_extents(x - 4, y0 - 2, x + 4, y1 + 2)


def save(figure: Figure, path: Path) -> list[Path]:
    """Write .svg and .png without a date or a version: equal input gives equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(suffix) for suffix in (".svg", ".png")]
    figure.savefig(written[0], metadata={"Date": None})
    figure.savefig(written[1], metadata={"Software": None})
    return written
