"""Read any log into one checked frame of users, items and times; every dropped row is counted under a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import Field, model_validator

from ensue.config import Config
from ensue.data.alike import settings_alike
from ensue.data.anonymous import placeholder_notes, refuse_anonymous
from ensue.data.arrays import is_feature_name
from ensue.data.clocks import with_clock
from ensue.data.dates import DateOrder
from ensue.data.decimals import with_points
from ensue.data.doubt import UnclearLogError
from ensue.data.ids import check_json, id_notes, is_header, read_ids, refuse_lists, refuse_other_header
from ensue.data.logs import open_beginning, open_log
from ensue.data.meanings import MEANINGS, Choice, choose_columns, present, with_rows
from ensue.data.moments import TimeUnit, add_clock, to_microseconds
from ensue.data.odd_times import time_notes
from ensue.data.shape import SHAPES
from ensue.data.sources import Source
from ensue.data.table import (
    ANY_SHAPE,
    MALFORMED,
    NO_SHAPE,
    Format,
    Reading,
    Table,
    collect,
    place_of_row,
    rows_of_parts,
)
from ensue.data.vocabulary import canonical_ints
from ensue.data.where import Condition, parse_where
from ensue.errors import DataError

REPEATED_HEADER = "repeated header"
_ROW = "\x01row"


class Columns(Config):
    """The meaning of a log's columns and the format of its file.

    Attributes:
        user: column of the user (or session) ids; by default a usual name (user_id, userId, ...). In files
            without a header, the columns are called "1", "2" and so on.
        item: column of the item ids.
        time: column of the times; "-" for none: the order of rows is then the order of events.
        clock: column of the times of day, if the column `time` contains only dates.
        rating: column of the ratings; "-" for none.
        features: further columns to keep: of events (event), items (brand:item), users (city:user), price:buckets=10.
        where: rows to read, by value: column == 'text', column > 5, column in ('a', 'b'), joined by
            `and`, `or`, `not` and parentheses.
        format: "csv", "tsv", ";" and "|" (CSV with that separator), "space" (user item [time]), "::"
            (user::item::rating::time), "jsonl", "parquet", "arrow" (Feather) or "avro"; "auto" uses the first bytes,
            the suffix and the first line.
        separator: the text between the fields of a line, such as ";" or "\\t" (a tab); default: by `format`.
        skip: number of lines to skip at the start of a text file.
        comment: lines of a text file that start with this text, such as "#", are skipped.
        shape: the published shape to read the log as, such as movielens; "auto" recognises it, "none" reads a plain
            table.
        encoding: character encoding of a text file, such as latin-1; default: UTF-8.
        header: whether a text file starts with column names; by default determined from the first line of CSV and TSV
            files, and false for space- and `::`-separated files (if their first line looks like names, it must be set).
        time_unit: unit of times that are numbers: "s", "ms", "us", "ns", or "day" for the day numbers of spreadsheets;
            "auto" uses their size, and reads numbers such as 20191230 as dates.
        time_format: format of times, in the directives of strftime, such as "%d/%m/%Y %H:%M"; by default a number,
            ISO 8601, or another form that published logs use.
        date_order: order of dates such as 01/02/2019: "month" first or "day" first; "auto": the order that fits all of
            them; if both do, the log is refused.
        time_zone: time zone of dates that do not state their own, such as Europe/Paris; by default UTC.
        max_dropped: largest share of rows that may be unusable (malformed, or without a user, an item or a time) before
            the log is refused.
        multiline: allow quoted CSV fields that span several lines.
        quotes: double quotes enclose fields of CSV and TSV files; if false, they are ordinary characters.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    clock: str | None = None
    rating: str | None = None
    features: tuple[str, ...] = ()
    where: str | None = None
    format: Format = "auto"
    shape: str = "auto"
    separator: str | None = Field(default=None, min_length=1)
    skip: int = Field(default=0, ge=0)
    comment: str = ""
    encoding: str | None = None
    header: bool | None = None
    time_unit: TimeUnit = "auto"
    time_format: str | None = None
    date_order: DateOrder = "auto"
    time_zone: str | None = None
    max_dropped: float = Field(default=0.5, ge=0, le=1)
    multiline: bool = False
    quotes: bool = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.multiline and not self.quotes:
            raise ValueError("multiline needs quotes, which enclose the fields that span several lines")
        if self.time_format is not None and self.time_unit != "auto":
            raise ValueError("time_format and time_unit contradict each other: give one of them")
        if self.separator is not None and self.format not in ("auto", "csv"):
            raise ValueError(f"separator {self.separator!r} and format {self.format!r}: give one of them")
        if self.separator is not None and set(self.separator) & {'"', "\n", "\r"}:
            raise ValueError(f"separator must not contain a quote or a line end (got {self.separator!r})")
        if self.shape not in (ANY_SHAPE, NO_SHAPE):
            SHAPES.check(self.shape)
        if self.where is not None:
            parse_where(self.where)
        try:
            "".encode(self.encoding or "utf-8")  # also refuses base64 and others that are no encodings of text
        except LookupError:
            raise ValueError(f"unknown encoding {self.encoding!r}: such as utf-8, latin-1, cp1252, utf-16") from None
        try:
            ZoneInfo(self.time_zone or "UTC")
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"unknown time_zone {self.time_zone!r}: such as UTC, Europe/Paris, Asia/Shanghai"
            ) from None
        return self

    @property
    def reading(self) -> Reading:
        """The settings for reading the file."""
        separator = None if self.separator is None else self.separator.replace("\\t", "\t")
        how = (self.multiline, self.quotes, self.encoding, separator, self.skip, self.comment)
        return Reading(self.format, self.header, *how, shape=self.shape)


