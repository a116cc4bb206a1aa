"""Plots of a search: its trials on parallel axes, and the importance of each setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensue.plots.figure import new_figure, plain, save

TRIALS, IMPORTANCE = "trials", "importance"


def draw_trials(rows: Sequence[tuple[Mapping[str, Any], float]], metric: str, folder: Path) -> list[Path]:
    """Draw each trial as a line over one axis per setting and one for the metric; lighter is better.

    Args:
        rows: settings and value of each trial.
        metric: the name of the last axis.
        folder: where `trials.svg` and `trials.png` are written.

    Returns:
        The files; none for fewer than two trials.
    """
    if len(rows) < 2:
        return []
    from matplotlib import colormaps

    names = [*rows[0][0], metric]
    columns = [[settings[name] for settings, _ in rows] for name in rows[0][0]] + [[value for _, value in rows]]
    places = [_scaled(column) for column in columns]
    figure = new_figure(max(6.0, 1.6 * len(names)), 4.2)
    axes = figure.add_subplot()
    for row in sorted(range(len(rows)), key=lambda number: rows[number][1]):
        line = [heights[row] for heights, _ in places]
        axes.plot(range(len(names)), line, color=colormaps["viridis"](places[-1][0][row]), alpha=0.8, linewidth=1.4)
    for number, (_, labels) in enumerate(places):
        axes.axvline(number, color="0.5", linewidth=0.8)
        for height, text in labels:
            axes.annotate(text, (number, height), fontsize=7, xytext=(3, 0), textcoords="offset points", va="center")
    axes.set_xticks(range(len(names)), names, rotation=20)
    axes.set_yticks([])
    axes.set_ylim(-0.05, 1.05)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return save(figure, folder, TRIALS)


def _scaled(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1, and labels with their heights; positive numbers of wide range on a logarithmic scale."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        names = sorted({str(value) for value in values})
        at = {name: number / max(1, len(names) - 1) for number, name in enumerate(names)}
        return [at[str(value)] for value in values], [(height, name) for name, height in at.items()]
    numbers = np.array(values, float)
    low, high = float(numbers.min()), float(numbers.max())
    if high <= low:
        return [0.5] * len(values), [(0.5, f"{low:.4g}")]
    if low > 0 and high / low >= 10:
        heights = np.log(numbers / low) / np.log(high / low)
    else:
        heights = (numbers - low) / (high - low)
    return heights.tolist(), [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")]


def draw_importance(shares: Mapping[str, float], folder: Path) -> list[Path]:
    """Draw the importance of each setting as a bar; nothing without any.

    Args:
        shares: setting -> share of the variance that it explains.
        folder: where `importance.svg` and `importance.png` are written.
    """
    if not shares:
        return []
    names = sorted(shares, key=lambda name: shares[name])
    figure = new_figure(6.4, 1.0 + 0.35 * len(names))
    axes = figure.add_subplot()
    axes.barh(names, [shares[name] for name in names], color="#4c72b0")
    axes.set_xlabel("share of the variance of the values on validation")
    plain(axes)
    return save(figure, folder, IMPORTANCE)
