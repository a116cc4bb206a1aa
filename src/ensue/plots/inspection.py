"""All plots of an inspection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ensue.plots.attention import draw_ages, draw_intervals, draw_maps
from ensue.plots.residuals import draw_gains, draw_gates, draw_mixing, draw_norms, draw_streams

if TYPE_CHECKING:
    from ensue.introspect import Inspection


def draw_inspection(inspection: Inspection, folder: Path) -> list[Path]:
    """Draw the plots that apply to the model, each as SVG and PNG.

    Args:
        inspection: the measurements.
        folder: the folder to write to; created if missing.

    Returns:
        The files.
    """
    gains = inspection.gains
    paths = draw_norms(gains, folder)
    if gains.composite is not None:
        paths += draw_mixing(gains, folder) + draw_gains(gains, folder) + draw_streams(gains, folder)
    if gains.sublayers[0].gate is not None:
        paths += draw_gates(gains, folder)
    paths += draw_ages(inspection.attention, folder) + draw_maps(inspection.example, folder)
    if inspection.time is not None:
        paths += draw_intervals(inspection.time, folder)
    return paths
