"""Columns of ids: read unchanged, or refused if that is not possible."""

from __future__ import annotations

import json
from itertools import compress

import polars as pl

from ensue.data.table import Table
from ensue.data.vocabulary import by_slices, canonical_ints
from ensue.errors import DataError

# The texts that values other than strings in a JSON Lines file become.
_NO_TEXT = r"^(-?\d+(\.\d+)?([eE][+-]?\d+)?|true|false|\{.*|\[.*)$"
# The characters that polars may return for half a surrogate pair.
_HALF = r"[\x00\ufffd]"
_LIST = r"^\s*(\[.*\]|\(.*\)|\{.*\})\s*$"
_SAMPLE, _MOST_BLANKS = 10_000, 4
# Codes have digits; names with commas, such as those of artists, do not.
_CODE = r"^[A-Za-z_-]*\d[\w-]*$"
# Texts may be lists if at least this share of them contains a mark.
_MARKED = 0.3
# Texts of which lists of one length can be told from composite ids.
_LEAST_LISTS = 4
# Numbers that a spreadsheet shortened, such as 1.23457E+12.
_SHORTENED = r"^\d(\.\d{1,8})?[Ee]\+\d{2,}$"
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\u00ad"


def read_ids(values: pl.Series, name: str, table: Table) -> pl.Series:
    """A column of ids as Int64 or String.

    Args:
        values: the column, without missing values.
        name: its name.
        table: where it comes from; of text files each id is a text as written, and all are integers if each is the
            canonical form of one. Blanks around them are stripped first, unless the file quotes fields.

    Raises:
        DataError: the type loses digits, or is not a type of ids.
    """
    if table.text:
        numbers = canonical_ints(values)
        if numbers.null_count() and not table.quoted:
            numbers = canonical_ints(values.str.strip_chars())
        return values if numbers.null_count() else numbers
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    if values.dtype == pl.String:
        return values
    if values.dtype.is_decimal():
        whole = values.cast(pl.Int64, strict=False)
        if bool((whole == values).fill_null(False).all()):
            return whole
    if values.dtype.is_integer():
        exact = values.cast(pl.Int64, strict=False)
        # Integers beyond int64 become text, as they do when read from a text file.
        return exact if exact.null_count() == values.null_count() else values.cast(pl.String)
    if values.dtype == pl.Null:
        return values.cast(pl.String)
    hint = ""
    if values.dtype.is_float():
        hint = (
            ", which cannot hold large ids exactly (pandas makes integers with missing values floats: "
            "read the column as 'Int64' or as text)"
        )
    if isinstance(values.dtype, pl.List | pl.Array):
        hint = ": write one row per item (explode the lists)"
    raise DataError(f"{table.where}: column {name!r} contains {values.dtype}{hint}; ids must be strings or integers")


def refuse_lists(values: pl.Series, name: str, table: Table, named: bool = False) -> None:
    """Refuse a column of ids whose texts are lists of ids.

    Args:
        values: the column.
        name: its name.
        table: the log.
        named: whether the user named the column; then only texts in brackets are lists.

    Raises:
        DataError: most of the first values are in brackets, or many contain marks between recurring ids.
    """
    if values.dtype != pl.String:
        return
    first = values.head(_SAMPLE)
    lists = first.filter(first.str.contains(_LIST))
    if len(lists) > len(first) / 2:
        raise DataError(
            f"{table.where}: column {name!r} contains lists, such as {lists[0][:60]!r}: write one row per item"
        )
    for mark in () if named else "|;, ":
        lists = first.filter(first.str.contains(mark, literal=True))
        if len(lists) >= _MARKED * len(first) and len(lists) and _are_lists(first, mark):
            raise DataError(
                f"{table.where}: column {name!r} contains lists, such as {lists[0][:60]!r}: write one row per item, or "
                "name the column if these are ids"
            )


def _are_lists(values: pl.Series, mark: str) -> bool:
    """Whether the texts split into codes, some of which occur in several texts.

    If all texts have as many codes, these are lists if codes occur in several places: not so in `shop|product`.
    """
    parts = values.unique().str.split(mark)
    each = parts.explode().str.strip_chars()
    if each.n_unique() == len(each) or not bool(each.str.contains(_CODE).all()):
        return False
    if parts.list.len().n_unique() > 1:
        return True
    first, second = parts.list.get(0).str.strip_chars(), parts.list.get(1).str.strip_chars()
    again = first.is_in(second.unique().implode())
    return len(again) >= _LEAST_LISTS and int(again.sum()) >= _MARKED * len(again)


