"""The same image after several methods at about equal MACs, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np

from asap.report.figures.style import FAINT, INK, RIGHT, WRONG, canvas, save, styled, variant
from asap.report.result import Result

_WIDTH = 22  # letters in a line of a title
WINDOW = 5.0  # points of MACs against dense that count as equal


@dataclass(frozen=True)
class Treated:
    """One method's result on an image. assignment (n_patches,) int: the final token of each patch,
    -1 = dropped; macs_pct: MACs of this image against dense in %, None without a dense one; right:
    of an answer in words; None: the prediction is right if it is the image's class.
    """

    label: str
    prediction: str
    macs_pct: float | None
    assignment: np.ndarray
    right: bool | None = None


@dataclass(frozen=True)
class SideBySide:
    """An image (H, W, 3) uint8, its class, its patch grid (down, across), each method's result.

    caption: above an image that has no class, such as a question about it.
    """

    image: np.ndarray
    label: str
    grid: tuple[int, int]
    treated: tuple[Treated, ...]
    caption: str = ""


def at_equal_macs(results: Sequence[Result], window: float = WINDOW) -> list[Result]:
    """The reducing rows whose mean MACs are within `window` percentage points of the first ASAP
    row's, without ablations, whose settings are another row's. Empty if fewer than two.
    """
    dense = next((r for r in results if r.is_dense and r.accuracy), None)
    if dense is None:
        return []
    rows = [r for r in results if r.accuracy and r.backbone == dense.backbone and not r.is_dense]
    rows = [r for r in rows if variant(r.method) not in ("no_accumulation", "random", "pca")]
    first = next((r for r in rows if r.method["name"] == "asap"), None)
    if first is None:
        return []
    points = [round(100 * abs(r.gmacs - first.gmacs) / dense.gmacs, 9) for r in rows]
    near = [r for r, off in zip(rows, points, strict=True) if off <= window]
    return near if len(near) > 1 else []


def at_equal_rows(results: Sequence[Result], window: float = 0.1) -> list[Result]:
    """Of rows that answer questions, those with about as many rows in the last layer of the
    language model as the first ASAP row with a budget: at most the share `window` off. Empty if
    fewer than two.
    """
    found = {r.label: about for r in results if (about := r.measured.get("questions"))}
    rows = [r for r in results if r.label in found and not r.is_dense]
    first = next((r for r in rows if r.method["options"].get("max_tokens") is not None), None)
    if first is None:
        return []
    wanted = found[first.label]["layer_rows"][-1]
    near = [r for r in rows if abs(found[r.label]["layer_rows"][-1] - wanted) <= window * wanted]
    return near if len(near) > 1 else []


def merged_view(image: np.ndarray, grid: tuple[int, int], assignment: np.ndarray) -> np.ndarray:
    """The image as the tokens represent it, (H, W, 3) uint8: patches that share a token have their
    mean colour, dropped ones are dark. H and W need not be multiples of the grid.
    """
    (down, across), (height, width) = grid, image.shape[:2]
    rows, columns = np.arange(height) * down // height, np.arange(width) * across // width
    token = np.asarray(assignment).reshape(down, across)[rows[:, None], columns[None, :]]
    seen = image.astype(np.float64)
    counts = np.bincount(assignment[assignment >= 0])
    for shared in np.flatnonzero(counts > 1):
        seen[token == shared] = seen[token == shared].mean(axis=0)
    seen[token < 0] = 0.18 * image.mean(axis=2)[token < 0][:, None]
    return seen.round().astype(np.uint8)


def draw_side_by_side(rows: Sequence[SideBySide], path: Path) -> list[Path]:
    """One row an image, one column a method; writes and returns .svg and .png. ValueError without
    a row.
    """
    if not rows:
        raise ValueError("rows=[]: expected at least one image to draw")
    titles = ["input", *(fill(t.label, _WIDTH) for t in rows[0].treated)]
    lines = max(title.count("\n") for title in titles)
    further = max(_asked(row).count("\n") for row in rows)  # lines above a picture but one
    top, between = 0.5 + 0.15 * (lines + further), 0.2 + 0.09 * further
    across, height = len(titles), (2.25 + 0.18 * further) * len(rows) + 0.25 + top
    with styled():
        figure = canvas(2.12 * across, height)
        figure.subplots_adjust(0.01, 0.34 / height, 0.99, 1 - top / height, 0.05, between)
        axes = figure.subplots(len(rows), across, squeeze=False)
        for line, row in zip(axes, rows, strict=True):
            _draw_row(line, row)
        for place, text in zip(axes[0], titles, strict=True):
            _above(place, text, 17 + 11 * further, INK, weight="bold")
        text = "Merged patches have their token's mean colour, dropped ones are dark."
        if any(one.macs_pct is not None for row in rows for one in row.treated):
            text += " Percentages: MACs against dense."
        figure.text(0.5, 0.09 / height, text, ha="center", color=FAINT, size=8)
        return save(figure, path)


def _asked(row: SideBySide) -> str:
    """What stands above an image: the question about it, and its class or the right answer."""
    said = [fill(row.caption, _WIDTH + 8)] if row.caption else []
    return "\n".join([*said, *([row.label] if row.label else [])])


def _draw_row(line, row: SideBySide) -> None:
    for axes in line:
        axes.set_axis_off()
    line[0].imshow(row.image)
    _above(line[0], _asked(row), 3, INK)
    for axes, one in zip(line[1:], row.treated, strict=True):
        axes.imshow(merged_view(row.image, row.grid, one.assignment))
        right = one.prediction == row.label if one.right is None else one.right
        colour = RIGHT if right else WRONG
        cost = "" if one.macs_pct is None else f" ({one.macs_pct:+.0f} %)"
        text = f"{one.prediction}{cost}"
        _above(axes, text, 3, colour if row.label else INK)


def _above(axes, text: str, points: int, colour: str, **style) -> None:
    axes.annotate(
        text, (0.5, 1), (0, points), "axes fraction", "offset points", ha="center", color=colour,
        size=8.5, **style,
    )  # fmt: skip
