"""Example images and clips as small pictures: the input, and maps of what a method did to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
import numpy as np

from asap.report.figures.image_panels import ImagePanel, cluster_colours, darkened, on_pixels

_OF_A_FRAME = ("stop_block", "sink", "tokens")


@dataclass(frozen=True)
class Example:
    """One image or clip.

    pictures: name -> (H, W, 3) uint8, of a clip (frames, H, W, 3); sink: patch index, -1 = none;
    stop_block: from 1, 0 = never reduced; tokens: how many leave the last block; of a clip each a
    text with the values of its frames.
    """

    pictures: dict[str, np.ndarray]
    label: str
    prediction: str
    stop_block: int | str
    sink: int | str
    tokens: int | str


def example_of(panel: ImagePanel) -> Example:
    """The pictures of a panel; of an image that was never reduced only the input."""
    pictures = {"input": panel.image}
    if panel.stop_block:
        colours = cluster_colours(max(2, int(panel.cluster.max()) + 1))
        pictures |= {
            "sink": _heat(panel, panel.mass, "magma"),
            "distance": _heat(panel, panel.distance, "viridis"),
            "clusters": _bytes(colours(on_pixels(panel.cluster, panel))),
            "kept tokens": darkened(panel),
        }
    return Example(
        pictures, panel.label, panel.prediction, panel.stop_block, panel.sink, panel.tokens
    )


def example_of_clip(frames: Sequence[Example]) -> Example:
    """One example of the examples of a clip's frames; of a frame without a map it has the input."""
    names = dict.fromkeys(name for frame in frames for name in frame.pictures)
    stacked = {k: np.stack([f.pictures.get(k, f.pictures["input"]) for f in frames]) for k in names}
    told = {k: " ".join(str(getattr(f, k)) for f in frames) for k in _OF_A_FRAME}
    return replace(frames[0], pictures=stacked, **told)


def _heat(panel: ImagePanel, values: np.ndarray, colours: str) -> np.ndarray:
    """A map over the patches, dark is low; the colour scale leaves the sink's value out."""
    others = np.delete(values, panel.sink) if panel.sink >= 0 else values
    low, high = float(others.min()), float(others.max())
    scaled = np.clip((values - low) / (high - low or 1.0), 0, 1)
    return _bytes(mpl.colormaps[colours](on_pixels(scaled, panel)))


def _bytes(rgba: np.ndarray) -> np.ndarray:
    return (255 * rgba[..., :3]).round().astype(np.uint8)
