"""Rows of databases are read through connections that cannot write, and passwords stay where they are."""

import sqlite3
import sys
from contextlib import closing
from types import SimpleNamespace

import polars as pl
import pytest

from ensue.data import queries
from ensue.data.interactions import Columns, read_interactions
from ensue.data.prepare import prepare
from ensue.data.queries import Query, without_secrets
from ensue.data.sources import parts_of
from ensue.errors import ConfigError, DataError

SELECT = "select who, what, at from events order by at"
ROWS = [("007", 5, "2024-01-01 10:00:00"), ("b", 2**60 + 1, None), ("007", 6, "2024-01-02 10:00:00")]


@pytest.fixture
def shop(tmp_path):
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table events (who text, what integer, at text, mixed)")
        connection.executemany("insert into events values (?, ?, ?, ?)", [(*row, row[0]) for row in ROWS])
        connection.execute("insert into events values ('c', 7, '2024-01-03 10:00:00', 7)")
    return path


def test_sqlite_is_read_in_batches_and_ids_keep_their_type(shop, monkeypatch):
    monkeypatch.setattr(queries, "BATCH", 1)
    columns = Columns(user="who", item="what", time="at")
    for address in (f"sqlite:///{shop}", str(shop)):
        log = read_interactions(Query(SELECT, address), columns)
        assert log.frame.select("user", "item").rows() == [("007", 5), ("007", 6), ("c", 7)]
        assert log.dropped == {"missing time": 1}
    store, _ = prepare(Query(SELECT, f"sqlite:///{shop}"), columns=columns)
    assert store.made["query"] == SELECT
    assert store.made["parts"] == [{"name": "shop.db", "rows": 4}]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select mixed from events", "column 'mixed' mixes int, str: make it one type in the query"),
        ("select who, who from events", r"two columns have the same name \(who, who\)"),
        ("delete from events", "attempt to write a readonly database"),
        ("select a from nowhere", "the query failed .*no such table: nowhere"),
        ("select 1; select 2", "one statement at a time"),
        ("pragma foreign_keys = on", "returns no rows"),
    ],
)
def test_a_query_that_cannot_be_read_is_one_line(shop, sql, message):
    with pytest.raises(DataError, match=message) as caught:
        Query(sql, f"sqlite:///{shop}").read()
    assert "\n" not in str(caught.value)
    with closing(sqlite3.connect(shop)) as connection:
        assert connection.execute("select count(*) from events").fetchone() == (4,)


def test_an_empty_result_has_its_columns(shop):
    assert Query("select who from events where what = 0", str(shop)).read().columns == ["who"]


def test_duckdb_reads_a_database_and_files(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("create table events (u varchar, i bigint, t timestamp)")
        connection.execute("insert into events values ('007', 5, '2024-01-01')")
    for address in (f"duckdb:///{path}", str(path)):
        frame = Query("select * from events", address).read()
        assert frame.rows()[0][:2] == ("007", 5)
        assert frame["t"].dtype.is_temporal()
    pl.DataFrame({"user": [1], "item": [2]}).write_parquet(tmp_path / "log.parquet")
    log = read_interactions(Query(f"select * from '{tmp_path}/log.parquet'", "duckdb://"))
    assert log.frame.select("user", "item").rows() == [(1, 2)]
    with pytest.raises(DataError, match="read-only mode"):
        Query("create table x as select 1", f"duckdb:///{path}").read()


def test_postgresql_reads_with_a_cursor_of_the_server_and_hides_the_password(monkeypatch):
    seen = {}

    class Connection:
        """A connection and its cursor."""

        description = (("user_id",), ("item_id",))
        read_only = False

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def cursor(self, name):
            seen.update(cursor=name, read_only=self.read_only)
            self.rows = iter([[(1, 2), (1, 3)], []])
            return self

        def execute(self, sql):
            seen["sql"] = sql

        def fetchmany(self, count):
            return next(self.rows)

    def connect(address):
        seen["address"] = address
        if "wrong" in address:
            raise OSError(f"cannot connect with {address} and password=wr%40ng")
        return Connection()

    monkeypatch.setitem(sys.modules, "psycopg", SimpleNamespace(connect=connect, __spec__=SimpleNamespace()))
    query = Query("select * from events", "postgresql+psycopg://me:secret@db:5432/shop?sslmode=require")
    parts = parts_of(query)
    assert (parts.name, parts.parts[0].source.rows()) == ("postgresql://db:5432/shop", [(1, 2), (1, 3)])
    assert seen == {
        "address": "postgresql://me:secret@db:5432/shop?sslmode=require",
        "sql": "select * from events",
        "cursor": "ensue",
        "read_only": True,
    }
    assert "secret" not in repr(query)
    assert "secret" not in str(prepare(query)[0].made)
    with pytest.raises(DataError) as caught:
        Query("select 1", "postgres://me:wrong@db/shop?password=wr%40ng").read()
    assert "wrong" not in str(caught.value)
    assert "wr%40ng" not in str(caught.value)


def test_passwords_are_starred():
    assert without_secrets("postgresql://me:a/b@h/d") == "postgresql://me:***@h/d"
    assert without_secrets("postgresql://me:a@b@h/d") == "postgresql://me:***@h/d"
    assert without_secrets("postgres_scan('host=h password=x y')") == "postgres_scan('host=h password=*** y')"


def test_unknown_databases_and_missing_drivers_are_told(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"mysql://me:\*\*\*@h/d: no such file, or of an unknown database"):
        Query("select 1", "mysql://me:secret@h/d").read()
    with pytest.raises(ConfigError, match=r"^--connect postgresql://me:\*\*\*@h/d: is not an address; .* / as %2F"):
        Query("select 1", "postgresql://me:a/b@c@h/d")
    with pytest.raises(DataError, match="no such file"):
        Query("select 1", f"sqlite:///{tmp_path}/none.db").read()
    monkeypatch.setattr(queries, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package psycopg: pip install 'ensue\[sql\]'"):
        Query("select 1", "postgresql://h/d").read()
