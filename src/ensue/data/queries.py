"""Rows of a database: one query, read through a connection that cannot write.

Passwords stay out of messages and of what is stored; better still, leave them to `PGPASSWORD` or `~/.pgpass`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from uuid import UUID

import polars as pl

from ensue.data.stacking import stack
from ensue.errors import ConfigError, DataError

# Number of rows fetched at a time.
BATCH = 100_000
_SECRET = re.compile(r"(password\s*=\s*)('[^']*'|[^\s'&;)]+)", re.IGNORECASE)
_URL_SECRET = re.compile(r"(://[^\s/:@]*:)\S+(@)")
_EXTRA = "pip install 'ensue[sql]'"


@dataclass(frozen=True)
class Query:
    """A query of a database.

    Attributes:
        sql: one statement that returns rows; without times, in the order of events.
        address: `sqlite:///FILE` and `duckdb:///FILE` (only a file is recognised by its first bytes), `duckdb://` for
            a query of files, or `postgresql://USER@HOST/DATABASE`. A file from the root has four strokes.
    """

    sql: str
    address: str = field(repr=False)

    def __post_init__(self) -> None:
        try:
            urlsplit(self.address).port  # noqa: B018
        except ValueError:
            raise ConfigError(
                f"--connect {without_secrets(self.address)}: is not an address; in a user or password write / as %2F, "
                "@ as %40 and : as %3A"
            ) from None

    @property
    def name(self) -> str:
        """The address without a user, a password and options."""
        parts = urlsplit(self.address)
        port = f":{parts.port}" if parts.port else ""
        scheme = parts.scheme.partition("+")[0]
        return f"{scheme}://{parts.hostname or ''}{port}{parts.path}" if scheme else self.address

    @property
    def shown(self) -> str:
        """The statement without passwords."""
        return without_secrets(self.sql)

    def read(self) -> pl.DataFrame:
        """Run the query.

        Raises:
            ConfigError: the address is of no known database, or its driver is not installed.
            DataError: the database cannot be reached or refuses the query, or a column mixes types.
        """
        connect = _driver(self.address)
        try:
            with connect(self.address) as cursor:
                cursor.execute(self.sql)
                return self._fetch(cursor)
        except (DataError, ConfigError):
            raise
        except Exception as error:  # each driver raises its own errors
            raise DataError(f"{self.name}: the query failed ({self._words(error)})") from None

    def _fetch(self, cursor: Any) -> pl.DataFrame:
        if cursor.description is None:
            raise DataError(f"{self.name}: the statement returns no rows: --sql needs a SELECT")
        names = [column[0] for column in cursor.description]
        if len(set(names)) < len(names):
            raise DataError(f"{self.name}: two columns have the same name ({', '.join(names)}): rename one (AS)")
        frames = [self._frame(rows, names) for rows in _batches(cursor)] or [pl.DataFrame(schema=names)]
        return stack(frames, [self.name] * len(frames))

    def _frame(self, rows: list[tuple[Any, ...]], names: list[str]) -> pl.DataFrame:
        columns = {}
        for name, values in zip(names, zip(*rows, strict=True), strict=True):
            plain = [str(value) if isinstance(value, UUID) else value for value in values]
            if {type(value) for value in plain} - {type(None)} == {int, float}:
                plain = [None if value is None else float(value) for value in plain]
            try:
                columns[name] = pl.Series(name, plain, strict=True)
            except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
                kinds = sorted({type(value).__name__ for value in plain if value is not None})
                raise DataError(
                    f"{self.name}: column {name!r} mixes {', '.join(kinds)}: make it one type in the query (CAST)"
                ) from None
        return pl.DataFrame(columns)

    def _words(self, error: Exception) -> str:
        text = str(error).strip().split("\n")[0]
        parts = urlsplit(self.address)
        for secret in (parts.password, *parse_qs(parts.query).get("password", [])):
            for written in {secret, unquote(secret or "")}:
                text = text.replace(written, "***") if written else text
        return without_secrets(text)


def without_secrets(text: str) -> str:
    """A text with stars instead of passwords, both those in addresses and `password=...`."""
    return _SECRET.sub(r"\1***", _URL_SECRET.sub(r"\1***\2", text))


def _batches(cursor: Any) -> Iterator[list[tuple[Any, ...]]]:
    while rows := cursor.fetchmany(BATCH):
        yield rows


_Connect = Callable[[str], AbstractContextManager[Any]]


def _driver(address: str) -> _Connect:
    scheme = urlsplit(address).scheme.partition("+")[0]
    if not scheme and Path(address).is_file():
        with Path(address).open("rb") as handle:
            head = handle.read(16)
        scheme = "sqlite" if head.startswith(b"SQLite format 3") else "duckdb" if head[8:12] == b"DUCK" else ""
    drivers: dict[str, tuple[str, _Connect]] = {
        "sqlite": ("sqlite3", _sqlite),
        "duckdb": ("duckdb", _duckdb),
        "postgresql": ("psycopg", _postgresql),
        "postgres": ("psycopg", _postgresql),
    }
    if scheme not in drivers:
        raise ConfigError(
            f"--connect {without_secrets(address)}: no such file, or of an unknown database; give sqlite:///FILE, "
            "duckdb:///FILE or postgresql://USER@HOST/DATABASE, or export the rows as Parquet or CSV"
        )
    package, connect = drivers[scheme]
    if find_spec(package) is None:
        raise ConfigError(f"--connect to {scheme} needs the package {package}: {_EXTRA}")
    return connect


def _file(address: str) -> Path:
    """`sqlite:///shop.db` -> shop.db, `sqlite:////data/shop.db` -> /data/shop.db."""
    parts = urlsplit(address)
    path = Path(unquote(parts.path[1:] if parts.scheme else address))
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return path


@contextmanager
def _sqlite(address: str) -> Iterator[Any]:
    where = f"file:{quote(str(_file(address).resolve()))}?mode=ro"
    with closing(sqlite3.connect(where, uri=True)) as connection, closing(connection.cursor()) as cursor:
        yield cursor


@contextmanager
def _duckdb(address: str) -> Iterator[Any]:
    duckdb = import_module("duckdb")
    parts = urlsplit(address)
    in_memory = parts.scheme and parts.path.lstrip("/") in ("", ":memory:")
    connection = duckdb.connect() if in_memory else duckdb.connect(str(_file(address)), read_only=True)
    with closing(connection):
        yield connection


@contextmanager
def _postgresql(address: str) -> Iterator[Any]:
    psycopg = import_module("psycopg")
    scheme, _, rest = address.partition("://")
    with psycopg.connect(f"{scheme.partition('+')[0]}://{rest}") as connection:
        connection.read_only = True
        # A server-side cursor: rows arrive in batches, and only statements that read can have one.
        with connection.cursor(name="ensue") as cursor:
            yield cursor
