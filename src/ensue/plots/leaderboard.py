"""The plot of a bench: scores with their intervals, and scores over the time of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ensue.plots.figure import log_axis, new_figure, plain, save

LEADERBOARD = "leaderboard"
COLOURS = {"best": "#c44e52", "tie": "#dd8452", "worse": "#4c72b0"}


def draw_leaderboard(rows: Sequence[tuple[str, dict[str, Any], float]], metric: str, folder: Path) -> list[Path]:
    """Draw `leaderboard.svg` and `leaderboard.png`.

    Args:
        rows: name, score (`mean`, `low`, `high`, `mark`) and seconds of training of each model, best first.
        metric: the name of the score.
        folder: where to write.
    """
    figure = new_figure(9.6, 1.5 + 0.32 * max(len(rows), 6))
    left, right = figure.subplots(1, 2)
    for place, (_, score, _) in enumerate(rows):
        colour = COLOURS[score["mark"]]
        left.plot([score["low"], score["high"]], [place, place], color=colour)
        left.plot([score["mean"]], [place], "o", color=colour)
    left.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    left.invert_yaxis()
    left.set_xlabel(f"{metric}, 95 % interval over users")
    for name, score, seconds in rows:
        right.plot([max(seconds, 0.01)], [score["mean"]], "o", color=COLOURS[score["mark"]])
        right.annotate(
            name,
            (max(seconds, 0.01), score["mean"]),
            (4, 3),
            textcoords="offset points",
            fontsize=7,
            annotation_clip=False,
        )
    right.set_xscale("log")
    log_axis(right.xaxis)
    right.set_xlabel("seconds of training")
    right.set_ylabel(metric)
    for axes in (left, right):
        plain(axes)
    return save(figure, folder, LEADERBOARD)
