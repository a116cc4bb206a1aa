"""Charts as SVG whose colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 340, 170, 44, 22, 8, 8
COLOURS = 6


@dataclass(frozen=True)
class Line:
    """A line of a chart; `low` and `high` bound its band, or are empty."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def line_chart(lines: Sequence[Line], label: str, ticks: Sequence[tuple[float, str]]) -> str:
    """Lines over one axis.

    Args:
        lines: one for each run, in the runs' order; an empty one keeps its colour.
        label: what the chart shows, for people who do not see it.
        ticks: position and label of marks of the horizontal axis.
    """
    filled = [line for line in lines if len(line.x)]
    x = [value for line in filled for value in line.x]
    y = [value for line in filled for value in (*line.y, *line.low, *line.high)]
    left, right, steps = min(x), max(x), _steps(min(y), max(y))
    bottom, top = steps[0], steps[-1]

    def at(a: float, b: float) -> str:
        across = LEFT + (a - left) / ((right - left) or 1) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (b - bottom) / ((top - bottom) or 1) * (HEIGHT - BOTTOM - TOP)
        return f"{across:.1f},{down:.1f}"

    marks = []
    for step in steps:
        height = at(left, step).partition(",")[2]
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height}" y2="{height}"/>')
        marks.append(f'<text class="y" x="{LEFT - 4}" y="{height}" dy="3">{step:.4g}</text>')
    for place, (value, text) in enumerate(ticks):
        side = "start" if place == 0 else "end" if place == len(ticks) - 1 else "middle"
        across = at(value, bottom).partition(",")[0]
        marks.append(f'<text class="{side}" x="{across}" y="{HEIGHT - 6}">{escape(text)}</text>')
    for number, line in enumerate(lines):
        if not len(line.x):
            continue
        colour = f"c{number % COLOURS}"
        if len(line.low):
            edge = [at(a, b) for a, b in zip(line.x, line.high, strict=True)]
            back = [at(a, b) for a, b in zip(line.x, line.low, strict=True)][::-1]
            marks.append(f'<polygon class="band {colour}" points="{" ".join([*edge, *back])}"/>')
        points = [at(a, b) for a, b in zip(line.x, line.y, strict=True)]
        marks.append(f'<polyline class="{colour}" points="{" ".join(points)}"/>')
        marks += [
            f'<circle class="{colour}" cx="{across}" cy="{down}" r="1.8"/>'
            for across, down in (point.split(",") for point in points[: 60 if len(points) <= 60 else 0])
        ]
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(marks)}</svg>"
    )


def bar(share: float, number: int) -> str:
    """A bar of a share of the width, in a run's colour."""
    width = 100 * max(0.0, min(1.0, share))
    return (
        f'<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="c{number % COLOURS}" width="{width:.1f}" height="4"/></svg>'
    )


def _steps(low: float, high: float) -> list[float]:
    """Three to six round values that span a range."""
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * factor for factor in (1, 2, 5, 10) if span / (size * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]