def check_json(values: pl.Series, name: str, table: Table) -> None:
    """Refuse ids of a JSON Lines file that cannot be kept as written: 7 beside strings, 1e5, true, half a character.

    Only lines whose id may be affected are parsed again.

    Raises:
        DataError: there is such an id; the message names its line.
    """
    if table.text or table.file is None or values.dtype != pl.String:
        return
    suspect = (values.str.contains(_NO_TEXT) | values.str.contains(_HALF)).fill_null(False)
    if not suspect.any():
        return
    filled = (line for line in table.file.lines() if line[1].strip())
    for number, line in compress(filled, suspect):
        value = json.loads(line)[name]
        if not isinstance(value, str):
            kind = "a number" if type(value) in (int, float) else f"no text ({json.dumps(value)[:40]})"
            raise DataError(f"{table.where}: line {number}: {name!r} is {kind}, elsewhere it is a string")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise DataError(
                f"{table.where}: line {number}: {name!r} contains half a surrogate pair ({json.dumps(value)[:60]}), "
                "which is not valid text: write the complete character"
            )


def id_notes(frame: pl.DataFrame) -> list[str]:
    """Notes on ids that are blank, shortened by a spreadsheet, or differ only in blanks or invisible characters."""
    notes = []
    for meaning in ("user", "item"):
        ids = frame[meaning]
        if ids.dtype != pl.String:
            continue
        shortened = ids.filter(ids.str.contains(_SHORTENED))
        if len(shortened):
            notes.append(
                f"{len(shortened):,} {meaning} ids, such as {shortened[0]!r}, are numbers shortened by a spreadsheet: "
                "different ids have become one: export them as text"
            )
        if not bool(ids.str.contains(rf"^\s|\s$|[{_INVISIBLE}]").any()):
            continue
        distinct = ids.unique()
        if blank := int((ids.str.strip_chars() == "").sum()):
            notes.append(f"{blank:,} events have a blank as their {meaning}: leave them out if it stands for none")
        seen = distinct.str.replace_all(f"[{_INVISIBLE}]", "").str.strip_chars()
        alike = len(distinct) - seen.n_unique()
        if alike:
            notes.append(
                f"{alike:,} {meaning} ids differ from another id only in surrounding blanks or invisible characters: "
                "strip them"
            )
    return notes


def refuse_other_header(table: Table, unreadable: pl.Series, rows: pl.Series) -> None:
    """Refuse a log in which a later row has the names of the columns in another order than the first line.

    Args:
        table: the log.
        unreadable: times that cannot be read, as written.
        rows: the row of each, from 0.

    Raises:
        DataError: one of these times is the name of a column; the columns of the rows below may be exchanged.
    """
    if table.positional or unreadable.dtype != pl.String:
        return
    is_name = unreadable.str.strip_chars().str.to_lowercase().is_in([name.lower() for name in table.names])
    if is_name.any():
        raise DataError(
            f"{table.where}: row {rows.filter(is_name)[0] + 1:,} names the columns in another order than the first "
            "line: split the file there"
        )


def is_header(values: pl.Series, name: str) -> pl.Series:
    """True where a column repeats its name, in upper or lower case and with or without surrounding blanks."""
    return by_slices(values, lambda part: _is_header(part, name))


def _is_header(values: pl.Series, name: str) -> pl.Series:
    length = len(name.encode())
    near = values.str.len_bytes().is_between(length, length + _MOST_BLANKS).fill_null(False)
    if not name.strip().isdigit():
        near &= values.cast(pl.Int64, strict=False).is_null()  # most ids of large logs are integers
    if not near.any():
        return near
    same = values.filter(near).str.strip_chars(f" \t{_INVISIBLE}").str.to_lowercase() == name.strip().lower()
    repeats = near.to_numpy().copy()
    repeats[repeats] = same.to_numpy()
    return pl.Series(repeats)
