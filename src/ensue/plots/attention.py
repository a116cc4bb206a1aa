"""Plots of attention: by age, over one history, and by interval.

Suffixes: `L` blocks, `H` heads, `R` buckets of intervals.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensue.plots.figure import log_axis, new_figure, plain, save

if TYPE_CHECKING:
    from ensue.introspect import AttentionReport, Example, TimeReport

GREY = "#8c8c8c"
PANELS = 8
COLUMNS = 4
MAP_BLOCKS, MAP_HEADS = 4, 4
TITLE_LETTERS = 30
# Neighbouring ages and buckets are pooled into points that are this factor apart, since single ones are too noisy.
POOL = 1.25
TICKS = (
    (60, "1 min"),
    (3_600, "1 h"),
    (86_400, "1 day"),
    (7 * 86_400, "1 wk"),
    (30 * 86_400, "1 mo"),
    (365 * 86_400, "1 yr"),
    (3650 * 86_400, "10 yr"),
)


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` of the numbers 0..count - 1, evenly spaced, including both ends.

    >>> spread(16, 4)
    [0, 5, 10, 15]
    """
    if count <= most:
        return list(range(count))
    return sorted({round(place * (count - 1) / max(1, most - 1)) for place in range(most)})


def pools(places: np.ndarray) -> list[slice]:
    """Cut increasing values into runs of values within a factor of POOL; the last value is a separate run.

    >>> pools(np.array([1, 2, 3, 10, 11, 12]))
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None), slice(3, 5, None), slice(5, 6, None)]
    """
    runs, first = [], 0
    for place in range(1, len(places)):
        if places[place] > places[first] * POOL or place == len(places) - 1:
            runs.append(slice(first, place))
            first = place
    return [*runs, slice(first, len(places))]


def draw_ages(report: AttentionReport, folder: Path) -> list[Path]:
    """Draw `attention_ages`: the mean attention of the newest event by the age of the key, one panel per block."""
    figure, panels = _panels(len(report.share))
    events = np.arange(1, len(report.uniform) + 1)
    runs = pools(events)
    x = [float(np.sqrt(events[run][0] * events[run][-1])) for run in runs]
    for (block, axes), first in panels:
        for head, share in enumerate(report.share[block], start=1):
            axes.plot(x, [np.mean(share[run]) for run in runs], linewidth=1.2, label=f"head {head}")
        uniform = [np.mean(report.uniform[run]) for run in runs]
        axes.plot(x, uniform, color=GREY, linestyle="--", linewidth=1, label="uniform attention")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(1e-5, axes.get_ylim()[0]))
        log_axis(axes.xaxis)
        log_axis(axes.yaxis, 100, "%")
        axes.set_xlabel("events back (1: the newest event)", fontsize=8)
        axes.set_title(f"block {block + 1}", fontsize=9, loc="left")
        plain(axes)
        if first:
            axes.set_ylabel("attention per event, mean over histories", fontsize=8)
            axes.legend(frameon=False, fontsize=7)
    figure.suptitle("attention of the newest event, by age of the key", fontsize=10)
    return save(figure, folder, "attention_ages")


def draw_maps(example: Example, folder: Path) -> list[Path]:
    """Draw `attention_maps`: one history's attention, with a row per block, a column per head, and item titles."""
    from matplotlib.colors import PowerNorm

    blocks = spread(len(example.maps), MAP_BLOCKS)
    heads = spread(len(example.maps[0]), MAP_HEADS)
    size = len(example.items)
    panel = max(2.2, 0.16 * size)
    names = [_name(title or item) for item, title in zip(example.items, example.titles, strict=True)]
    letters = max(len(name) for name in names)
    figure = new_figure(
        (panel + 0.3) * len(heads) + 0.075 * letters + 1.4, (panel + 0.35) * len(blocks) + 1.0, "compressed"
    )
    grid = figure.subplots(len(blocks), len(heads), squeeze=False)
    future = np.triu(np.ones((size, size), dtype=bool), 1)
    image = None
    for row, block in enumerate(blocks):
        for column, head in enumerate(heads):
            axes = grid[row, column]
            weights = np.ma.masked_array(example.maps[block][head].numpy(), future)
            # Most weights are below 1/T; a square-root scale shows them.
            image = axes.imshow(weights, cmap="magma_r", norm=PowerNorm(0.5, vmin=0.0, vmax=1.0))
            axes.set_title(f"block {block + 1}, head {head + 1}", fontsize=8)
            axes.set_xticks([0, size - 1], ["oldest", "newest"] if size > 1 else ["", "newest"], fontsize=6)
            axes.set_yticks(range(size), names if column == 0 else [], fontsize=6)
    figure.colorbar(image, ax=grid, shrink=0.7, label="attention (square-root scale)")
    figure.suptitle(f"attention of each event (row) to itself and earlier events, user {example.user}", fontsize=10)
    return save(figure, folder, "attention_maps")


