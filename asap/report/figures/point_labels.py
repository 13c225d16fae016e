"""Labels beside points without overlap: each takes the first free position around its point."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

# In points, near ones first: right, above, below, left; further out there is a line to the point.
_OFFSETS = [
    (dx * scale, dy * scale)
    for scale in (1.0, 1.8, 2.8, 4.0, 5.5)
    for dx, dy in ((9, 0), (7, 9), (7, -9), (0, 12), (0, -12), (-9, 0), (-7, 9), (-7, -9))
]

_NEAR = 15  # points; a label further away gets a line to its point


def place_labels(
    axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], taken: Sequence[Bbox]
) -> None:
    """Annotate data `points` with `texts`, clear of the boxes `taken` (in pixels: error bars, say).

    If no position is free, the label takes the first one within the axes.
    """
    axes.figure.canvas.draw()
    pixels = axes.transData.transform(points)
    taken = [*taken, *(Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in pixels)]
    for point, text in zip(points, texts, strict=True):
        taken.append(_place(axes, point, text, taken))


def _place(axes: Axes, point: tuple[float, float], text: str, taken: Sequence[Bbox]) -> Bbox:
    note = axes.annotate(text, point, (0, 0), textcoords="offset points", va="center", zorder=5)
    note.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    free = (offset for offset in _OFFSETS if _is_free(axes, _moved(note, offset), taken))
    whole = (offset for offset in _OFFSETS if _is_free(axes, _moved(note, offset), []))
    offset = next(free, None) or next(whole, _OFFSETS[-1])
    box = _moved(note, offset)
    if offset[0] ** 2 + offset[1] ** 2 > _NEAR**2:
        line = {"arrowstyle": "-", "color": "#9aa5b1", "linewidth": 0.6, "shrinkB": 4}
        axes.annotate("", point, offset, textcoords="offset points", arrowprops=line)
    return box


def _moved(note: Annotation, offset: tuple[float, float]) -> Bbox:
    """Move the label to `offset` (in points); returns its box in pixels, with a margin."""
    note.set_position(offset)
    note.set_horizontalalignment(
        "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
    )
    return Bbox(note.get_window_extent().padded(2).get_points())


def _is_free(axes: Axes, box: Bbox, taken: Sequence[Bbox]) -> bool:
    frame = axes.get_window_extent()
    inside = all(frame.contains(x, y) for x, y in (box.min, box.max))
    return inside and not box.count_overlaps(taken)
