"""Any log to one checked frame: who, what, when; every row that is left out is counted under a reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations, compress
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from pydantic import model_validator

from ensue.config import Config
from ensue.data.moments import TimeUnit, to_microseconds
from ensue.data.readers import MALFORMED, Format, Source, Table, UnclearLogError, collect, open_binary, open_table
from ensue.data.vocabulary import canonical_ints
from ensue.errors import DataError, nearest

NONE = "-"

# Column names that need no mention, in order of preference; compared without case, "_" and "-".
_USUAL = {
    "user": ("user", "userid", "reviewerid", "visitorid", "customerid", "uid", "sessionid", "session"),
    "item": (
        "item",
        "itemid",
        "movieid",
        "productid",
        "parentasin",
        "asin",
        "trackid",
        "songid",
        "bookid",
        "iid",
    ),
    "time": ("time", "timestamp", "unixtimestamp", "unixreviewtime", "datetime", "eventtime", "ts", "date"),
    "rating": ("rating", "score", "overall", "stars"),
}
USUAL_ITEM = _USUAL["item"]
_NUMBER = r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$"


class Columns(Config):
    """Which columns of a log mean what, and how its file is written.

    Attributes:
        user: column of the user (or session) ids; by default a usual name (user_id, userId, ...). In files
            without a header the columns are called "1", "2", ...
        item: column of the item ids.
        time: column of the times; "-" for none, and then the order of rows is the order of events.
        rating: column of the ratings; "-" for none.
        features: further columns kept for each event (event type, price, "split").
        format: "csv", "tsv", "space" (user item [time]), "::" (user::item::rating::time), "jsonl" or
            "parquet"; "auto" goes by suffix and first line.
        header: whether a text file starts with column names; by default seen from the first line of CSV and TSV
            files, and not so in space- and `::`-separated ones (one that looks so is refused until it is said).
        time_unit: unit of times that are numbers: "s", "ms", "us", "ns"; "auto" goes by their size.
        multiline: allow quoted CSV fields that run over several lines.
        quotes: double quotes enclose fields of CSV and TSV files; without, they are characters like others.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    features: tuple[str, ...] = ()
    format: Format = "auto"
    header: bool | None = None
    time_unit: TimeUnit = "auto"
    multiline: bool = False
    quotes: bool = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.multiline and not self.quotes:
            raise ValueError("multiline needs quotes, which enclose the fields that run over several lines")
        return self


@dataclass(frozen=True, eq=False)
class Interactions:
    """A checked log.

    Attributes:
        frame: `user` and `item` (String or Int64), `time` (Int64, microseconds since the epoch, if known),
            `rating` (Float64, if known, null where unreadable), the features under their own names, and `row`
            (the row of the source, from 0); in the source's order.
        rows_in: rows of the source; always `len(frame) + sum(dropped.values())`.
        dropped: reason -> rows left out.
        time_unit: the unit that times were read in ("date" for dates); None without times.
        columns: meaning -> the source's column.
        source: what was read.
        features: the features' names.
        examples: reason -> a value that it was given for, where that tells more than the reason.
    """

    frame: pl.DataFrame
    rows_in: int
    dropped: Mapping[str, int]
    time_unit: str | None
    columns: Mapping[str, str]
    source: str
    features: tuple[str, ...] = ()
    examples: Mapping[str, str] = field(default_factory=dict)


def in_words(dropped: Mapping[str, int], examples: Mapping[str, str]) -> str:
    """Rows left out by reason: `3 missing user, 1 unreadable time (such as 'soon')`."""
    return ", ".join(
        f"{count:,} {reason}" + (f" (such as {examples[reason]!r})" if reason in examples else "")
        for reason, count in dropped.items()
    )


