"""What ASAP did to clips: its maps frame by frame, still and as an animation (Figure 5)."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from asap.records.disk import write_bytes
from asap.report.figures.image_panels import (
    ImagePanel,
    colours_of,
    darkened,
    heat,
    mark_sink,
    scene_figure,
    verdict_of,
)
from asap.report.figures.style import FAINT, INK, canvas, save, styled

# One view of a clip, frame by frame; label and prediction of the frames are the clip's.
ClipPanel: TypeAlias = tuple[ImagePanel, ...]
MILLISECONDS = 500  # that an animation shows a frame
_ROWS = ("input", "CLS row of the walk", "distance to the sink", "kept tokens")


def frame_panels(clips: Sequence[ClipPanel], path: Path) -> list[Path]:
    """A block of rows for each clip: inputs, maps of the sink, distances to it, kept tokens; one
    column a frame.

    Writes `path` with the suffixes .svg and .png and returns both. ValueError without a clip.
    """
    if not clips:
        raise ValueError("clips=[]: expected at least one clip to draw")
    across = max(len(clip) for clip in clips)
    with styled():
        width = max(1.25 * across + 0.5, 6.5)  # inches
        block = 1.25 * len(_ROWS) + 0.35
        height = block * len(clips) + 0.3
        figure = canvas(width, height)
        for i, clip in enumerate(clips):
            top = 1 - i * block / height
            rows = figure.add_gridspec(
                len(_ROWS), across, left=0.4 / width, right=0.995, wspace=0.04, hspace=0.06,
                top=top - 0.28 / height, bottom=top - (block - 0.04) / height,
            ).subplots(squeeze=False)  # fmt: skip
            for column, frame in zip(rows.T, clip, strict=False):
                _draw_frame(list(column), frame)
            for empty in rows[:, len(clip) :].flat:
                empty.set_axis_off()
            _entitle(rows, clip[0])
        text = "Ring: the sink. Maps: dark is low, bright is high, scaled per frame. "
        text += "Darkened: pooled or dropped."
        figure.text(0.5, 0.1 / height, text, ha="center", color=FAINT, size=8)
        return save(figure, path)


def _entitle(rows: np.ndarray, first: ImagePanel) -> None:
    """Say what a clip shows above its first frame, and what the rows are beside them."""
    colour, verdict = verdict_of(first.label, first.prediction)
    rows[0, 0].annotate(
        verdict, (0, 1), (0, 5), "axes fraction", "offset points", color=colour, size=9
    )  # fmt: skip
    for name, axes in zip(_ROWS, rows[:, 0], strict=True):
        axes.annotate(
            name, (0, 0.5), (-4, 0), "axes fraction", "offset points",
            rotation=90, ha="right", va="center", color=INK, size=7,
        )  # fmt: skip


def _draw_frame(column: Sequence[Axes], frame: ImagePanel) -> None:
    for axes in column:
        axes.set_axis_off()
    column[0].imshow(frame.image)
    if frame.stop_block == 0:
        column[2].text(
            0.5, 0.5, "never\nreduced", ha="center", va="center", color=FAINT,
            transform=column[2].transAxes,
        )  # fmt: skip
        return
    heat(column[1], frame, frame.mass, "magma")
    heat(column[2], frame, frame.distance, "viridis", skip_sink=True)
    column[3].imshow(darkened(frame))
    for axes in column[1:]:
        mark_sink(axes, frame)


def clip_animation(clips: Sequence[ClipPanel], path: Path) -> list[Path]:
    """The panels of clips, frame after frame: one row a clip, as `scene_panels` draws images.

    Writes `path` with the suffixes .svg and .png, the first frames, and .webp, the animation, and
    returns all three. A shorter clip stays at its last frame. ValueError without a clip.
    """
    colours = colours_of([frame for clip in clips for frame in clip])
    moments = range(max((len(clip) for clip in clips), default=1))
    figures = [
        scene_figure([clip[min(moment, len(clip) - 1)] for clip in clips], colours)
        for moment in moments
    ]
    content = animated([_pixels(figure) for figure in figures], "WEBP", quality=80, method=4)
    write_bytes(path.with_suffix(".webp"), content)
    return [*save(figures[0], path), path.with_suffix(".webp")]


def _pixels(figure: Figure) -> np.ndarray:
    """The figure, (H, W, 3) uint8."""
    with styled():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def animated(frames: Sequence[np.ndarray], kind: str, **options: object) -> bytes:
    """Pictures (H, W, 3) uint8 as an endless animation; kind: WEBP or GIF."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    out = io.BytesIO()
    first.save(
        out, kind, save_all=True, append_images=others, duration=MILLISECONDS, loop=0, **options
    )
    return out.getvalue()
