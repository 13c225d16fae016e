"""Figures that need a forward pass: panels, comparisons, the walk. Each a few images of a run."""

from asap.scenes.draw import draw_pictures
from asap.scenes.examples import examples_of
from asap.scenes.panels import panel_of

__all__ = ["draw_pictures", "examples_of", "panel_of"]
