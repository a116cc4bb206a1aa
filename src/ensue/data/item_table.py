"""The tables of items and users: titles, categories and other columns, in the order of the vocabulary.

Suffix: `N` items.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from ensue.data.doubt import UnclearLogError
from ensue.data.item_files import movielens_items
from ensue.data.joining import join
from ensue.data.meanings import USUAL_ITEM, USUAL_USER, plain_name
from ensue.data.readers import open_table
from ensue.data.sources import Part, Source, parts_of
from ensue.data.store import as_text
from ensue.data.table import Reading, Table, collect
from ensue.data.unpacking import DAMAGED
from ensue.data.vocabulary import Vocabulary
from ensue.errors import DataError

_TITLES = ("title", "name", "itemname", "movietitle", "producttitle")
_CATEGORIES = ("category", "categories", "genres", "genre", "attributes")
# The item's own id, and in a run its training events: columns of these names are kept as `id_` and `events_`.
_TAKEN = ("id", "events")


def read_item_table(
    source: Source, item_ids: Vocabulary, id_column: str | None = None, encoding: str | None = None
) -> tuple[pl.DataFrame, int]:
    """Read a description of items and arrange it by item number.

    Columns with a usual name become `title`, which is text, and `category`; the others keep their names, except
    that `id` beside another column of ids becomes `id_`, and `events` `events_`. Of several rows of one item the first
    counts; rows of items that the log has not are left out.

    Args:
        source: a file with a header (or several, packed or not, as for a log), or a frame.
        item_ids: the items, in order.
        id_column: the column of ids; by default one with a usual name ("item_id", "movieId", ...) or "id".
        encoding: character encoding of a text file; default: UTF-8.

    Returns:
        N rows, column `id` first, and the number of items that were described.

    Raises:
        DataError: there is no column of ids, none of the ids is an item of the log, the titles are not text, or an open
            quote swallows rows.
    """
    table, frame, id_column = _opened(source, "item", USUAL_ITEM, id_column, encoding)
    plain = {plain_name(name): name for name in reversed(table.names)}
    if table.quoted:
        _check_swallowed(frame, id_column, item_ids, table)
    places = _places(frame[id_column], item_ids, table, "an item")
    frame = frame.drop(id_column).rename(_new_names(frame, plain, id_column)).select(pl.all().gather(places))
    if "title" in frame.columns:
        try:
            frame = frame.with_columns(as_text(frame["title"]))
        except pl.exceptions.PolarsError:
            raise DataError(f"{table.where}: the titles are {frame['title'].dtype}, but must be text") from None
    return item_ids.ids.to_frame().with_columns(frame.get_columns()), places.count()


def read_user_table(source: Source, users: Vocabulary, encoding: str | None = None) -> pl.DataFrame:
    """Read a description of users and arrange it by user number: column `id`, then the others under their names.

    Of several rows of one user the first counts; rows of users that the log has not are left out.

    Raises:
        DataError: there is no column of ids, or none of the ids is a user of the log.
    """
    table, frame, id_column = _opened(source, "user", USUAL_USER, None, encoding)
    places = _places(frame[id_column], users, table, "a user")
    names = {"id": "id_"} if "id" in frame.columns and id_column != "id" else {}
    frame = frame.drop(id_column).rename(names).select(pl.all().gather(places))
    return users.ids.to_frame().with_columns(frame.get_columns())


def described_columns(items: Source | None, users: Source | None, encoding: str | None = None) -> set[str]:
    """The columns of a file of items and of a file of users, under the names that their tables have."""
    names: set[str] = set()
    if items is not None:
        table, frame, id_column = _opened(items, "item", USUAL_ITEM, None, encoding)
        renamed = _new_names(frame, {plain_name(name): name for name in reversed(table.names)}, id_column)
        names |= {renamed.get(name, name) for name in table.names if name != id_column}
    if users is not None:
        table, _, id_column = _opened(users, "user", USUAL_USER, None, encoding)
        names |= {name for name in table.names if name != id_column}
    return names


def _opened(
    source: Source, what: str, usual: tuple[str, ...], id_column: str | None, encoding: str | None
) -> tuple[Table, pl.DataFrame, str]:
    """The table of a file of items or users, its rows, and its column of ids.

    Raises:
        DataError: there is no column of ids.
    """
    try:
        parts = parts_of(source)
        reading = Reading(header=True, multiline=True, encoding=encoding)
        table = join(parts.name, parts.parts, [partial(_open, part, reading, what) for part in parts.parts])
        frame = collect(table, table.names)
    except UnclearLogError as error:  # its answers are flags of the log
        raise DataError(error.doubt.title) from None
    lacking = f"; the first line is read as the header, which a file of {what}s must have" if table.text else ""
    plain = {plain_name(name): name for name in reversed(table.names)}
    if id_column is None:
        id_column = next((plain[name] for name in (*usual, "id") if name in plain), None)
    if id_column is None or id_column not in table.names:
        raise DataError(f"{table.where}: which column is the {what}'s id? Columns: {', '.join(table.names)}{lacking}")
    return table, frame, id_column


def _places(ids: pl.Series, known: Vocabulary, table: Table, what: str) -> pl.Series:
    """The row of each known id, null for ids without one.

    Raises:
        DataError: no id is known.
    """
    if ids.dtype in (pl.Categorical, pl.Enum):
        ids = ids.cast(pl.String)
    numbers = known.encode(ids)
    row_N = np.full(len(known) + 1, -1)
    row_N[numbers[::-1]] = np.arange(len(numbers))[::-1]  # the first row of an id is written last
    if not (row_N[1:] >= 0).any():
        raise DataError(f"{table.where}: none of the ids in column {ids.name!r} is {what} of the log")
    return pl.Series(row_N[1:]).replace(-1, None)


def _open(part: Part, reading: Reading, what: str) -> Table:
    reading = replace(reading, name=part.name)
    published = None
    try:
        if what == "item" and isinstance(part.source, Path):
            published = movielens_items(part.source, reading)
    except DAMAGED as error:
        raise DataError(f"{part.name}: cannot be read ({error})") from None
    return published or replace(open_table(part.source, reading), where=part.name)


def _check_swallowed(frame: pl.DataFrame, id_column: str, item_ids: Vocabulary, table: Table) -> None:
    """Refuse a field of several lines if one of them is the row of an item without a row: a quote was not closed.

    The last line of such a field continues with the fields after it.
    """
    described = frame[id_column].cast(pl.String)
    for place, name in enumerate(frame.columns):
        lines = frame[name].cast(pl.String).drop_nulls().str.split("\n")
        lines = lines.filter(lines.list.len() > 1)
        # Without the first line and the last one.
        inner = lines.list.slice(1).list.reverse().list.slice(1).list.reverse().explode()
        starts = pl.concat(
            [
                _ids_of_rows(inner, table.separator, frame.width - 1),
                _ids_of_rows(lines.list.last(), table.separator, place),
            ]
        )
        missing = starts.filter(~starts.is_in(described.implode()))
        swallowed = [item for item, number in zip(missing, item_ids.encode(missing), strict=True) if number]
        if swallowed:
            raise DataError(
                f"{table.where}: a field of {name!r} contains the row of item {swallowed[0]!r}: a quote before it is "
                'not closed: write a quote inside a quoted field as ""'
            )


def _ids_of_rows(lines: pl.Series, separator: str, count: int) -> pl.Series:
    """The ids at the beginning of the lines with this number of separators."""
    lines = lines.drop_nulls()
    rows = lines.filter(lines.str.count_matches(separator, literal=True) == count)
    mark = re.escape(separator)
    return rows.str.extract(f'^"?([^{mark}"]+)"?{mark}').drop_nulls()


def _new_names(frame: pl.DataFrame, plain: dict[str, str], id_column: str) -> dict[str, str]:
    """Column -> name in the table, for columns where they differ."""
    names = {}
    for standard, usual in (("title", _TITLES), ("category", _CATEGORIES)):
        column = next((plain[name] for name in usual if name in plain and plain[name] != id_column), None)
        if column is not None and column != standard and standard not in frame.columns:
            names[column] = standard
    for name in _TAKEN:
        if name == id_column or name not in frame.columns:
            continue
        free = name + "_"
        while free in frame.columns:
            free += "_"
        names[name] = free
    return names
