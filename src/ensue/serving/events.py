"""The log of events, and of what was shown, in a database: SQLite or PostgreSQL."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    delete,
    event,
    insert,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from ensue.data.vocabulary import ExternalId
from ensue.errors import ConfigError, EnsueError
from ensue.serving.schemas import MAX_HISTORY, Event, Stored

# Readers and the writer do not wait for each other, and a confirmed event survives a power cut.
SQLITE_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000")
# A server that does not answer counts as lost after seconds; the defaults of TCP are many minutes.
POSTGRESQL_SETTINGS = {"connect_timeout": 5, "tcp_user_timeout": 8_000}

_TABLES = MetaData()
_NUMBER = BigInteger().with_variant(Integer, "sqlite")
EVENTS = Table(
    "ensue_events",
    _TABLES,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("key", Text, nullable=False, unique=True),
    Column("user", Text, nullable=False),
    Column("item", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
)
Index("ensue_events_of_user", EVENTS.c.user, EVENTS.c.time, EVENTS.c.number)
Index("ensue_events_by_time", EVENTS.c.time)
PROBES = Table("ensue_probes", _TABLES, Column("key", Text, primary_key=True), Column("filler", Text, nullable=False))
# More than a page of any database: a full disk refuses it, though an event might fit into the last page.
PROBE_LETTERS = 20_000
EXPOSURES = Table(
    "ensue_exposures",
    _TABLES,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("experiment", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("share", Float, nullable=False),
    Column("version", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("items", Text, nullable=False),
    Column("scores", Text, nullable=False),
    Column("probabilities", Text, nullable=False),
)
Index("ensue_exposures_of_user", EXPOSURES.c.experiment, EXPOSURES.c.user, EXPOSURES.c.time)


class LogError(EnsueError):
    """The database of events cannot be used at the moment."""


class EventLog:
    """Events and exposures in a database. An event is durable once `add` returns.

    Args:
        address: `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`.

    Raises:
        ConfigError: the address is not one of these, or its driver is missing.
        LogError: the database cannot be opened.
    """

    def __init__(self, address: str) -> None:
        self.engine = _engine(address)
        self.path = _file_of(self.engine)
        try:
            _create_tables(self.engine)
        except SQLAlchemyError as error:
            raise LogError(f"--events: the database cannot be opened ({_reason(error)})") from None
        self._inode = None if self.path is None else self.path.stat().st_ino
        self._insert: Any = (postgresql if self.engine.dialect.name == "postgresql" else sqlite).insert

    @property
    def shown(self) -> str:
        """The address, without a password."""
        return self.engine.url.render_as_string(hide_password=True)

    def add(self, events: Sequence[Sequence[Event]]) -> list[Stored | Exception]:
        """Store some lists of events in one transaction, in their order.

        An event whose key is known is not stored again.

        Returns:
            what became of each list; or, for all of them, a `LogError`, and then nothing was stored.
        """
        now = int(time.time())
        rows = [[_row(each, now) for each in group] for group in events]
        try:
            self._check_file()
            with self.engine.begin() as connection:
                statement = self._insert(EVENTS).on_conflict_do_nothing(index_elements=["key"]).returning(EVENTS.c.key)
                # Of an event that is in the statement twice, the database stores the first.
                result = connection.execute(statement, [row for group in rows for row in group])
                new = {key for (key,) in result}
        except (SQLAlchemyError, OSError) as error:
            return [LogError(f"the database of events failed ({_reason(error)})")] * len(events)
        outcomes: list[Stored | Exception] = []
        for group in rows:
            keys = tuple(row["key"] for row in group)
            stored = len(new & set(keys))
            # A key counts once, for the first list that has it.
            new.difference_update(keys)
            outcomes.append(Stored(stored, len(keys) - stored, keys))
        return outcomes

    def histories(self, users: Sequence[str], limit: int = MAX_HISTORY) -> list[list[tuple[str, int]] | Exception]:
        """The items and times of each user's events, oldest first; the newest `limit` of them.

        Returns:
            one list for each user; or, for all of them, a `LogError`.
        """
        order = (EVENTS.c.time.desc(), EVENTS.c.number.desc())
        query = select(EVENTS.c.item, EVENTS.c.time).order_by(*order).limit(limit)
        results: dict[str, list[tuple[str, int]]] = {}
        try:
            self._check_file()
            with self.engine.connect() as connection:
                for user in set(users):
                    rows = connection.execute(query.where(EVENTS.c.user == user)).all()
                    results[user] = [(item, seconds) for item, seconds in reversed(rows)]
        except (SQLAlchemyError, OSError) as error:
            return [LogError(f"the database of events failed ({_reason(error)})")] * len(users)
        return [results[user] for user in users]

    def recent(self, since: int, limit: int = 1_000_000) -> list[str]:
        """The items of the newest events since a time in seconds.

        Raises:
            LogError: the database failed.
        """
        query = select(EVENTS.c.item).where(EVENTS.c.time >= since).order_by(EVENTS.c.time.desc()).limit(limit)
        try:
            self._check_file()
            with self.engine.connect() as connection:
                return [item for (item,) in connection.execute(query)]
        except (SQLAlchemyError, OSError) as error:
            raise LogError(f"the database of events failed ({_reason(error)})") from None

    def expose(self, rows: Sequence[dict[str, Any]]) -> list[bool | Exception]:
        """Log what was shown: rows of `EXPOSURES`. Returns one value for each: True, or for all a `LogError`."""
        try:
            self._check_file()
            with self.engine.begin() as connection:
                connection.execute(insert(EXPOSURES), list(rows))
        except (SQLAlchemyError, OSError) as error:
            return [LogError(f"the database of events failed ({_reason(error)})")] * len(rows)
        return [True] * len(rows)

    def probe(self) -> None:
        """Write something, read it and remove it.

        Raises:
            LogError: the database failed.
        """
        key = uuid.uuid4().hex
        try:
            self._check_file()
            with self.engine.begin() as connection:
                connection.execute(insert(PROBES), {"key": key, "filler": key * (PROBE_LETTERS // len(key))})
            with self.engine.begin() as connection:
                connection.execute(select(EVENTS.c.number).limit(1)).all()
                connection.execute(delete(PROBES).where(PROBES.c.key == key))
        except (SQLAlchemyError, OSError) as error:
            raise LogError(f"the database of events failed ({_reason(error)})") from None

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _check_file(self) -> None:
        """Refuse to use a deleted SQLite file: its events would be gone after a restart, and a read would create it.

        Raises:
            OSError: the file is gone.
        """
        if self.path is None:
            return
        inode = self.path.stat().st_ino
        if inode != self._inode:
            self.engine.dispose()
            _create_tables(self.engine)
            self._inode = inode


def _create_tables(engine: Engine) -> None:
    try:
        _TABLES.create_all(engine)
    except SQLAlchemyError:
        # Another server that starts at the same time may create a table between the look and the statement.
        _TABLES.create_all(engine)


def open_log(address: str) -> EventLog:
    """An existing log, for reading.

    Raises:
        ConfigError: the address is wrong, or there is no such file.
    """
    path = _file_of(_engine(address))
    if path is not None and not path.is_file():
        raise ConfigError(f"--events: {path}: no such file")
    return EventLog(address)


def exposed(
    experiment: str, user: str, variant: str, share: float, version: str, shown: Sequence[Any]
) -> dict[str, Any]:
    """A row of `EXPOSURES`.

    Args:
        experiment: its name.
        user: the user.
        variant: the variant that the user is assigned to.
        share: the probability of this assignment.
        version: of the variant's model.
        shown: the recommendations, best first.
    """
    return {
        "experiment": experiment,
        "user": user,
        "variant": variant,
        "share": share,
        "version": version,
        "time": int(time.time()),
        "items": json.dumps([str(entry.item) for entry in shown]),
        "scores": json.dumps([entry.score for entry in shown]),
        # A variant shows its list with certainty; a policy that explores would log smaller numbers here.
        "probabilities": json.dumps([1.0] * len(shown)),
    }


def _row(given: Event, now: int) -> dict[str, Any]:
    return {
        "key": given.key or uuid.uuid4().hex,
        "user": str(given.user),
        "item": str(given.item),
        "time": now if given.time is None else given.time,
        "kind": given.kind,
    }


def merged(
    before: Sequence[ExternalId], times: Sequence[int] | None, events: Sequence[tuple[str, int]]
) -> tuple[list[ExternalId], list[int] | None]:
    """A user's history from the data and from the log, oldest first; without times if the data has none.

    Args:
        before: items of the data.
        times: their times in seconds, or None.
        events: items and times of the log.
    """
    items = [*before, *(item for item, _ in events)]
    if times is None and before:
        return items, None
    seconds = [*(times or ()), *(each for _, each in events)]
    order = sorted(range(len(items)), key=seconds.__getitem__)
    return [items[place] for place in order], [seconds[place] for place in order]


def _engine(address: str) -> Engine:
    try:
        url = make_url(address)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise ConfigError(f"--events must be sqlite:///FILE or postgresql://USER@HOST/DATABASE (got {url})")
        is_postgresql = url.get_backend_name() == "postgresql"
        engine = create_engine(url, pool_pre_ping=True, connect_args=POSTGRESQL_SETTINGS if is_postgresql else {})
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError("--events must be sqlite:///FILE or postgresql://USER@HOST/DATABASE") from None
    except ModuleNotFoundError as error:
        raise ConfigError(f"--events: {error.name} is missing: pip install 'ensue[sql]'") from None
    event.listen(engine, "connect", _prepare_sqlite if engine.dialect.name == "sqlite" else _prepare_postgresql)
    return engine


def _prepare_sqlite(connection: Any, record: Any) -> None:
    for pragma in SQLITE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _prepare_postgresql(connection: Any, record: Any) -> None:
    """A server or role may be set to confirm transactions before they are on the disk."""
    if connection.execute("SHOW synchronous_commit").fetchone() == ("off",):
        connection.execute("SET synchronous_commit = on")
    connection.commit()


def _file_of(engine: Engine) -> Path | None:
    name = engine.url.database if engine.dialect.name == "sqlite" else None
    if engine.dialect.name == "sqlite" and name in (None, "", ":memory:"):
        raise ConfigError("--events: give a file, sqlite:///FILE: events in memory are lost at the end")
    return None if name is None else Path(name)


def _reason(error: Exception) -> str:
    """The database's own words, without the statement, its values or the address."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    # An error of psycopg without a code comes from the client's side; its words name the host, the user or the socket.
    if getattr(cause, "sqlstate", "") is None:
        return "no connection"
    return type(cause).__name__ if isinstance(cause, OSError) else str(cause).partition("\n")[0]
