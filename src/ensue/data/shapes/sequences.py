"""One line per user: `user item item ...`, lists in a cell (`[5, 6]`, `5 6 7`), JSON arrays, list columns of Parquet.

There are no times: the order of the items counts.
"""

from __future__ import annotations

import re

import polars as pl

from ensue.data.meanings import USUAL_TIME, usual_column
from ensue.data.readers import scan_lines
from ensue.data.shape import NO_COLUMN, SHAPES, Sample, Shape, with_rows
from ensue.data.table import Table

_LIST = r"""[\[(]\s*(['"]?[^'",\[\](){}]+['"]?(\s*,\s*['"]?[^'",\[\](){}]+['"]?)*)?\s*,?\s*[\])]"""
_USERS, _TIMES = r"user|session|uid|visitor|customer", r"time|ts|date"
_ITEMS = r"item|product|movie|track|sequence|history|seq"
_LISTED = r"items|(item|product|movie)_?(ids|list|seq)|sequence|history|products|tracks|movies"
_MEANINGS = {"user": "user", "item": "item", "time": NO_COLUMN, "rating": NO_COLUMN}


@SHAPES.register("sequences")
def recognise(sample: Sample) -> Shape | None:
    """A column of lists, cells in brackets, or lines of different lengths that each start with a different user."""
    return _typed(sample) or _cells(sample) or _arrays(sample) or _ragged(sample)


def _typed(sample: Sample) -> Shape | None:
    """A list column, with or without a list column of times beside it."""
    lists = [name for name, kind in sample.schema.items() if isinstance(kind, pl.List) and not kind.inner.is_nested()]
    items = next((name for name in lists if re.search(_ITEMS, name.lower())), lists[0] if len(lists) == 1 else None)
    user = next((name for name in sample.schema if name not in lists and re.search(_USERS, name.lower())), None)
    if items is None or user is None or sample.rows is None:
        return None
    times = next((name for name in lists if name != items and re.search(_TIMES, name.lower())), None)
    rows = sample.rows
    listed = [items] if times is None else [items, times]
    order = "; no times: the order of the list counts" if times is None else f", times in {times}"

    def read() -> Table:
        exploded = rows.select(user, *listed).explode(listed)
        return Table(exploded, [user, *listed], sample.where)

    meanings = {"user": user, "item": items, "time": times or NO_COLUMN, "rating": NO_COLUMN}
    return Shape("sequences", f"a list of items in {items}{order}", meanings, read)


def _cells(sample: Sample) -> Shape | None:
    """A text table with lists in brackets in its item column, or items between marks if its name says it is a list."""
    header, rows = sample.header, sample.fields[1:]
    rows = [row for row in rows if len(row) == len(header)]
    user = next((name for name in header if re.search(_USERS, name.lower())), None)
    if user is None or not rows or sample.schema or len(set(header)) < len(header):
        return None
    time = usual_column(header, USUAL_TIME)
    marks = {name: _mark_of([row[place] for row in rows if row[place]], name) for place, name in enumerate(header)}
    items = [name for name, mark in marks.items() if mark and name not in (user, time)]
    if not items:
        return None
    item = next((name for name in items if re.search(_ITEMS, name.lower())), items[0])
    order = f"times in {time}" if time else "no times: the order of the list is used"
    return Shape(
        "sequences",
        f"a list of items in each cell of {item}; {order}",
        {**_MEANINGS, "time": "time" if time else NO_COLUMN},
        lambda: sample.open(sample.separator, header=True),
        lambda table: _events_of_cells(table, user, (item, marks[item]), (time, marks[time]) if time else None),
    )


def _mark_of(cells: list[str], name: str) -> str:
    """The mark between the elements of lists: "," in brackets, or any mark if the name says that these are lists."""
    if cells and all(re.fullmatch(_LIST, cell) for cell in cells):
        return "[,]"
    if not re.search(_LISTED, name.lower()):
        return ""
    words = (mark for mark in "|;, " if any(mark in cell for cell in cells))
    return next((mark for mark in words if all(re.fullmatch(_words(mark), cell) for cell in cells)), "")


