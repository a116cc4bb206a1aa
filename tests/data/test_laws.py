"""Laws of reading: rows add up, their order does not matter without ties, nor does the program that wrote them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensue.data.interactions import Columns, read_interactions
from ensue.data.prepare import prepare
from ensue.data.store import SequenceStore

NAMES = ["user", "item", "time"]
Row = Sequence[str]

# Each id is a text that is not the canonical form of an integer, in the characters that every text form can write.
PLAIN_IDS = st.sampled_from(["u1", "b", "007", "NA", "1e5", "-0", "nan", "1.0", "é", "9223372036854775808"])
ODD_IDS = PLAIN_IDS | st.sampled_from(["x y", "a,b", 'say "x"', "null", "a;b", "tab\there", "#1", "日本"])
NUMBERS = st.sampled_from([0, 7, -3, 2**53, 2**53 + 1, 2**63 - 1, -(2**63) + 1])
TIMES = st.integers(10**9, 2 * 10**9)


def events(ids: st.SearchStrategy[str | int]) -> st.SearchStrategy[list[tuple[str | int, str | int, int]]]:
    """Events without a tie in time."""
    return st.lists(st.tuples(ids, ids, TIMES), min_size=1, max_size=10, unique_by=lambda row: row[2])


# Fields of one row: too few, too many, empty, or not of their column's kind.
FIELDS = st.sampled_from(["a", "b", "7", "1600000000", "1500000000", "soon"])
ROWS = st.lists(st.lists(FIELDS | st.just(""), min_size=1, max_size=5).filter(any), max_size=10)
WHOLE = st.tuples(FIELDS, FIELDS, FIELDS)


def separated(mark: str) -> Callable[[Path, Sequence[Row]], None]:
    """Writes the fields of each row with a mark between them."""
    return lambda path, rows: path.write_text("".join(mark.join(map(str, row)) + "\n" for row in rows))


def write_objects(path: Path, rows: Sequence[Row]) -> None:
    """One JSON object a row; the first row has the names."""
    path.write_text("".join(json.dumps(dict(zip(rows[0], row, strict=False))) + "\n" for row in rows[1:]))


def write_typed(write: Callable[[pl.DataFrame, Path], None]) -> Callable[[Path, Sequence[Row]], None]:
    """Rows of a file with typed columns; a field that a row lacks is null."""

    def written(path: Path, rows: Sequence[Row]) -> None:
        full = [[row[place] if place < len(row) else None for place in range(3)] for row in rows[1:]]
        write(pl.DataFrame(full, schema=dict.fromkeys(rows[0], pl.String), orient="row"), path)

    return written


# Form -> the file's suffix, its settings and its writer.
FORMS: dict[str, tuple[str, dict[str, object], Callable[[Path, Sequence[Row]], None]]] = {
    "csv": (".csv", {}, separated(",")),
    "tsv": (".tsv", {}, separated("\t")),
    ";": (".csv", {"format": ";"}, separated(";")),
    "|": (".csv", {"format": "|"}, separated("|")),
    "space": (".txt", {"header": True, "format": "space"}, separated(" ")),
    "::": (".dat", {"header": True, "format": "::"}, separated("::")),
    "jsonl": (".jsonl", {}, write_objects),
    "parquet": (".parquet", {}, write_typed(lambda frame, path: frame.write_parquet(path))),
    "arrow": (".feather", {}, write_typed(lambda frame, path: frame.write_ipc(path))),
    "avro": (".avro", {}, write_typed(lambda frame, path: frame.write_avro(path))),
}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25)
@given(rows=ROWS, whole=WHOLE)
def test_rows_in_are_kept_and_dropped(tmp_path_factory, form, rows, whole):
    suffix, said, write = FORMS[form]
    path = tmp_path_factory.getbasetemp() / f"rows{suffix}"
    if form == "space":  # an empty field is not written between blanks
        rows = [[field for field in row if field] for row in rows]
    rows = [whole, *rows]
    write(path, [NAMES, *rows])
    log = read_interactions(path, Columns(max_dropped=1, time_unit="s", **said))
    assert log.rows_in == len(rows)
    assert log.rows_in == log.frame.height + sum(log.dropped.values())
    assert all(count > 0 for count in log.dropped.values())
    text = form not in ("jsonl", "parquet", "arrow", "avro")
    # Of files without a fixed number of fields, only whole rows are read.
    usable = [row for row in rows if (len(row) == 3 if text else len(row) >= 3)]
    kept = [row for row in usable if row[0] and row[1] and row[2].isdigit()]
    assert [tuple(map(str, row)) for row in log.frame.select("user", "item").rows()] == [tuple(row[:2]) for row in kept]


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15)
@given(rows=events(PLAIN_IDS), rng=st.randoms())
def test_rows_without_ties_may_come_in_any_order(tmp_path_factory, form, rows, rng):
    suffix, said, write = FORMS[form]
    prints = set()
    for name, each in (("given", rows), ("shuffled", rng.sample(rows, len(rows)))):
        path = tmp_path_factory.getbasetemp() / f"{name}{suffix}"
        write(path, [NAMES, *([str(field) for field in row] for row in each)])
        prints.add(prepare(path, columns=Columns.parse(said))[0].fingerprint)
    assert len(prints) == 1


def csv_files(folder: Path, frame: pl.DataFrame) -> list[Path]:
    """The frame as CSV, written by each of the programs."""
    rows = frame.rows()
    frame.write_csv(folder / "polars.csv")
    pd.DataFrame(rows, columns=NAMES).to_csv(folder / "pandas.csv", index=False)
    pyarrow.csv.write_csv(pa.table({name: frame[name].to_list() for name in NAMES}), folder / "pyarrow.csv")
    with (folder / "csv.csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([NAMES, *rows])
    with (folder / "excel.csv").open("w", newline="", encoding="utf-8-sig") as handle:
        csv.writer(handle, delimiter=";", quoting=csv.QUOTE_ALL).writerows([NAMES, *rows])
    return [folder / f"{name}.csv" for name in ("polars", "pandas", "pyarrow", "csv", "excel")]


def typed_files(folder: Path, frame: pl.DataFrame) -> list[Path]:
    """The frame in the forms that keep types, written by each of the programs."""
    table = pd.DataFrame(frame.rows(), columns=NAMES)
    frame.write_parquet(folder / "polars.parquet")
    table.to_parquet(folder / "pandas.parquet")
    pyarrow.parquet.write_table(pa.Table.from_pandas(table), folder / "pyarrow.parquet")
    frame.write_ndjson(folder / "polars.jsonl")
    table.to_json(folder / "pandas.jsonl", orient="records", lines=True, date_format="iso")
    frame.write_ipc(folder / "polars.feather")
    pyarrow.feather.write_feather(table, folder / "pyarrow.feather", compression="uncompressed")
    frame.write_avro(folder / "polars.avro")
    return sorted(path for path in folder.iterdir() if path.suffix != ".csv")


def stores_of(sources: Sequence[object]) -> set[str]:
    stores: list[SequenceStore] = [prepare(source)[0] for source in sources]
    return {store.fingerprint for store in stores}


@settings(max_examples=15)
@given(rows=events(ODD_IDS) | events(NUMBERS))
def test_the_program_that_wrote_a_file_does_not_matter(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp() / "written"
    folder.mkdir(exist_ok=True)
    frame = pl.DataFrame(rows, schema=NAMES, orient="row")
    table = pd.DataFrame(rows, columns=NAMES)
    files = [*csv_files(folder, frame), *typed_files(folder, frame)]
    assert len(stores_of([*files, frame, frame.lazy(), table, pa.Table.from_pandas(table)])) == 1


@settings(max_examples=10)
@given(rows=events(PLAIN_IDS))
def test_how_a_program_writes_dates_does_not_matter(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp() / "dates"
    folder.mkdir(exist_ok=True)
    seconds = pl.DataFrame(rows, schema=NAMES, orient="row")
    dates = [(user, item, datetime.fromtimestamp(time, UTC).replace(tzinfo=None)) for user, item, time in rows]
    frame = pl.DataFrame(dates, schema=NAMES, orient="row")
    files = [*csv_files(folder, frame), *typed_files(folder, frame)]
    assert len(stores_of([seconds, frame, *files])) == 1


def test_duckdb_writes_what_the_others_write(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    frame = pl.DataFrame([("u1", "a,b", 3), ("007", 'say "x"', 2), ("u1", "NA", 1)], schema=NAMES, orient="row")
    files = csv_files(tmp_path, frame)
    relation = duckdb.sql("SELECT * FROM frame")
    relation.write_csv(str(tmp_path / "duckdb.csv"))
    relation.write_parquet(str(tmp_path / "duckdb.parquet"))
    sources = [*files, relation, tmp_path / "duckdb.csv", tmp_path / "duckdb.parquet"]
    assert len(stores_of(sources)) == 1
