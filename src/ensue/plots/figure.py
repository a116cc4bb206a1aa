"""Shared functions of all plots: figures without a display, and files whose bytes depend only on the data."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

from ensue.files import atomic_path

Layout = Literal["constrained", "compressed"]


def new_figure(width: float, height: float, layout: Layout = "constrained") -> Any:
    """Create a matplotlib figure without a window.

    Args:
        width: in inches.
        height: in inches.
        layout: `compressed` is for panels of a fixed aspect ratio.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def paths_of(folder: Path, name: str) -> list[Path]:
    """Return the files of a plot."""
    return [folder / f"{name}.svg", folder / f"{name}.png"]


def save(figure: Any, folder: Path, name: str) -> list[Path]:
    """Write `name.svg` and `name.png` into a folder, each whole or not at all, and return their paths."""
    import matplotlib as mpl

    paths = paths_of(folder, name)
    # No date, and SVG identifiers from a fixed salt, so that every run gives the same bytes.
    with mpl.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes; the user need not be warned.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for path in paths:
            form = path.suffix[1:]
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=form, metadata={"Date": None} if form == "svg" else None)
    return paths


def log_axis(axis: Any, factor: float = 1.0, mark: str = "") -> None:
    """Set ticks at 1, 2 and 5 times powers of ten, labelled with the number times `factor`, followed by `mark`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * factor:.10g}{mark}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(labelsize=8)


def plain(axes: Any) -> None:
    """Draw a light grid and remove the frame at the top and on the right."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
