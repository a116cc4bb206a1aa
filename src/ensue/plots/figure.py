"""What all pictures share: a figure without a display, and files with the same bytes for the same run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

from ensue.files import atomic_path

Layout = Literal["constrained", "compressed"]


def new_figure(width: float, height: float, layout: Layout = "constrained") -> Any:
    """A matplotlib figure of a size in inches, without a window; `compressed` is for panels of a fixed shape."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def paths_of(folder: Path, name: str) -> list[Path]:
    """The files of a picture."""
    return [folder / f"{name}.svg", folder / f"{name}.png"]


def save(figure: Any, folder: Path, name: str) -> list[Path]:
    """Write `name.svg` and `name.png` into a folder, each whole or not at all; gives their paths."""
    import matplotlib as mpl

    paths = paths_of(folder, name)
    # The same run gives the same bytes: no date, and names in the SVG from a fixed salt.
    with mpl.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # A title in a script that the font lacks is drawn as boxes; that is no concern of the caller's.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for path in paths:
            form = path.suffix[1:]
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=form, metadata={"Date": None} if form == "svg" else None)
    return paths


def log_axis(axis: Any, factor: float = 1.0, mark: str = "") -> None:
    """Ticks at 1, 2 and 5 times powers of ten, as plain numbers times `factor` with `mark` after them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * factor:.10g}{mark}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(labelsize=8)


def plain(axes: Any) -> None:
    """A light grid, and no frame above and right."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
