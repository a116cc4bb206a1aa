"""The output of a command: tables and notes for people, or one JSON object for programs."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 110


class Screen:
    """The destination of a command's output.

    With `--json`, output for people is written to standard error, and one object to standard output at the end.

    Args:
        as_json: whether `--json` was given.
        words: words that every suggested command ends with.

    Attributes:
        status: the command's exit status, which it sets if a check that was asked for fails.
    """

    def __init__(self, as_json: bool = False, words: Sequence[str] = ()) -> None:
        self.as_json, self.words = as_json, words
        self.status = 0
        stream = sys.stderr if as_json else sys.stdout
        self.console = self._console(stream)
        # A pipe has no width; 80 columns would wrap titles.
        if not self.console.is_terminal:
            self.console = self._console(stream, PLAIN_WIDTH)

    @staticmethod
    def _console(stream: Any, width: int | None = None) -> Console:
        return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)

    @property
    def live(self) -> bool:
        """Whether a display can be redrawn in place."""
        return self.console.is_terminal

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked: standard input and standard error are a terminal, without `--json`."""
        return not self.as_json and all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line without wrapping it."""
        self.console.print(Text(clean(text), style=style), soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """Print anything that rich can draw."""
        self.console.print(what)

    def next(self, command: str, *words: object) -> None:
        """Print the command to try next; the last line of a command's output.

        Args:
            command: the beginning of the command, printed unchanged.
            words: the remaining words (paths, ids, values), which are quoted for a shell if needed.
        """
        line = " ".join((command, *(shlex.quote(str(word)) for word in (*words, *self.words))))
        self.say()
        self.console.print(Text.assemble(("next: ", "dim"), (clean(line), "bold")), soft_wrap=True)

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show a progress bar with the time left; yield a function to call with (number done, total number)."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.live) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    def emit(self, payload: dict[str, Any]) -> None:
        """With `--json`, print the object."""
        if self.as_json:
            print(json.dumps(payload, allow_nan=False, default=str), flush=True)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "", right: Sequence[str] = ()
) -> Table:
    """A plain table.

    Args:
        columns: headings.
        rows: cells; None is an empty cell, and a Text keeps its style.
        title: heading above the table.
        right: columns to align on the right, such as numbers.
    """
    drawn = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        drawn.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else clean("" if cell is None else str(cell)) for cell in row))
    return drawn


def clean(text: str) -> str:
    """Text from a log, without characters that control a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def bar(share: float, width: int = 24) -> str:
    """A bar of `share` (0..1) of the width."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def sparkline(values: Sequence[float], width: int = 32) -> str:
    """The newest values as small bars, scaled from their minimum to their maximum."""
    shown = list(values)[-width:]
    if not shown:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    return "".join("▁▂▃▄▅▆▇█"[round((value - low) / span * 7) if span else 3] for value in shown)


def duration(seconds: float) -> str:
    """75 -> `1:15`, 3700 -> `1:01:40`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