def read_interactions(source: Source, columns: Columns | None = None) -> Interactions:
    """Read a log from a file or a frame and check it.

    Ids never change. In text files they are integers only if every one of the column is written as an int64
    is ("7", not "007" or "1e5"), else all are strings; "NA" and "null" are ids. In typed sources (JSON,
    Parquet, frames) they keep their type.

    Args:
        source: a CSV, TSV, space-separated, `::`-separated, JSON Lines or Parquet file, or a frame.
        columns: the columns' meaning.

    Raises:
        DataError: the source cannot be read, a column is missing or meant twice, or ids are of a type that loses
            digits.
    """
    columns = columns or Columns()
    table = open_table(source, columns.format, columns.header, columns.multiline, columns.quotes)
    chosen = _resolve(table, columns)
    raw = collect(table, list(dict.fromkeys([*chosen.values(), *columns.features])))
    rows_in = raw.height
    reasons: list[tuple[str, pl.Series]] = []
    if table.malformed is not None:
        reasons.append((MALFORMED, raw[MALFORMED]))
    kept: dict[str, pl.Series] = {}
    for meaning in ("user", "item"):
        kept[meaning] = _ids(raw[chosen[meaning]], chosen[meaning], table)
        reasons.append((f"missing {meaning}", _missing(kept[meaning])))
    unit = None
    examples: dict[str, str] = {}
    if "time" in chosen:
        values = raw[chosen["time"]]
        kept["time"], unit = to_microseconds(values, columns.time_unit)
        reasons.append(("missing time", _missing(values)))
        unreadable = kept["time"].is_null()
        reasons.append(("unreadable time", unreadable))
        for value in values.filter(unreadable & ~_missing(values)).head(1):
            examples["unreadable time"] = str(value)[:60]
    if "rating" in chosen:
        kept["rating"] = raw[chosen["rating"]].cast(pl.Float64, strict=False)
    for name in columns.features:
        kept[name] = _feature(raw[name], table)
    del raw
    keep, dropped = _sift(rows_in, reasons)
    kept["row"] = pl.int_range(rows_in, dtype=pl.Int64, eager=True)
    frame = pl.DataFrame({name: values.alias(name) for name, values in kept.items()})
    return Interactions(
        frame=frame if keep.all() else frame.filter(keep),
        rows_in=rows_in,
        dropped=dropped,
        time_unit=unit,
        columns=chosen,
        source=table.where,
        features=columns.features,
        examples=examples,
    )


def plain_name(name: str) -> str:
    """A column name as the tables of usual names write it: without case, "_" and "-"."""
    return name.lower().replace("_", "").replace("-", "")


def _resolve(table: Table, columns: Columns) -> dict[str, str]:
    """Meaning -> column, with every name checked."""
    chosen: dict[str, str] = {}
    places = _places(table, columns) if table.positional else {}
    for meaning, usual in _USUAL.items():
        named = getattr(columns, meaning)
        if named == NONE and meaning in ("time", "rating"):
            continue
        if named is not None:
            chosen[meaning] = _present(table, named, meaning)
        elif meaning in places:
            chosen[meaning] = places[meaning]
        elif not table.positional:
            plain = {plain_name(name): name for name in reversed(table.names)}
            found = [plain[name] for name in usual if name in plain]
            if found:
                chosen[meaning] = found[0]
            elif meaning in ("user", "item"):
                unnamed = [each for each in ("user", "item") if getattr(columns, each) is None]
                lacking = [each for each in unnamed if not set(_USUAL[each]) & set(plain)]
                raise UnclearLogError(
                    f"{table.where}: which column is the {meaning}? Columns: {', '.join(table.names)}",
                    " ".join(f"--{each} ..." for each in lacking),
                )
    for one, other in combinations([meaning for meaning in ("user", "item", "time") if meaning in chosen], 2):
        if chosen[one] == chosen[other]:
            raise DataError(f"{table.where}: column {chosen[one]!r} cannot be both the {one} and the {other}")
    taken = {"user", "item", "time", "rating", "row"}
    for name in columns.features:
        _present(table, name, "feature")
        if not name.isidentifier() or name in taken:
            raise DataError(f"feature {name!r}: a plain name other than {', '.join(sorted(taken))} is due")
    return chosen


