"""Plots of what a run recorded, and of what is inside it. matplotlib is imported when something is drawn."""

from ensue.plots.curve import learning_curve
from ensue.plots.inspection import draw_inspection

__all__ = ["draw_inspection", "learning_curve"]