def _words(mark: str) -> str:
    return rf"[\w.:-]+( ?[{mark}] ?[\w.:-]+)*"


def _events_of_cells(table: Table, user: str, items: tuple[str, str], times: tuple[str, str] | None) -> Table:
    """One event for each element of a list; the time is that of the row, or an element of a list of times."""
    columns, listed = [pl.col(user).alias("user"), _elements(*items).alias("item")], ["item"]
    if times is not None:
        name, mark = times
        columns.append((_elements(name, mark) if mark else pl.col(name)).alias("time"))
        listed += ["time"] if mark else []
    return with_rows(table, table.rows.select(columns).explode(listed))


def _elements(column: str, mark: str) -> pl.Expr:
    text = pl.col(column).str.strip_chars()
    if mark == "[,]":
        text, mark = text.str.strip_chars("[]()"), ","
    pattern = r"\S+" if mark == " " else f"[^{mark}]+"
    return text.str.extract_all(pattern).list.eval(pl.element().str.strip_chars().str.strip_chars("'\""))


def _arrays(sample: Sample) -> Shape | None:
    """One JSON array of items per line; the user is the number of the line."""
    if not sample.lines or not all(re.fullmatch(_LIST, line.strip()) for line in sample.lines[:-1] or sample.lines):
        return None
    file = sample.file
    assert file is not None

    def read() -> Table:
        return Table(scan_lines(file), ["line"], sample.where, file, text=True)

    def events(table: Table) -> Table:
        parts = pl.col("line").str.strip_chars().str.strip_chars("[]").str.extract_all(r"[^,]+")
        rows = table.rows.with_row_index("user", offset=1).filter(pl.col("line").is_not_null())
        rows = rows.select(pl.col("user").cast(pl.String), parts.alias("item")).explode("item")
        return with_rows(table, rows.with_columns(pl.col("item").str.strip_chars().str.strip_chars("'\"")))

    evidence = "one JSON array per line; the user is the number of the line; no times: the order of the list is used"
    return Shape("sequences", evidence, _MEANINGS, read, events)


def _ragged(sample: Sample) -> Shape | None:
    """Lines of different lengths, each with a different first field: the user, then the items."""
    rows = sample.fields[:-1] if len(sample.fields) > 3 else sample.fields
    lengths = [len(row) for row in rows]
    if len(rows) < 2 or sample.file is None or sample.separator not in (" ", "\t", ","):
        return None
    users = [row[0] for row in rows]
    # A single line with an extra field does not count as lines of different lengths.
    usual = max(lengths.count(length) for length in set(lengths))
    varied = max(lengths) > 3 and usual * 2 <= len(rows) and not re.search(_USERS, users[0].lower())
    whole = all(re.fullmatch(r"[\w:.-]+", part) for row in rows for part in row if part)
    if not varied or not whole or len(set(users)) < len(users) or not all(users):
        return None
    file, separator = sample.file, sample.separator

    def read() -> Table:
        return Table(scan_lines(file), ["line"], sample.where, file, text=True)

    def events(table: Table) -> Table:
        pattern = r"\S+" if separator == " " else f"[^{separator}]+"
        parts = pl.col("line").str.strip_chars().str.extract_all(pattern)
        lines = table.rows.filter(pl.col("line").is_not_null()).select(parts.alias("parts"))
        rows = lines.select(user=pl.col("parts").list.first(), item=pl.col("parts").list.slice(1)).explode("item")
        return with_rows(table, rows.with_columns(pl.col("user", "item").str.strip_chars()))

    evidence = "lines of different lengths, each with a different user; no times: the order of the line is used"
    return Shape("sequences", evidence, _MEANINGS, read, events)
