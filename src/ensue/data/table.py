"""A log or an item file as one kind of table: lazy rows and the format of the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl

from ensue.data.doubt import SHOWN_ROWS, Answer, Doubt, UnclearLogError
from ensue.data.lines import EMPTY, SOUND, first_lines, line_of_row, unbalanced, undecodable, unreadable_json
from ensue.data.stacking import stack
from ensue.data.unpacking import DAMAGED, TextFile
from ensue.errors import DataError

Format = Literal["auto", "csv", "tsv", ";", "|", "space", "::", "jsonl", "parquet", "arrow", "avro"]

MALFORMED = "malformed row"
# First bytes of Parquet, Feather and Avro files.
TYPED = (b"PAR1", b"ARROW1", b"Obj\x01")
# Settings of the shape: recognised, or a plain table.
ANY_SHAPE, NO_SHAPE = "auto", "none"


class MissingColumnError(DataError):
    """A log lacks a column that was named, or does not have the shape that was named."""


@dataclass(frozen=True)
class Table:
    """An opened source.

    Attributes:
        rows: the rows, not yet read.
        names: the columns; "1", "2" and so on in files without a header.
        where: name for messages.
        file: the text file, if there is one.
        text: whether all values are texts, as in CSV files; types are then determined later.
        positional: whether the columns have no names of their own.
        spaced: whether the fields are separated by blanks.
        quoted: whether there are quotes that enclose fields.
        multiline: whether fields may span several lines.
        separator: the separator of fields in CSV and TSV files.
        by_line: whether every line that is not blank, except for the header, is a row.
        malformed: an expression that is true for rows with a wrong number of fields, in files split by lines.
        uneven: the same table for rows of different numbers of fields, if rows that are too long balance short ones.
        kinds: function that returns the kind of each row (see `lines.row_kinds`), for CSV files with such rows.
        check: called with the number of rows read; raises an error if rows were swallowed.
        meanings: meaning -> column, if defined by the shape of the log; "-" for none.
        shape: the published shape of the log; "" for none.
        evidence: how the shape was recognised, and which part of the log is not read.
        events: function that turns all rows of a log of this shape into events, if that requires several rows at once.
        join: the parts of a log of several parts; `rows` then has the rows of one of them, as a sample of values.
        features: columns that are kept for each event without being named.
        keeps: an object that must exist as long as the table.
    """

    rows: pl.LazyFrame
    names: list[str]
    where: str
    file: TextFile | None = None
    text: bool = False
    positional: bool = False
    spaced: bool = False
    quoted: bool = False
    multiline: bool = False
    separator: str = ""
    by_line: bool = True
    malformed: pl.Expr | None = None
    uneven: Table | None = None
    kinds: Callable[[], np.ndarray] | None = None
    check: Callable[[int], None] = lambda _: None
    meanings: Mapping[str, str] = field(default_factory=dict)
    shape: str = ""
    evidence: str = ""
    events: Callable[[Table], Table] | None = None
    join: Join | None = None
    features: tuple[str, ...] = ()
    keeps: object = None


@dataclass(frozen=True)
class Join:
    """The parts of a log.

    Attributes:
        names: the name of each part for messages.
        opens: functions that open the parts; a part in memory is opened when it is read, so only one exists at a time.
        heights: number of rows of each part, once they are read.
    """

    names: tuple[str, ...]
    opens: tuple[Callable[[], Table], ...]
    heights: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """Settings for reading a text file.

    Attributes:
        form: the file's format; "auto" uses the suffix and the first line.
        header: whether a text file starts with names. By default a CSV or TSV file does unless a field of the
            first line is a number, and a space- or `::`-separated file does not, but one that looks so is refused.
        multiline: allow quoted CSV fields that span several lines.
        quotes: quotes enclose fields of CSV and TSV files; False: they are ordinary characters.
        encoding: character encoding; default: UTF-8, or UTF-16 if the file starts with its mark.
        separator: the text between fields; None: by the form.
        skip: number of lines to skip at the start.
        comment: lines that start with this text are skipped; "" for none.
        shape: the published shape; "auto": as recognised, "none": a plain table.
        most: the most bytes of a text file to read, cut at the end of a line; None: all.
        name: name of the file for messages; default: its path.
    """

    form: Format = "auto"
    header: bool | None = None
    multiline: bool = False
    quotes: bool = True
    encoding: str | None = None
    separator: str | None = None
    skip: int = 0
    comment: str = ""
    shape: str = ANY_SHAPE
    most: int | None = None
    name: str = ""


def collect(
    table: Table, columns: list[str], check: Callable[[Table, pl.DataFrame], None] = lambda *_: None
) -> pl.DataFrame:
    """Read the named columns of every row; blank lines are not rows.

    Args:
        table: the log.
        columns: the columns.
        check: called with each part of the log and its rows.

    Returns:
        The columns, and `MALFORMED` where some rows have a wrong number of fields.

    Raises:
        DataError: a file is broken, or a column is of one type in one part and of another in the next.
        UnclearLogError: it is one with quotes, and they may be why; or an unclosed one would swallow rows.
    """
    if table.join is None:
        frame = _collect(table, columns)
        check(table, frame)
        return frame
    frames = [collect(open_part(), columns, check) for open_part in table.join.opens]
    table.join.heights[:] = [frame.height for frame in frames]
    return stack(frames, table.join.names)


def _collect(table: Table, columns: list[str]) -> pl.DataFrame:
    wanted = [pl.col(name) for name in columns]
    if table.malformed is not None:
        wanted.append(table.malformed.alias(MALFORMED))
    try:
        frame = table.rows.select(wanted).collect(engine="streaming")
    except (pl.exceptions.PolarsError, *DAMAGED) as error:
        if table.uneven is not None and "more fields" in str(error):
            return _collect(table.uneven, columns)
        why = None if table.file is None else why_unreadable(table.file, not table.text)
        if why:
            raise DataError(f"{table.where}: {why}") from None
        if not table.quoted or table.file is None:
            raise DataError(f"{table.where}: cannot be read ({first_line(error)})") from None
        where = unbalanced(table.file) or "it holds quotes"
        raise unclear_quotes(table.file, f"cannot be read ({first_line(error)}); {where}", table.multiline) from None
    table.check(frame.height)
    if table.kinds is None:
        return frame
    kinds = table.kinds()
    if len(kinds) != frame.height:
        assert table.file is not None
        what = f"cannot determine where its rows end: {frame.height:,} or {len(kinds):,} rows"
        raise unclear_quotes(table.file, what, table.multiline)
    frame = frame.with_columns(pl.Series(MALFORMED, kinds != SOUND))
    return frame if not (kinds == EMPTY).any() else frame.filter(pl.Series(kinds != EMPTY))


def place_of_row(table: Table, row: int) -> str:
    """The place of a row (from 0) as text: its part, line and content, as far as they are known."""
    part, of = table, ""
    if table.join is not None:
        for open_part, height in zip(table.join.opens, table.join.heights, strict=True):
            if row < height:
                part = open_part()
                of = f" of {part.where}"
                break
            row -= height
    if part.file is None or part.multiline or not part.by_line or part.events is not None:
        return f"row {row + 1:,}{of}"
    number, text = line_of_row(part.file, row, part.text and not part.positional)
    return f"line {number:,}{of}: {text!r}"


def rows_of_parts(table: Table, rows: int) -> tuple[tuple[str, int], ...]:
    """The parts of a log that was read, each with its number of rows; `rows` is the number of all."""
    if table.join is None:
        return ((table.where, rows),)
    return tuple(zip(table.join.names, table.join.heights, strict=True))


def unclear_quotes(file: TextFile, what: str, multiline: bool) -> UnclearLogError:
    """The error for quotes of a CSV file that may or may not enclose fields.

    Args:
        file: the file.
        what: the fault of the quotes.
        multiline: whether fields of several lines are already allowed.
    """
    what += ": of a log, --no-quotes (quotes=False) reads quotes as characters like others"
    answers = [Answer({"quotes": False}, "quotes are characters like others")]
    if multiline:
        answers = [Answer({"quotes": False, "multiline": False}, "quotes are characters like others")]
    else:
        what += ", and --multiline (multiline=True) fields of several lines"
        answers.append(Answer({"multiline": True}, "quotes enclose fields, which may run over several lines"))
    lines = tuple((line,) for line in first_lines(file, SHOWN_ROWS))
    return UnclearLogError(Doubt(what, tuple(answers), where=file.where, rows=lines))


def why_unreadable(file: TextFile, is_json: bool) -> str:
    """A message about the first line of a text file that cannot be read; empty if there is none."""
    try:
        return undecodable(file) or (unreadable_json(file) if is_json else "")
    except DAMAGED as error:
        return f"cannot be read ({error})"


def first_line(error: Exception) -> str:
    """The first line of an error message."""
    return str(error).strip().split("\n")[0]
