"""Plots of a run's log and of the inspection of its model. matplotlib is imported only when a plot is drawn."""

from ensue.plots.curve import learning_curve
from ensue.plots.inspection import draw_inspection

__all__ = ["draw_inspection", "learning_curve"]
