"""Plots of residual streams by depth.

Suffixes: `S` residual streams, `M` sublayers with mixing matrices.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensue.plots.figure import new_figure, plain, save

if TYPE_CHECKING:
    from ensue.introspect import GainReport, MixingReport

BLUE, RED, GREEN, GREY = "#4c72b0", "#c44e52", "#55a868", "#8c8c8c"
DEPTH = "sublayer (A attention, F feed-forward)"
# Maximum number of sublayers with individual labels, and of matrices with legible numbers.
LABELLED, NUMBERED = 16, 16
# Ratio of the largest to the smallest value above which the axis is logarithmic.
WIDE = 20.0


def draw_norms(report: GainReport, folder: Path) -> list[Path]:
    """Draw `norms`: of the incoming stream and the output of each sublayer, and of the final stream."""
    figure = new_figure(_width(report), 3.8)
    axes = figure.add_subplot()
    numbers = _numbers(report)
    stream = [entry.stream_norm for entry in report.sublayers]
    added = [entry.output_norm for entry in report.sublayers]
    several = report.composite is not None
    label = "incoming stream (mean of the streams' norms)" if several else "incoming stream"
    axes.plot([*numbers, len(numbers) + 1], [*stream, report.final_norm], color=BLUE, marker="o", label=label)
    for offset, name, colour in ((0, "attention adds", RED), (1, "feed-forward adds", GREEN)):
        axes.plot(numbers[offset::2], added[offset::2], color=colour, marker="s", markersize=4, label=name)
    _depth(axes, report, "end")
    _scale(axes, [*stream, *added, report.final_norm])
    axes.set_ylabel("Euclidean norm, mean over events")
    axes.set_title("residual stream by depth", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8)
    return save(figure, folder, "norms")


def draw_gates(report: GainReport, folder: Path) -> list[Path]:
    """Draw `gates`: the mean gate of each sublayer."""
    figure = new_figure(_width(report), 3.4)
    axes = figure.add_subplot()
    gates = [entry.gate or 0.0 for entry in report.sublayers]
    colours = [RED if entry.part == "attention" else GREEN for entry in report.sublayers]
    axes.bar(_numbers(report), gates, color=colours, width=0.7)
    axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_ylim(0, 1)
    _depth(axes, report)
    axes.set_ylabel("mean gate (0 closed, 1 open)")
    axes.set_title("share of each sublayer's output that the gate passes", fontsize=10, loc="left")
    return save(figure, folder, "gates")


def draw_mixing(report: GainReport, folder: Path) -> list[Path]:
    """Draw `mixing`: the mean H_res of every sublayer, attention above feed-forward."""
    mixings = _mixings(report)
    blocks = len(mixings) // 2
    columns = min(blocks, 8)
    bands = -(-blocks // columns)
    figure = new_figure(max(1.45 * columns + 0.9, 4.6), 3.1 * bands + 0.6, "compressed")
    low = min(min(map(min, entry.h_res)) for entry in mixings)
    high = max(1.0, *(max(map(max, entry.h_res)) for entry in mixings))
    signed = low < -1e-3
    limits = {"vmin": -high, "vmax": high, "cmap": "RdBu"} if signed else {"vmin": 0.0, "vmax": high, "cmap": "Blues"}
    grid = figure.subplots(2 * bands, columns, squeeze=False)
    image = None
    for place, axes in enumerate(grid.flat):
        band, part, column = place // (2 * columns), place // columns % 2, place % columns
        block = band * columns + column
        if block >= blocks:
            axes.set_visible(False)
            continue
        matrix = mixings[2 * block + part].h_res
        image = axes.imshow(matrix, **limits)
        axes.set_title(f"block {block + 1}, {'FA'[part == 0]}", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        if len(mixings) <= NUMBERED and len(matrix) <= 4:
            _write_numbers(axes, matrix, high)
    figure.colorbar(image, ax=grid, shrink=0.7, label="mean over events")
    figure.suptitle("H_res: stream after (row) from stream before (column)", fontsize=10)
    return save(figure, folder, "mixing")


def draw_gains(report: GainReport, folder: Path) -> list[Path]:
    """Draw `gains`: of each H_res, and of their product from the first sublayer on."""
    mixings = _mixings(report)
    figure = new_figure(2 * _width(report) - 1.5, 3.9)
    left, right = figure.subplots(1, 2)
    numbers = _numbers(report)
    for axes, gains in ((left, [entry.gain for entry in mixings]), (right, [entry.composite for entry in mixings])):
        lines = (
            ("forward", BLUE, [gain.forward for gain in gains], [gain.forward_max for gain in gains]),
            ("backward", RED, [gain.backward for gain in gains], [gain.backward_max for gain in gains]),
        )
        drawn: list[float] = []
        for name, colour, mean, peak in lines:
            axes.plot(numbers, mean, color=colour, marker="o", markersize=4, label=f"{name}, mean over events")
            axes.plot(numbers, peak, color=colour, linestyle=":", label=f"{name}, largest")
            drawn += mean + peak
        axes.axhline(1.0, color=GREY, linewidth=0.8, linestyle="--")
        _depth(axes, report)
        _scale(axes, drawn)
        _at_least(axes, 0.02)
        if axes.get_yscale() == "linear":
            axes.ticklabel_format(axis="y", useOffset=False)
    left.set_ylabel("largest absolute row (forward) or column (backward) sum", fontsize=8)
    left.set_title("gain of each H_res", fontsize=10, loc="left")
    right.set_title("composite gain: of the product up to the sublayer", fontsize=10, loc="left")
    left.legend(frameon=False, fontsize=7)
    return save(figure, folder, "gains")


def draw_streams(report: GainReport, folder: Path) -> list[Path]:
    """Draw `streams`: similarity and mixing by depth, and the weights of reading and writing."""
    mixings = _mixings(report)
    figure = new_figure(2 * _width(report) - 1.5, 6.2)
    grid = figure.subplots(2, 2)
    numbers = _numbers(report)
    similarity = [entry.similarity for entry in mixings]
    lines = (
        (grid[0, 0], similarity, "mean cosine of pairs", "similarity of the incoming streams"),
        (grid[0, 1], [entry.off_diagonal for entry in mixings], "share of absolute mass", "H_res off its diagonal"),
    )
    for axes, values, label, title in lines:
        axes.plot(numbers, values, color=BLUE, marker="o", markersize=4)
        _depth(axes, report)
        if min(values) > 0.9:
            _at_least(axes, 0.002)
            axes.ticklabel_format(axis="y", useOffset=False)
        else:
            axes.set_ylim(min(0.0, *values) - 0.02, 1.02)
        axes.set_ylabel(label)
        axes.set_title(title, fontsize=10, loc="left")
    for axes, weights_MS in (
        (grid[1, 0], [entry.h_pre for entry in mixings]),
        (grid[1, 1], [entry.h_post for entry in mixings]),
    ):
        for stream, weights in enumerate(zip(*weights_MS, strict=True), start=1):
            axes.plot(numbers, weights, marker="o", markersize=3, label=f"stream {stream}")
        _depth(axes, report)
        axes.set_ylabel("mean weight")
    grid[1, 0].set_title("H_pre: weight of each stream in the sublayer's input", fontsize=10, loc="left")
    grid[1, 1].set_title("H_post: weight of the sublayer's output in each stream", fontsize=10, loc="left")
    if len(mixings[0].h_pre) <= 8:
        grid[1, 0].legend(frameon=False, fontsize=7, ncols=2)
    return save(figure, folder, "streams")


def _mixings(report: GainReport) -> list[MixingReport]:
    return [entry.mixing for entry in report.sublayers if entry.mixing is not None]


def _numbers(report: GainReport) -> list[int]:
    return list(range(1, len(report.sublayers) + 1))


def _width(report: GainReport) -> float:
    return min(11.0, 4.6 + 0.22 * len(report.sublayers))


def _depth(axes: Any, report: GainReport, end: str = "") -> None:
    """Label the axis of sublayers: A1 F1 A2 F2 and so on, or block numbers if those do not fit."""
    numbers = _numbers(report)
    plain(axes)
    if len(numbers) <= LABELLED:
        labels = [f"{'F' if entry.part == 'feed-forward' else 'A'}{entry.block}" for entry in report.sublayers]
        ticks = [*numbers, len(numbers) + 1] if end else numbers
        axes.set_xticks(ticks, [*labels, end] if end else labels, fontsize=8)
        axes.set_xlabel(DEPTH, fontsize=8)
    else:
        step = max(2, len(numbers) // 16 * 2)
        axes.set_xticks(numbers[::step], [str(number // 2 + 1) for number in numbers[::step]], fontsize=8)
        axes.set_xlabel("block (attention, then feed-forward)", fontsize=8)


def _scale(axes: Any, values: list[float]) -> None:
    """Use a logarithmic axis if the values differ by more than a factor of WIDE."""
    if min(values) > 0 and max(values) / min(values) > WIDE:
        axes.set_yscale("log")


def _at_least(axes: Any, span: float) -> None:
    """Widen a short axis, so that rounding errors do not look like a signal."""
    low, high = axes.get_ylim()
    if high - low < span:
        middle = (low + high) / 2
        axes.set_ylim(middle - span / 2, middle + span / 2)


def _write_numbers(axes: Any, matrix: list[list[float]], high: float) -> None:
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            colour = "white" if abs(value) > 0.6 * high else "black"
            axes.text(column, row, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", fontsize=6, color=colour)
