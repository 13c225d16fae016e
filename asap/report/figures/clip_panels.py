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
        width, height = 1.25 * across + 0.5, (1.25 * len(_ROWS) + 0.45) * len(clips) + 0.3
        figure = canvas(width, height)
        blocks = figure.subfigures(len(clips), 1, squeeze=False)[:, 0]
        for block, clip in zip(blocks, clips, strict=True):
            block.subplots_adjust(0.4 / width, 0.03, 0.995, 0.9, 0.04, 0.06)
            axes = block.subplots(len(_ROWS), across, squeeze=False)
            for column, frame in zip(axes.T, clip, strict=False):
                _draw_frame(list(column), frame)
            for empty in axes[:, len(clip) :].flat:
                empty.set_axis_off()
            colour, verdict = verdict_of(clip[0].label, clip[0].prediction)
            block.suptitle(verdict, color=colour, size=9, y=0.985)
            for name, first in zip(_ROWS, axes[:, 0], strict=True):
                first.annotate(
                    name, (0, 0.5), (-4, 0), "axes fraction", "offset points",
                    rotation=90, ha="right", va="center", color=INK, size=7,
                )  # fmt: skip
        return save(figure, path)


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