@dataclass(frozen=True, eq=False)
class Interactions:
    """A checked log.

    Attributes:
        frame: `user` and `item` (String or Int64), `time` (Int64, microseconds since the epoch, if known),
            `rating` (Float64, if known, null where unreadable), the features under their own names, and `row`
            (the row of the source, from 0); in the source's order.
        rows_in: number of rows in the source; always `len(frame) + sum(dropped.values())`.
        dropped: reason -> number of dropped rows.
        time_unit: unit of the times in the source ("date" for dates); None without times.
        columns: meaning -> column of the source.
        source: name of the source.
        features: names of the features.
        examples: reason -> an affected value, where it adds information.
        why: meaning -> why its column was chosen.
        notes: remarks on unusual properties of the log.
        settings: the settings that read another file of this form in the same way, as JSON values.
        parts: the files or frames that were read, each with its number of rows.
        shape: the published shape that the source was recognised as, with the evidence; "" for none.
    """

    frame: pl.DataFrame
    rows_in: int
    dropped: Mapping[str, int]
    time_unit: str | None
    columns: Mapping[str, str]
    source: str
    features: tuple[str, ...] = ()
    examples: Mapping[str, str] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    shape: str = ""
    parts: tuple[tuple[str, int], ...] = ()


def in_words(dropped: Mapping[str, int], examples: Mapping[str, str]) -> str:
    """Dropped rows by reason: `3 missing user, 1 unreadable time (such as 'soon')`."""
    return ", ".join(
        f"{count:,} {reason}" + (f" (such as {examples[reason]!r})" if reason in examples else "")
        for reason, count in dropped.items()
    )


def read_interactions(source: Source, columns: Columns | None = None) -> Interactions:
    """Read a log from a file or a frame and check it.

    Ids never change. In text files they are integers only if every id of the column is written as an int64 is ("7", not
    "007"), otherwise strings; in typed sources they keep their type. Dropped rows have no influence on these types.

    Args:
        source: a CSV, TSV, space-separated, `::`-separated, JSON Lines or Parquet file, or a frame.
        columns: the meaning of the columns.

    Raises:
        DataError: the source cannot be read, a column is missing or has two meanings, ids are of a type that loses
            digits, or more rows than `max_dropped` are unusable.
        UnclearLogError: the log can be read in more than one way.
    """
    columns = columns or Columns()
    if (beginning := open_beginning(source, columns.reading)) is not None:
        columns_of(beginning, columns)
    table = open_log(source, columns.reading)
    try:
        return _Sifted(table, columns, columns_of(table, columns)).log()
    except UnclearLogError as error:
        raise with_rows(error, table) from None


