"""Open the data named on the command line: a store folder, a log, or the data of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensue.cli.doubts import settle
from ensue.errors import ConfigError, DataError
from ensue.files import MANIFEST
from ensue.terminal.output import Screen, clean, table

Sql = Annotated[
    str | None, typer.Option("--sql", metavar="QUERY", help="Read the rows of this query from the database --connect.")
]
Connect = Annotated[
    str | None,
    typer.Option(
        "--connect",
        metavar="ADDRESS",
        help="A database: sqlite:///FILE, duckdb:///FILE or postgresql://USER@HOST/DATABASE (extra sql).",
    ),
]
# Settings of a preparation that define the events; newer logs are read with the same values.
_EVENTS = ("min_rating", "duplicates", "exact_duplicates")

if TYPE_CHECKING:
    from rich.table import Table

    from ensue.data.prepare import PrepareConfig, PrepareReport
    from ensue.data.queries import Query
    from ensue.data.store import SequenceStore
    from ensue.runs.run import Run


def store_folder(sources: Sequence[str | Path]) -> Path | None:
    """The folder of a store (or of something else that ensue wrote); None for a log."""
    from ensue.data.addresses import is_address
    from ensue.data.replacing import recover

    if len(sources) > 1 or is_address(str(sources[0])):
        return None
    path = Path(sources[0])
    if not path.exists():
        recover(path)
    return path if (path / MANIFEST).is_file() else None


def query_of(sources: Sequence[str] | None, sql: str | None, connect: str | None) -> Query | None:
    """The query of a command line; None if it names sources.

    Raises:
        ConfigError: it names neither or both, or a query without a database.
    """
    from ensue.data.queries import Query

    if sql is None and connect is None:
        if not sources:
            raise ConfigError("missing SOURCE: name a log (files, a folder, a pattern, -), or --sql and --connect")
        return None
    if sql is None or connect is None:
        raise ConfigError("--sql QUERY and --connect ADDRESS belong together: give both")
    if sources:
        raise ConfigError(f"give either a source ({sources[0]}) or a query (--sql)")
    return Query(sql, connect)


def source_words(sources: Sequence[str] | None, query: Query | None) -> list[str]:
    """The log as arguments of a further command, without a password."""
    from ensue.data.queries import without_secrets

    return [*(sources or ())] if query is None else ["--sql", query.shown, "--connect", without_secrets(query.address)]


def open_data(data: str | Path | Sequence[str], screen: Screen, like: Mapping[str, Any] | None = None) -> SequenceStore:
    """Open a store folder, or prepare a log in memory with a message.

    Args:
        data: a folder, a file, or several files of a log.
        screen: the screen for the message.
        like: how a store was made from a log of the same form: the log is read and its events are chosen with the same
            settings; by default with the usual settings.

    Raises:
        DataError: there is no such data, or the log cannot be read.
        ArtefactError: the folder is not a store.
    """
    from ensue.data.doubt import UnclearLogError
    from ensue.data.interactions import Columns
    from ensue.data.moments import day
    from ensue.data.prepare import prepare
    from ensue.data.sources import is_log, parts_of
    from ensue.data.store import SequenceStore
    from ensue.data.table import MissingColumnError

    sources = [data] if isinstance(data, str | Path) else list(data)
    folder = store_folder(sources)
    if folder is not None:
        return SequenceStore.open(folder)
    if len(sources) == 1 and not is_log(str(sources[0])):
        raise DataError(f"{sources[0]}: no such file or folder; give a store (see ensue prepare) or a log")
    log = parts_of(sources)
    how = "the usual settings"

    def use(settings: dict[str, Any], config: PrepareConfig | None = None) -> tuple[SequenceStore, PrepareReport]:
        return prepare(log, None, Columns.parse(settings), config)

    try:
        if like is None:
            (store, report), _ = settle(screen, use)
        else:
            try:
                (store, report), _ = settle(screen, lambda given: use(given, _events_of(like)), like["columns"])
                how = f"the settings of {like['source']}"
            except MissingColumnError as error:
                (store, report), _ = settle(screen, use)
                how += f", as it differs from {like['source']} ({error})"
    except UnclearLogError as error:
        # This command has no flags for columns.
        raise error.at(sources=tuple(map(str, sources))) from None
    dropped = sum(report.dropped.values())
    span = "" if store.times is None else f"; {day(store.times.min())} to {day(store.times.max())}"
    screen.say(
        f"{log.name} is a log: prepared in memory with {how} ({report.interactions:,} of {report.rows_in:,} "
        f"rows kept, {dropped:,} dropped; {report.users:,} users, {report.items:,} items{span})",
        style="dim",
    )
    return store


def _events_of(like: Mapping[str, Any]) -> PrepareConfig:
    """The settings of a preparation that define the events."""
    from ensue.data.prepare import PrepareConfig

    return PrepareConfig.parse({name: value for name, value in like["config"].items() if name in _EVENTS})


def data_words(data: Sequence[str] | None) -> list[str]:
    """The data as flags of a further command."""
    return [word for each in data or () for word in ("--data", each)]


def data_of_run(folder: Path, run: Run, data: list[str] | None, screen: Screen) -> SequenceStore:
    """The data named on the command line, or by default the store that the run was trained on.

    A log is read with the settings of the log that the run was trained on, or that its store was prepared from.

    Raises:
        DataError: the run names no store, or it is gone.
    """
    from ensue.data.replacing import recover
    from ensue.data.store import SequenceStore

    if run.store is not None and not run.store.is_dir():
        recover(run.store)
    own = run.store if run.store is not None and run.store.is_dir() else None
    if data:
        made = run.made if own is None else SequenceStore.open(own).made
        return open_data(data, screen, made if {"source", "columns", "config"} <= made.keys() else None)
    if run.store is None:
        raise DataError(f"{folder}: was trained on data in memory, so it names no store; give the data with --data")
    if own is None:
        raise DataError(
            f"{folder}: was trained on the store {run.store}, which no longer exists; give the data with --data"
        )
    return open_data(own, screen)


def check_outside(data: Sequence[str], out: Path) -> None:
    """Refuse to replace a folder that contains the data.

    Raises:
        ConfigError: the folder contains data.
    """
    for each in data:
        if Path(each).resolve().is_relative_to(out.resolve()):
            raise ConfigError(f"--overwrite of {out} with the data {each} in it: choose another folder for the run")


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
