"""From what is written on the command line to data: a store folder, a log file, the data of a run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensue.errors import DataError
from ensue.terminal.output import Screen, clean, table

if TYPE_CHECKING:
    from rich.table import Table

    from ensue.data.store import SequenceStore
    from ensue.runs.run import Run


def open_data(path: Path, screen: Screen) -> SequenceStore:
    """A store folder, or a log file prepared in memory with the usual settings (and that is said).

    Raises:
        DataError: there is nothing at `path`, or the log cannot be read.
        ArtefactError: the folder is not a store.
    """
    from ensue.data.moments import day
    from ensue.data.prepare import prepare
    from ensue.data.replacing import recover
    from ensue.data.store import SequenceStore
    from ensue.data.table import UnclearLogError

    if not path.exists():
        recover(path)
    if path.is_dir():
        return SequenceStore.open(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; a store (see ensue prepare) or a log is due")
    try:
        store, report = prepare(path)
    except UnclearLogError as error:
        # The command at hand has no flags for columns.
        command = f"ensue prepare {shlex.quote(str(path))} {error.flags} --out STORE"
        raise DataError(f"{error}; prepare it first: {command}") from None
    dropped = sum(report.dropped.values())
    span = "" if store.times is None else f"; {day(store.times.min())} to {day(store.times.max())}"
    screen.say(
        f"{path} is a log: prepared in memory with the usual settings ({report.interactions:,} of {report.rows_in:,} "
        f"rows kept, {dropped:,} dropped; {report.users:,} users, {report.items:,} items{span})",
        style="dim",
    )
    return store


def data_of_run(folder: Path, run: Run, data: Path | None, screen: Screen) -> SequenceStore:
    """The data named on the command line, else the store that the run was trained on.

    Raises:
        DataError: the run names no store, or it is gone.
    """
    from ensue.data.replacing import recover

    if data is not None:
        return open_data(data, screen)
    if run.store is None:
        raise DataError(f"{folder}: was trained on data in memory, so it names no store; give it with --data")
    if not run.store.is_dir():
        recover(run.store)
    if not run.store.is_dir():
        raise DataError(f"{folder}: was trained on the store {run.store}, which is gone; give it with --data")
    return open_data(run.store, screen)


def report_table(report: dict[str, Any]) -> Table:
    """What a preparation kept and dropped, as a table that adds up."""
    rows: list[tuple[str, str]] = [("read as", clean(report["shape"]))] if report.get("shape") else []
    rows.append(("rows in", f"{report['rows_in']:,}"))
    rows += [(f"  dropped: {reason}", f"-{count:,}") for reason, count in report["dropped"].items()]
    rows += [("interactions kept", f"{report['interactions']:,}")]
    rows += [("users", f"{report['users']:,}"), ("items", f"{report['items']:,}")]
    if report["items_described"] is not None:
        rows.append(("items described", f"{report['items_described']:,}"))
    tied = report["tie_share"]
    rows.append(("share of ties in time", "no times" if tied is None else f"{tied:.1%}"))
    if report["time_unit"] is not None:
        rows.append(("times", f"{report['time_unit']}, {report['time_zone']}; events of one user oldest first"))
        rows += [("first event", report["first"]), ("last event", report["last"])]
    columns = ", ".join(f"{meaning} = {clean(column)}" for meaning, column in report["columns"].items())
    rows.append(("columns", columns))
    return table(("log", ""), rows)