def draw_intervals(report: TimeReport, folder: Path) -> list[Path]:
    """Draw `intervals`: the term of each interval in the attention logit, and the attention on its events."""
    uniform = np.asarray(report.uniform)
    seen = np.flatnonzero(uniform > 0)
    edges, weight = np.asarray(report.edges), uniform[seen]
    starts = np.maximum(edges, 0.5 * edges[1])[seen]
    runs = pools(starts)
    x = np.array([starts[run][0] for run in runs])
    terms_LHR, shares_LR = np.asarray(report.term)[:, :, seen], np.asarray(report.share)[:, :, seen].mean(1)
    figure = new_figure(11.0, 4.2)
    left, right = figure.subplots(1, 2)
    shared = report.relation == "bias"
    for block in spread(len(terms_LHR), PANELS):
        for head, term in enumerate(terms_LHR[block], start=1):
            label = f"head {head}" if shared else f"block {block + 1}, head {head}"
            mean = [np.average(term[run], weights=weight[run]) for run in runs]
            left.plot(x, mean, marker="o", markersize=3, linewidth=1, label=label)
    left.set_ylabel("learned bias" if shared else "mean of q . R[r] / sqrt(d) over queries", fontsize=8)
    left.set_title("term of the interval in the attention logit", fontsize=10, loc="left")
    for block in spread(len(shares_LR), PANELS):
        gain = [shares_LR[block][run].sum() / weight[run].sum() for run in runs]
        right.plot(x, gain, marker="o", markersize=3, linewidth=1, label=f"block {block + 1}")
    right.axhline(1.0, color=GREY, linestyle="--", linewidth=1, label="uniform attention")
    right.set_yscale("log")
    log_axis(right.yaxis)
    right.set_ylabel("ratio to uniform attention, mean over heads", fontsize=8)
    right.set_title("attention of the newest event, by interval", fontsize=10, loc="left")
    for axes, lines in ((left, terms_LHR.shape[0] * terms_LHR.shape[1]), (right, len(shares_LR))):
        _interval_axis(axes, report.unit, x)
        if lines <= 2 * PANELS:
            axes.legend(frameon=False, fontsize=7, ncols=2)
    return save(figure, folder, "intervals")


def _interval_axis(axes: Any, unit: str, x: np.ndarray) -> None:
    axes.set_xscale("log")
    plain(axes)
    if unit == "seconds":
        ticks = [(second, label) for second, label in TICKS if x.min() <= second <= x.max()]
        axes.set_xticks([second for second, _ in ticks], [label for _, label in ticks], fontsize=8)
        axes.minorticks_off()
        of = ""
    else:
        log_axis(axes.xaxis)
        of = ", in smallest gaps of the history" if unit == "smallest gaps" else ", in events"
    axes.set_xlabel(f"interval, lower edge{of} (the last point has no upper edge)", fontsize=8)


def _panels(count: int) -> tuple[Any, list[tuple[tuple[int, Any], bool]]]:
    """Create a figure with one panel per drawn block: ((block, axes), whether it is the first)."""
    blocks = spread(count, PANELS)
    columns = min(COLUMNS, len(blocks))
    rows = -(-len(blocks) // columns)
    figure = new_figure(max(5.0, 3.2 * columns), 2.9 * rows + 0.5)
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    for axes in grid[len(blocks) :]:
        axes.set_visible(False)
    return figure, [((block, axes), place == 0) for place, (block, axes) in enumerate(zip(blocks, grid, strict=False))]


def _name(name: object) -> str:
    """Shorten a label, and escape dollar signs, which would start a formula."""
    text = str(name)
    text = text if len(text) <= TITLE_LETTERS else text[: TITLE_LETTERS - 1] + "…"
    return text.replace("$", r"\$")
