"""Figures: `charts` from records alone, panels from traces. A function gives each figure's numbers,
another draws them; equal numbers give equal bytes.
"""

from asap.report.figures.charts import Chart, charts
from asap.report.figures.image_panels import ImagePanel, scene_panels
from asap.report.figures.style import FAINT, INK, RIGHT, STYLE, WRONG, save, svg

__all__ = ["FAINT", "INK", "RIGHT", "STYLE", "WRONG", "Chart", "ImagePanel", "charts", "save",
           "scene_panels", "svg"]  # fmt: skip
