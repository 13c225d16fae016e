"""A sheet of pictures on which two methods disagree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asap.errors import one_line
from asap.report.figures import FAINT, INK, RIGHT, STYLE, WRONG, save

_ACROSS = 4


@dataclass(frozen=True)
class Pair:
    """An image (H, W, 3) uint8, its label and the two predictions, as names of classes; or a
    question that was `asked` about it, its right answer and the two answers. right: whether each
    of the two is; an answer may be right in other words than the label.
    """

    image: np.ndarray
    label: str
    first: str
    second: str
    right: tuple[bool, bool]
    asked: str = ""


def pair_sheet(pairs: Sequence[Pair], names: tuple[str, str], path: Path) -> list[Path]:
    """Four pictures per row, each with its label and both predictions, correct ones green.

    Writes `path` with the suffixes .svg and .png and returns both. ValueError without a picture.
    """
    if not pairs:
        raise ValueError("pairs=[]: expected at least one image to draw")
    down = -(-len(pairs) // _ACROSS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * _ACROSS, 3.15 * down + 0.5), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(f"1: {names[0]}    2: {names[1]}", color=INK, size=9)
        axes = figure.subplots(down, _ACROSS, squeeze=False).ravel()
        for one in axes:
            one.set_axis_off()
        for one, pair in zip(axes, pairs, strict=False):
            _draw(one, pair)
        return save(figure, path)


def _draw(axes: Axes, pair: Pair) -> None:
    axes.imshow(pair.image)
    if pair.asked:
        axes.set_title(fill(pair.asked, 34), color=INK, size=8)
    judged = [FAINT, *(RIGHT if right else WRONG for right in pair.right)]
    lines = (("label", pair.label), ("1", pair.first), ("2", pair.second))
    for i, (name, told) in enumerate(lines):
        said = one_line(told)
        axes.annotate(
            f"{name}: {said if len(said) <= 26 else said[:25] + '…'}",
            (0.5, 0), (0, -10 - 11 * i), "axes fraction", "offset points", ha="center",
            color=judged[i], size=8,
        )  # fmt: skip
