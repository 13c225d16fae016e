"""What ASAP did to pictures: input, sink, distances, clusters, kept tokens (Figures 3, 10-14)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from asap.report.figures.style import FAINT, INK, RIGHT, WRONG, canvas, save, styled

_WIDE = 1.7  # of the column of notes, in panels
Note = tuple[str, str]  # a line of text and its colour
_COLUMNS = ("input", "CLS row of the walk", "distance to {}", "clusters", "kept tokens")


@dataclass(frozen=True)
class ImagePanel:
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


def scene_panels(panels: Sequence[ImagePanel], path: Path, anchor: str = "the sink") -> list[Path]:
    """One row an image: input, map of the sink, distance to it, clusters, kept tokens.

    An image that never stopped shows its input and the words "never reduced". Writes `path` with
    the suffixes .svg and .png and returns both. `anchor`: how the patch that distances are measured
    to is called in titles. ValueError without a panel.
    """
    return save(scene_figure(panels, colours_of(panels), anchor), path)


def scene_figure(
    panels: Sequence[ImagePanel],
    colours: ListedColormap,
    anchor: str = "the sink",
    notes: Sequence[Sequence[Note]] = (),
) -> Figure:
    """The figure of `scene_panels`. notes: lines of text beside each panel, in a further column."""
    if not panels:
        raise ValueError("panels=[]: expected at least one image to draw")
    with styled():
        height, wide = 2.32 * len(panels) + 1.0, [_WIDE] if notes else []
        figure = canvas(10.6 + 2.1 * sum(wide), height)
        figure.subplots_adjust(0.012, 0.62 / height, 0.988, 1 - 0.52 / height, 0.05, 0.19)
        columns = len(_COLUMNS) + len(wide)
        ratios = [*(1.0 for _ in _COLUMNS), *wide]
        axes = figure.subplots(len(panels), columns, squeeze=False, width_ratios=ratios)
        for row, panel in zip(axes, panels, strict=True):
            _draw_row(list(row[: len(_COLUMNS)]), panel, colours)
        for row, lines in zip(axes, notes, strict=False):
            _write(row[-1], lines)
        axes = axes[:, : len(_COLUMNS)]
        for column, title in zip(axes[0], _COLUMNS, strict=True):
            above(column, title.format(anchor), 19, weight="bold", color=INK)
        _legend(figure, colours, height, anchor)
    return figure


def colours_of(panels: Sequence[ImagePanel]) -> ListedColormap:
    """Colours for all clusters that there are in the panels."""
    highest = max((int(p.cluster.max()) for p in panels if p.stop_block), default=1)
    return cluster_colours(max(2, highest + 1))


def _draw_row(row: Sequence[Axes], panel: ImagePanel, colours: ListedColormap) -> None:
    for axes in row:
        axes.set_axis_off()
    colour, verdict = verdict_of(panel.label, panel.prediction)
    row[0].imshow(panel.image)
    above(row[0], verdict, 4, color=colour)
    if panel.stop_block == 0:  # halfway between the second column and the last
        row[2].text(1.025, 0.5, "never reduced", ha="center", va="center", color=FAINT, size=13)
        return
    heat(row[1], panel, panel.mass, "magma")
    heat(row[2], panel, panel.distance, "viridis", skip_sink=True)
    row[3].imshow(on_pixels(panel.cluster, panel), cmap=colours, vmin=-0.5, vmax=colours.N - 0.5)
    row[4].imshow(darkened(panel))
    for axes in row[1:]:
        mark_sink(axes, panel)
    above(row[1], f"reduced in block {panel.stop_block}", 4, color=FAINT)
    kept = f"{int(panel.kept.sum())} of {panel.kept.size} patches, {panel.tokens} tokens"
    above(row[4], kept, 4, color=FAINT)


def _write(axes: Axes, lines: Sequence[Note]) -> None:
    """Lines of text from the top of the axes down, as close as they must be to fit."""
    axes.set_axis_off()
    step = min(0.075, 1 / max(len(lines), 1))
    for i, (text, colour) in enumerate(lines):
        axes.text(0.02, 1 - (i + 0.5) * step, text, color=colour, size=7.5, va="center")


def verdict_of(label: str, prediction: str) -> tuple[str, str]:
    """Colour and text of a prediction; neutral for a picture without a label."""
    if not label:
        return INK, f"predicted {prediction}" if prediction else ""
    return RIGHT if label == prediction else WRONG, f"{label}, predicted {prediction}"


def above(axes: Axes, text: str, points: int, **style: Any) -> None:
    axes.annotate(
        text, (0.5, 1), (0, points), "axes fraction", "offset points", ha="center", **style
    )


def heat(
    axes: Axes, panel: ImagePanel, values: np.ndarray, colours: str, skip_sink: bool = False
) -> None:
    """A map over the patches on top of a grey copy of the image.

    skip_sink: scale the colours to the other patches. The sink's own distance is 0, far below all
    others, which would otherwise have nearly one colour.
    """
    axes.imshow(panel.image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    others = np.delete(values, panel.sink) if skip_sink else values
    low, high = float(others.min()), float(others.max())
    axes.imshow(on_pixels(values, panel), cmap=colours, alpha=0.78, vmin=low, vmax=high)


def on_pixels(values: np.ndarray, panel: ImagePanel) -> np.ndarray:
    """Values per patch (n_patches,) as values per pixel (H, W); H and W may be any size."""
    (down, across), (height, width) = panel.grid, panel.image.shape[:2]
    rows, columns = np.arange(height) * down // height, np.arange(width) * across // width
    return np.asarray(values).reshape(down, across)[rows[:, None], columns[None, :]]


def darkened(panel: ImagePanel) -> np.ndarray:
    kept = on_pixels(panel.kept, panel)[..., None]
    grey = panel.image.mean(axis=2, keepdims=True)
    return np.where(kept, panel.image, 0.25 * grey).astype(np.uint8)


def mark_sink(axes: Axes, panel: ImagePanel) -> None:
    if panel.sink < 0:
        return
    (down, across), (height, width) = panel.grid, panel.image.shape[:2]
    y, x = divmod(panel.sink, across)
    centre = ((x + 0.5) * width / across - 0.5, (y + 0.5) * height / down - 0.5)
    for colour, line in (("black", 3.2), ("white", 1.6)):
        axes.plot(*centre, "o", ms=9, mfc="none", mec=colour, mew=line)


def cluster_colours(n: int) -> ListedColormap:
    """Colours of n clusters: grey for the nearest to the sink, then light to dark by distance."""
    ramp = mpl.colormaps["YlOrRd"](np.linspace(0.22, 0.92, n - 1))
    return ListedColormap(np.vstack([[0.78, 0.8, 0.82, 1.0], ramp]))


def _legend(figure: Figure, colours: ListedColormap, height: float, anchor: str) -> None:
    names = [f"cluster 0 (nearest to {anchor})", *map(str, range(1, colours.N))]
    figure.legend(
        handles=[Patch(color=colours(i), label=name) for i, name in enumerate(names)],
        loc="lower center",
        ncols=colours.N,
        frameon=False,
        bbox_to_anchor=(0.5, 0.24 / height),
        handlelength=1,
        columnspacing=1.2,
    )
    text = f"Ring: {anchor}. Maps: dark is low, bright is high, scaled per image. "
    text += "Darkened: pooled or dropped."
    figure.text(0.5, 0.12 / height, text, ha="center", color=FAINT, size=8)