def _places(table: Table, columns: Columns) -> dict[str, str]:
    """What the columns of a file without a header mean when nobody says."""
    count = len(table.names)
    if count < 2:
        raise DataError(f"{table.where}: one column only, a user and an item are due")
    places = {"user": "1", "item": "2"}
    if count == 3 and table.spaced:
        places["time"] = "3"
    elif count == 4:
        places |= {"rating": "3", "time": "4"}
    elif count >= 3 and columns.time is None and columns.rating is None:
        raise UnclearLogError(
            f"{table.where}: {count} columns without names; say which is the time ('-' for none)", "--time ..."
        )
    said = {getattr(columns, meaning) for meaning in _USUAL}
    return {meaning: place for meaning, place in places.items() if place not in said}


def _present(table: Table, name: str, meaning: str) -> str:
    if name not in table.names:
        raise DataError(f"{table.where}: no column {name!r} for the {meaning}: {nearest(name, table.names)}")
    return name


def _missing(values: pl.Series) -> pl.Series:
    """True where a value is absent: null, or an empty text."""
    if values.dtype == pl.String:
        return values.is_null() | (values == "").fill_null(False)
    return values.is_null()


def _ids(values: pl.Series, name: str, table: Table) -> pl.Series:
    if table.text:
        numbers = canonical_ints(values)
        return numbers if numbers.null_count() == int(_missing(values).sum()) else values
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    if values.dtype == pl.String:
        _refuse_mixed_json(values, name, table)
        return values
    if values.dtype.is_integer():
        exact = values.cast(pl.Int64, strict=False)
        # Integers beyond int64 become their digits, as they would from a text file.
        return exact if exact.null_count() == values.null_count() else values.cast(pl.String)
    if values.dtype == pl.Null:
        return values.cast(pl.String)
    hint = ""
    if values.dtype.is_float():
        hint = (
            ", which cannot hold large ids exactly (pandas makes integers with missing values floats: "
            "read the column as 'Int64' or as text)"
        )
    raise DataError(f"{table.where}: column {name!r} holds {values.dtype}{hint}; ids are strings or integers")


def _refuse_mixed_json(values: pl.Series, name: str, table: Table) -> None:
    """JSON Lines with both 7 and "7" would merge two ids, and 1e5 would become another text: refuse numbers
    among strings. Only the lines whose id looks like a number are parsed again."""
    path = Path(table.where)
    suspect = values.str.contains(_NUMBER).fill_null(False)
    if not suspect.any() or not path.is_file() or path.read_bytes()[:4] == b"PAR1":
        return
    with open_binary(path) as handle:
        filled = (line for line in enumerate(handle, start=1) if line[1].strip())
        for number, line in compress(filled, suspect):
            if not isinstance(json.loads(line)[name], str):
                raise DataError(f"{path}: line {number}: {name!r} is a number, elsewhere it is a string")


def _feature(values: pl.Series, table: Table) -> pl.Series:
    """A feature in its own type; of texts, integers if all are, else numbers if all are, else texts."""
    if not table.text:
        return values
    missing = int(_missing(values).sum())
    for numbers in (canonical_ints(values), values.cast(pl.Float64, strict=False)):
        if numbers.null_count() == missing:
            return numbers
    return values


def _sift(rows: int, reasons: list[tuple[str, pl.Series]]) -> tuple[pl.Series, dict[str, int]]:
    """The rows to keep, and how many fall to each reason; a row counts under the first that fits."""
    out = np.zeros(rows, dtype=bool)
    dropped = {}
    for reason, applies in reasons:
        fresh = applies.to_numpy() & ~out
        if count := int(fresh.sum()):
            dropped[reason] = count
            out |= fresh
    return pl.Series(~out), dropped
