"""Figures of a few images of a run that need a forward pass: panels, comparisons, the walk."""

from asap.publish.pictures.draw import draw_pictures
from asap.publish.pictures.examples import examples_of
from asap.publish.pictures.panels import panel_of

__all__ = ["draw_pictures", "examples_of", "panel_of"]
