"""`ensue data check`: the doctor's findings and the distribution of lengths.

Suffix: `U` users.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ensue.cli.doubts import settle
from ensue.cli.flags import Flag, flags_of, words_of
from ensue.cli.proposals import propose_store, propose_training
from ensue.cli.sources import Connect, Sql, query_of, source_words, store_folder
from ensue.errors import ConfigError, DataError
from ensue.terminal.output import Screen, bar, clean, table

if TYPE_CHECKING:
    import numpy as np

    from ensue.doctor.check import DoctorReport

STYLE = {"ok": "green", "warn": "yellow", "problem": "red"}
SPLIT_NAMES = {"seed": "split_seed"}


def flags() -> list[Flag]:
    """The flags of the split and, for a log that is not prepared, of its columns."""
    from ensue.data.interactions import Columns
    from ensue.data.split import SplitConfig

    return [*flags_of(SplitConfig, "Split", rename=SPLIT_NAMES), *flags_of(Columns, "Columns (of a log)")]


def run(
    screen: Screen,
    source: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE...", help="A store folder, or a log: files, a folder or a pattern."),
    ] = None,
    *,
    settings: dict[str, Any],
    sql: Sql = None,
    connect: Connect = None,
) -> dict[str, Any]:
    """Examine a log or a store: ids, duplicates, times, cold items, leakage, lengths, and whether order matters."""
    from ensue.data.behaviours import behaviours
    from ensue.data.interactions import Columns, read_interactions
    from ensue.data.sources import is_log, parts_of
    from ensue.data.split import SplitConfig, make_split
    from ensue.data.store import SequenceStore
    from ensue.doctor.check import check
    from ensue.doctor.rows import usual_minimum

    fields = {SPLIT_NAMES.get(name, name): name for name in SplitConfig.model_fields}
    split = SplitConfig.parse({fields[name]: value for name, value in settings.items() if name in fields})
    columns = {name: value for name, value in settings.items() if name in Columns.model_fields}
    query = query_of(source, sql, connect)
    source = source or []
    folder = store_folder(source) if source else None
    if folder is not None:
        if columns:
            raise ConfigError(f"{folder}: a store has no columns to name: omit {', '.join(columns)}")
        store = SequenceStore.open(folder)
        store.verify_once()
        report, lengths = check(store, split), store.lengths
    elif query is not None or len(source) > 1 or is_log(source[0]):
        parts = parts_of(source if query is None else query)
        log, columns = settle(screen, lambda given: read_interactions(parts, Columns.parse(given)), columns)
        kinds, least = behaviours(parts, Columns.parse(columns)), usual_minimum(log)
        report, lengths = check(log, split, kinds), log.frame.group_by("user").len()["len"].to_numpy()
    else:
        raise DataError(f"{source[0]}: no such file or folder")
    bins = _show(screen, report, lengths)
    if folder is None:
        words = [*source_words(source, query), *words_of(flags(), columns)]
        propose_store(screen, report, words, f"data/{_name_of(source[0] if source else 'log')}", kinds, least)
    elif report["training"].level == "ok":
        propose_training(screen, folder, make_split(store, split), words_of(flags(), settings))
    return {**report.as_dict(), "lengths": [{"events": label, "users": count} for label, count in bins]}


def _show(screen: Screen, report: DoctorReport, lengths: np.ndarray) -> list[tuple[str, int]]:
    """Print the findings and the distribution of lengths, which is returned."""
    rows = [
        (Text(finding.level, style=STYLE[finding.level]), finding.name, _both(finding.text, finding.advice))
        for finding in report.findings
    ]
    screen.show(table(("", "check", "result"), rows))
    bins = histogram(lengths)
    top = max(count for _, count in bins)
    screen.show(
        table(
            ("events", "users", ""),
            [(label, f"{count:,}", bar(count / top)) for label, count in bins],
            title="Lengths",
            right=("events", "users"),
        )
    )
    worst = report.level
    for level in ("problem", "warn"):
        names = [finding.name for finding in report.findings if finding.level == level]
        if names:
            screen.say(f"{level}: {', '.join(names)}", style=STYLE[level])
    if worst == "ok":
        screen.say("no warnings or problems", style=STYLE[worst])
    return bins


def _name_of(source: str) -> str:
    """A name for the store of a log: that of the file or the folder, up to the first dot or mark of a pattern."""
    return re.split(r"[.*?\[]", Path(source).name)[0] or "log"


def _both(text: str, advice: str) -> Text:
    return Text.assemble(clean(text), (f" {clean(advice)}" if advice else "", "dim"))


def histogram(lengths_U: np.ndarray) -> list[tuple[str, int]]:
    """Number of users by number of events (1, 2, 3-4, 5-9, 10-19, 20-49, 50-99 and so on): [(label, users)]."""
    import numpy as np

    edges = [1, 2, 3, 5, 10, 20, 50]
    while edges[-1] <= lengths_U.max(initial=1):
        # 50, 100, 200, 500 and so on: each is ten times the third before it.
        edges.append(10 * edges[-3])
    counts, _ = np.histogram(lengths_U, bins=[*edges, np.inf])
    labels = [str(low) if high == low + 1 else f"{low}-{high - 1}" for low, high in pairwise(edges)]
    shown = [(label, int(count)) for label, count in zip(labels, counts, strict=False)]
    while len(shown) > 1 and shown[-1][1] == 0:
        shown.pop()
    while len(shown) > 1 and shown[0][1] == 0:
        shown.pop(0)
    return shown
