"""Shapes of published logs: a name, the evidence and a reader for each. Recognisers register here by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

import polars as pl

from ensue.data.lines import split_fields
from ensue.data.readers import open_separated, scan_lines
from ensue.data.table import ANY_SHAPE, NO_SHAPE, Reading, Table
from ensue.data.unpacking import TextFile
from ensue.registry import Registry

NO_COLUMN = "-"
# The share of the first lines that must have the same number of fields, and the share of these that must match.
MOST, MATCHING = 0.7, 0.9


@dataclass(frozen=True)
class Sample:
    """The beginning of a log, as passed to recognisers.

    Attributes:
        where: name of the log for messages.
        file: the text file; None for typed files and frames.
        lines: the first lines that are not blank; empty for typed files.
        schema: the columns of a typed file or frame; empty for text.
        rows: the rows of a typed file or frame.
        reading: the user's settings for reading the file.
    """

    where: str = "the frame"
    file: TextFile | None = None
    lines: Sequence[str] = ()
    schema: Mapping[str, pl.DataType] = field(default_factory=dict)
    rows: pl.LazyFrame | None = None
    reading: Reading = field(default_factory=Reading)

    @cached_property
    def separator(self) -> str:
        """The separator of the lines; empty if there is none."""
        if self.file is None or not self.lines or self.lines[0].lstrip().startswith(("{", "[")):
            return ""
        return guess_separator(self.lines)

    @cached_property
    def fields(self) -> list[list[str]]:
        """The fields of the first lines, without surrounding blanks."""
        return self.split(self.separator)

    def split(self, separator: str) -> list[list[str]]:
        """The fields of the first lines, split at a separator; none without one."""
        if not separator:
            return []
        if separator == " ":
            return [line.split() for line in self.lines[:50]]
        return [[part.strip() for part in split_fields(line, separator)] for line in self.lines[:50]]

    @cached_property
    def header(self) -> list[str]:
        """The fields of the first line as names of columns; for typed files, the names in the schema."""
        return list(self.schema) or (self.fields[0] if self.fields else [])

    def open(self, separator: str, header: bool) -> Table:
        """The file as a table of texts, split at one character."""
        assert self.file is not None
        return open_separated(self.file, separator, replace(self.reading, header=header))


@dataclass(frozen=True)
class Shape:
    """A recognised shape.

    Attributes:
        name: its name in the registry.
        evidence: the properties it was recognised by, and what is not read, as text for the report.
        meanings: meaning (user, item, time, rating) -> column of the table; "-" for none.
        read: function that opens the file.
        events: function that turns all rows into events, if single rows do not suffice: for a log in several parts
            it gets those of all.
    """

    name: str
    evidence: str
    meanings: Mapping[str, str]
    read: Callable[[], Table]
    events: Callable[[Table], Table] | None = None


Recogniser = Callable[[Sample], Shape | None]

_HERE = "ensue.data.shapes."
# Shape -> its module. From the most specific to the most general: the first that recognises a sample decides.
SHAPES: Registry[Recogniser] = Registry(
    "shape",
    {name: _HERE + name for name in ("recbole", "otto", "mind", "spotify", "netflix")}
    | dict.fromkeys(("steam", "epinions"), _HERE + "literals")
    | dict.fromkeys(
        (
            *("diginetica", "yoochoose", "retailrocket", "trivago", "ijcai-15", "ijcai-16", "rec-tmall", "tianchi"),
            *("taobao", "jdata", "rees46", "lastfm-1k", "lastfm-360k", "lastfm-2k", "delicious", "30music", "yambda"),
            *("twitch", "gowalla", "brightkite", "foursquare", "hm", "ta-feng", "online-retail", "instacart"),
            *("amazon-m2", "goodreads", "book-crossing", "amazon-2018", "amazon-2014", "amazon-2023", "yelp"),
            *("food.com", "douban", "anime", "kuairec", "kuairand", "tenrec", "movielens", "movielens-100k"),
            "movielens-dat",
        ),
        _HERE + "tables",
    )
    | dict.fromkeys(("konect", "snap"), _HERE + "edges")
    | {name: _HERE + name for name in ("spreadsheet", "sequences")}
    | {"mind-impressions": _HERE + "mind"},
)


def recognise(sample: Sample) -> Shape | None:
    """The shape of a log, or None if no published shape matches; if the user names a shape, only that is tried."""
    stated = sample.reading.shape
    for name in () if stated == NO_SHAPE else SHAPES if stated == ANY_SHAPE else (stated,):
        shape = SHAPES[name](sample)
        if shape is not None:
            return shape
    return None


def all_match(rows: list[list[str]], patterns: Sequence[str]) -> bool:
    """Whether most of the first lines have one field for each pattern, and the fields match them.

    The last line is left out, since it may be cut off. One line in ten may be damaged.
    """
    rows = usual_rows(rows[:-1] or rows, len(patterns))
    matches = [all(map(re.fullmatch, patterns, row)) for row in rows]
    return bool(rows) and sum(matches) >= MATCHING * len(rows)


def usual_rows(rows: list[list[str]], count: int) -> list[list[str]]:
    """The rows with `count` fields if they are the large majority; otherwise an empty list."""
    usual = [row for row in rows if len(row) == count]
    return usual if len(usual) >= MOST * len(rows) else []


def with_times(name: str, times: pl.Expr) -> Callable[[Table], Table]:
    """A function that adds a column of times, computed from the file's own format."""
    return lambda table: with_rows(table, table.rows.with_columns(times.alias(name)))


def with_rows(table: Table, rows: pl.LazyFrame) -> Table:
    """A copy of the table with other rows."""
    return replace(table, rows=rows, names=rows.collect_schema().names())


def split_lines(file: TextFile, separator: str, count: int) -> Table:
    """A file without a header, each line split at `separator`, or at any run of blanks if that is one blank."""
    line = pl.col("line").str.strip_chars()
    lines = scan_lines(file).filter(line != "")
    if separator == " ":
        line = line.str.replace_all(r"\s+", " ")
    names = [str(place + 1) for place in range(count)]
    fields = line.str.split_exact(separator, count).struct.rename_fields([*names, "more"])
    rows = lines.select(fields.alias("fields")).unnest("fields")
    malformed = pl.col("more").is_not_null() | pl.col(names[-1]).is_null()
    return Table(rows, names, file.where, file, text=True, positional=True, malformed=malformed)


def guess_separator(lines: Sequence[str]) -> str:
    """The separator that divides most lines into the same number of fields; "" if there is none."""
    marks = [mark for mark in ("::", "\t", ";", "|", ",", " ") if mark in lines[0]]
    # Blanks also occur within names and dates.
    for among, least in product(([mark for mark in marks if mark != " "], marks), (1.0, MOST)):
        for mark in among:
            counts = [len(split_fields(line, mark)) for line in lines[:20]]
            if counts.count(counts[0]) >= least * len(counts):
                return mark
    return marks[0] if marks else ""
