"""`ensue evaluate`: rank the held-out items of a run's data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ensue.cli.flags import Flag, flags_of
from ensue.cli.output import Screen, table
from ensue.cli.recommend import RunFolder
from ensue.cli.sources import data_of_run


def flags() -> list[Flag]:
    """The protocol's flags."""
    from ensue.evaluate import EvaluateConfig

    return flags_of(EvaluateConfig, "Protocol (by default the run's)", skip={"query_time"})


def run(
    screen: Screen,
    folder: RunFolder,
    settings: dict[str, Any],
    data: Annotated[Path | None, typer.Option("--data", help="Store or log; by default the run's.")] = None,
    part: Annotated[Literal["test", "validation"], typer.Option("--part", help="Which held-out events.")] = "test",
) -> dict[str, Any]:
    """Rank the held-out items; write metrics.json and the table of every user's rank."""
    from ensue.artefact import read_metrics
    from ensue.recommender import Recommender

    recommender = Recommender.load(folder)
    assert recommender.run is not None
    store = data_of_run(folder, recommender.run, data, screen)
    config = recommender.config.evaluate.replace(**settings)
    columns = (TextColumn("evaluate"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen.console, transient=True, disable=not screen.live) as progress:
        task = progress.add_task("evaluate", total=None)
        recommender.evaluate(
            store, part, config, folder, lambda done, total: progress.update(task, completed=done, total=total)
        )
    results = read_metrics(folder)
    entry: dict[str, Any] = results[f"{part}/{config.key}"]
    shown = [entry, *(other for other in results.values() if other["part"] == part and other is not entry)]
    screen.show(metrics_table(shown))
    if entry["targets_in_history"]:
        screen.say(f"{entry['targets_in_history']:,} targets are in their own history; the filter spares them", "dim")
    screen.say(f"written: {folder / 'metrics.json'}, {folder / entry['per_user']}")
    screen.next(f"ensue recommend {folder} --user {store.users.decode([1])[0]}")
    return {"run": str(folder), "model": recommender.config.model.name, **entry}


def metrics_table(entries: list[dict[str, Any]]) -> Table:
    """One row per metric, with its protocol; the figures of two protocols never share a row."""
    rows = [
        (entry["protocol"], name, f"{value:.4f}", f"{entry['cases']:,}")
        for entry in entries
        for name, value in entry["metrics"].items()
    ]
    drawn = table(
        ("protocol", "metric", "value", "cases"), rows, title=f"{entries[0]['part']} part", right=("value", "cases")
    )
    last = 0
    for entry in entries:
        last += len(entry["metrics"])
        drawn.rows[last - 1].end_section = True
    return drawn