def columns_of(table: Table, columns: Columns) -> dict[str, Choice]:
    """Meaning -> column of a log, including the clock; named features are checked.

    Raises:
        DataError: a column does not exist or has two meanings.
        UnclearLogError: a column must be named.
    """
    try:
        chosen = choose_columns(table, {meaning: getattr(columns, meaning) for meaning in MEANINGS})
        if columns.clock is None and columns.time_format is None and columns.time_unit == "auto":
            chosen = with_clock(table, chosen)
    except UnclearLogError as error:
        raise with_rows(error, table) from None
    if columns.clock is not None:
        chosen["clock"] = Choice(present(table, columns.clock, "clock"), "named")
        if "time" not in chosen:
            raise DataError(
                f"{table.where}: a clock ({columns.clock!r}) needs the column of the dates: name it (--time)"
            )
    for name in columns.features:
        _check_feature(table, name)
    return chosen


class _Sifted:
    """The rows of a log during the checks: those that remain, and the counts of those dropped."""

    def __init__(self, table: Table, columns: Columns, chosen: Mapping[str, Choice]) -> None:
        self.table, self.columns, self.chosen = table, columns, chosen
        self.where = None if columns.where is None else parse_where(columns.where)
        tested = [] if self.where is None else [present(table, name, "condition") for name in self.where.columns]
        names = [*(choice.column for choice in chosen.values()), *columns.features, *table.features, *tested]
        raw = collect(table, list(dict.fromkeys(names)), self._check_ids)
        self.rows_in, self.decimal_notes = raw.height, list[str]()
        if table.text and table.separator != ",":
            ids = chosen["user"].column, chosen["item"].column
            raw, self.decimal_notes = with_points(raw, [name for name in names if name not in ids])
        self.raw = raw.with_columns(pl.int_range(raw.height, dtype=pl.UInt32, eager=True).alias(_ROW))
        self.dropped, self.examples, self.first_bad = dict[str, int](), dict[str, str](), -1

    def log(self) -> Interactions:
        """The checked log."""
        chosen, table, columns = self.chosen, self.table, self.columns
        if MALFORMED in self.raw.columns:
            self._drop(MALFORMED, self.raw[MALFORMED])
        if table.text and not table.positional:
            user, item = (is_header(self._values(meaning), chosen[meaning].column) for meaning in ("user", "item"))
            self._drop(REPEATED_HEADER, user & item)
        if self.where is not None:
            keep = self.where.applies(lambda name: self.raw[present(table, name, "condition")])
            text = columns.where if isinstance(self.where, Condition) else f"({columns.where})"
            self._drop(f"not {text}", ~keep.fill_null(False), is_fault=False)
        if self.chosen["user"].why != "named" and not self.table.positional:
            refuse_anonymous(table, self._values("user"))
        for meaning in ("user", "item"):
            self._drop(f"missing {meaning}", _missing(self._values(meaning)))
        kept: dict[str, pl.Series] = {}
        unit = None
        if "time" in chosen:
            kept["time"], unit = self._times()
        self._refuse_mostly_dropped()
        features = tuple(dict.fromkeys([*columns.features, *table.features]))
        later = {*features, *(choice.column for meaning, choice in chosen.items() if meaning in ("time", "rating"))}
        for meaning in ("user", "item"):
            name = chosen[meaning].column
            refuse_lists(self.raw[name], name, table, chosen[meaning].why == "named")
            kept[meaning] = read_ids(self.raw[name], name, table)
            if name not in later:
                self.raw.drop_in_place(name)  # `drop` would copy the other columns
        if "rating" in chosen:
            ratings = self._values("rating")
            ratings = ratings.str.strip_chars() if ratings.dtype == pl.String else ratings
            kept["rating"] = ratings.cast(pl.Float64, strict=False)
        for name in features:
            kept[name] = _feature(self.raw[name], table)
        order = [name for name in ("user", "item", "time", "rating", *features) if name in kept]
        frame = pl.DataFrame({name: kept[name].alias(name) for name in order} | {"row": self.raw[_ROW]})
        notes = list(dict.fromkeys(choice.note for choice in chosen.values() if choice.note))
        notes += [*self.decimal_notes, *id_notes(frame), *placeholder_notes(frame)]
        if unit is not None and frame.height:
            is_guessed = columns.time_unit == "auto"
            notes += time_notes(frame, unit, self._values("time") if is_guessed else None, table.where)
        return Interactions(
            frame=frame,
            rows_in=self.rows_in,
            dropped=self.dropped,
            time_unit=unit,
            columns={meaning: choice.column for meaning, choice in chosen.items()},
            source=table.where,
            features=features,
            examples=self.examples,
            why={meaning: choice.why for meaning, choice in chosen.items()},
            notes=tuple(notes),
            settings=settings_alike(columns, table, chosen, unit),
            shape=f"{table.shape}: {table.evidence}" if table.shape else "",
            parts=rows_of_parts(table, self.rows_in),
        )

    def _check_ids(self, part: Table, rows: pl.DataFrame) -> None:
        for meaning in ("user", "item"):
            column = self.chosen[meaning].column
            check_json(rows[column], column, part)

    def _values(self, meaning: str) -> pl.Series:
        return self.raw[self.chosen[meaning].column]

    def _drop(self, reason: str, applies: pl.Series, is_fault: bool = True) -> None:
        """Drop the rows that a reason applies to."""
        applies = applies.fill_null(False)
        count = int(applies.sum())
        if not count:
            return
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        if is_fault:
            first = int(self.raw[_ROW].filter(applies)[0])
            self.first_bad = first if self.first_bad < 0 else min(first, self.first_bad)
        self.raw = self.raw.filter(~applies)

    def _times(self) -> tuple[pl.Series, str]:
        """Times of the remaining rows in microseconds; rows without a time are dropped first."""
        self._drop("missing time", _missing(self._values("time")))
        columns, values = self.columns, self._values("time")
        how = (columns.time_format, columns.time_zone, columns.date_order)
        try:
            if "clock" in self.chosen:
                times, unit = add_clock(values, self._values("clock"), *how)
            else:
                times, unit = to_microseconds(values, columns.time_unit, *how)
        except UnclearLogError as error:
            raise error.at(where=self.table.where) from None
        unreadable = times.is_null()
        if unreadable.any():
            bad = values.filter(unreadable).head(1)
            shown = bad.to_physical() if bad.dtype.is_temporal() else bad  # outside the range of Python's dates
            self.examples["unreadable time"] = str(shown.to_list()[0])[:60]
            refuse_other_header(self.table, values.filter(unreadable), self.raw[_ROW].filter(unreadable))
            self._drop("unreadable time", unreadable)
            times = times.filter(~unreadable)
        return times, unit

    def _refuse_mostly_dropped(self) -> None:
        """Refuse a log with more unusable rows than allowed; most often a column or the format is wrong."""
        faults = {reason: count for reason, count in self.dropped.items() if not reason.startswith("not ")}
        considered = self.rows_in - sum(self.dropped.values()) + sum(faults.values())
        share = sum(faults.values()) / max(considered, 1)
        if share <= self.columns.max_dropped:
            return
        where = f"the first is {place_of_row(self.table, self.first_bad)}"
        raise DataError(
            f"{self.table.where}: most of the log cannot be used: {share:.0%} of {considered:,} rows are dropped "
            f"({in_words(faults, self.examples)}); {where}. Name the columns and the form (see ensue prepare --help), "
            "or allow it (--max-dropped 1)"
        )


def _check_feature(table: Table, name: str) -> None:
    present(table, name, "feature")
    taken = {"user", "item", "time", "rating", "row"}
    if not is_feature_name(name) or name in taken:
        raise DataError(
            f"feature {name!r}: must be a name of letters, digits and _ other than {', '.join(sorted(taken))}"
        )


def _missing(values: pl.Series) -> pl.Series:
    """True where a value is absent: null or an empty text."""
    if values.dtype == pl.String:
        return values.is_null() | (values == "").fill_null(False)
    return values.is_null()


def _feature(values: pl.Series, table: Table) -> pl.Series:
    """A feature in its own type; texts become integers or else numbers if all of them can."""
    if values.dtype.is_decimal():
        return values.cast(pl.Float64)
    if not table.text:
        return values
    missing = int(_missing(values).sum())
    for numbers in (canonical_ints(values), values.cast(pl.Float64, strict=False)):
        if numbers.null_count() == missing:
            return numbers
    return values
