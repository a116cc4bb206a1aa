"""The learning curve of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensue.plots.figure import new_figure, paths_of, save
from ensue.runs.log import Records, epochs_of

CURVE = "learning_curve"
VALIDATION = "validation "
LOSS_COLOUR, VALUE_COLOUR = "#4c72b0", "#c44e52"


def learning_curve(records: Records, folder: Path, replace: bool = True) -> list[Path]:
    """Draw the training loss and the validation metric over the epochs.

    Args:
        records: a run's log, as `ensue.runs.log` writes it.
        folder: the folder of `learning_curve.svg` and `learning_curve.png`.
        replace: whether to replace existing files; if not, draw only if a file is missing, as after a training that was
            killed at its very end.

    Returns:
        The files; none if no epoch was recorded or nothing was drawn.
    """
    epochs = epochs_of(records)
    if not epochs or not (replace or any(not path.is_file() for path in paths_of(folder, CURVE))):
        return []
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(7.2, 4.2)
    axes = figure.add_subplot()
    numbers = [record["epoch"] for record in epochs]
    axes.plot(
        numbers, [record["loss"] for record in epochs], color=LOSS_COLOUR, marker=_marker(len(epochs)), markersize=3
    )
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss", color=LOSS_COLOUR)
    axes.tick_params(axis="y", labelcolor=LOSS_COLOUR)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines["top"].set_visible(False)
    _draw_validation(axes, epochs)
    return save(figure, folder, CURVE)


def _draw_validation(axes: Any, epochs: list[dict[str, Any]]) -> None:
    """Draw the validation metric on its own axis, with the best epoch marked."""
    name = next((key for record in epochs for key in record if _is_metric(key)), None)
    if name is None:
        return
    points = [(record["epoch"], record[name]) for record in epochs if name in record]
    right = axes.twinx()
    right.plot(*zip(*points, strict=True), color=VALUE_COLOUR, marker=_marker(len(points)), markersize=3)
    best_epoch, best = max(points, key=lambda point: point[1])
    right.plot([best_epoch], [best], "o", color=VALUE_COLOUR, markersize=7, markerfacecolor="none")
    right.set_ylabel(name, color=VALUE_COLOUR)
    right.tick_params(axis="y", labelcolor=VALUE_COLOUR)
    right.spines["top"].set_visible(False)
    axes.set_title(f"best {name}: {best:.4f} at epoch {best_epoch}", fontsize=10, loc="left")


def _is_metric(key: str) -> bool:
    return key.startswith(VALIDATION) and key != "validation seconds"


def _marker(count: int) -> str:
    """The marker of each point; none if there are too many points to distinguish."""
    return "o" if count <= 60 else ""
