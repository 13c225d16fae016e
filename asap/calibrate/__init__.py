"""Operating points: which setting of a method meets a MACs budget, found on calibration images."""

from asap.calibrate.search import Calibrated, at_budget, calibrate

__all__ = ["Calibrated", "at_budget", "calibrate"]
