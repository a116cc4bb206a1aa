"""A log or an item file as one kind of table: its rows, not yet read, and how its text was written."""

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
# Settings of the shape: recognised, or a plain table.
ANY_SHAPE, NO_SHAPE = "auto", "none"


class MissingColumnError(DataError):
    """A log has no column of a name that was given, or not the shape that was given."""


@dataclass(frozen=True)
class Table:
    """An opened source.

    Attributes:
        rows: the rows, not yet read.
        names: its columns; "1", "2", ... in files without a header.
        where: what to call it in messages.
        file: the text file, if it is one.
        text: every value is text as it was written (CSV and its like), so types are still to be found.
        positional: the columns have no names of their own.
        spaced: the fields were separated by blanks.
        quoted: there are quotes, and they enclose fields.
        multiline: fields may run over several lines.
        separator: what ends a field in CSV and TSV files.
        by_line: each line that is not blank, after that of the names, is a row.
        malformed: an expression that is true for rows with a wrong number of fields, in files split by lines.
        uneven: the same table with rows that may differ in their fields, where too long and too short ones even out.
        kinds: gives the kind of each row (see `lines.row_kinds`), in CSV files whose rows differ in their fields.
        check: called with the number of rows read; raises when rows were swallowed.
        meanings: meaning -> column, where the shape of the log defines it; "-" for none.
        shape: the published shape that the log has; "" for none.
        evidence: how the shape was recognised, and what of the log is not read.
        events: turns all rows of a log of this shape into events, where that takes several rows at once.
        join: the parts of a log in several; `rows` are then those of one of them, for a look at its values.
        features: columns that are kept for each event without being named.
        keeps: what must last as long as the table.
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
        names: what to call each part.
        opens: opens each part; a part in memory is opened when it is read, so that one of them is there at a time.
        heights: rows of each part, once they are read.
    """

    names: tuple[str, ...]
    opens: tuple[Callable[[], Table], ...]
    heights: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """How a text file is to be read.

    Attributes:
        form: the file's format; "auto" goes by suffix and first line.
        header: whether a text file starts with names. By default a CSV or TSV file does unless a field of the
            first line is a number, and a space- or `::`-separated file does not, but one that looks so is refused.
        multiline: allow quoted CSV fields that run over several lines.
        quotes: quotes enclose fields of CSV and TSV files; False: they are characters like others.
        encoding: how characters are encoded; by default UTF-8, and UTF-16 where the first bytes say so.
        separator: the text between fields; None: by the form.
        skip: lines at the start that are not read.
        comment: lines that start with this text are not read; "" for none.
        shape: the published shape; "auto": as recognised, "none": a plain table.
        most: how many bytes of a text file are read, up to the end of a line; None: all.
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


def collect(
    table: Table, columns: list[str], check: Callable[[Table, pl.DataFrame], None] = lambda *_: None
) -> pl.DataFrame:
    """Read the named columns of every row; blank lines are no rows.

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
        what = f"where its rows end cannot be told: {frame.height:,} or {len(kinds):,} rows"
        raise unclear_quotes(table.file, what, table.multiline)
    frame = frame.with_columns(pl.Series(MALFORMED, kinds != SOUND))
    return frame if not (kinds == EMPTY).any() else frame.filter(pl.Series(kinds != EMPTY))


def place_of_row(table: Table, row: int) -> str:
    """Where a row (from 0) of a table that was read is, in words: its part, line and text, as far as they are known."""
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
    """The parts of a log that was read, each with its rows; `rows` are those of all."""
    if table.join is None:
        return ((table.where, rows),)
    return tuple(zip(table.join.names, table.join.heights, strict=True))


def unclear_quotes(file: TextFile, what: str, multiline: bool) -> UnclearLogError:
    """Quotes of a CSV file that may enclose fields or not.

    Args:
        file: the file.
        what: what is wrong with them.
        multiline: fields of several lines are read already.
    """
    what += ": of a log, --no-quotes (quotes=False) reads quotes as characters like others"
    answers = [Answer({"quotes": False}, "quotes are characters like others")]
    if multiline:
        answers = [Answer({"quotes": False, "multiline": False}, "quotes are characters like others")]
    else:
        what += ", and --multiline (multiline=True) fields of several lines"
        answers.append(Answer({"multiline": True}, "quotes enclose fields, which may run over several lines"))
    lines = tuple((line,) for line in first_lines(file, SHOWN_ROWS))
    return UnclearLogError(Doubt(what, tuple(answers), where=str(file.path), rows=lines))


def why_unreadable(file: TextFile, is_json: bool) -> str:
    """Name the first line that a text file cannot be read for; empty if there is none."""
    try:
        return undecodable(file) or (unreadable_json(file) if is_json else "")
    except DAMAGED as error:
        return f"cannot be read ({error})"


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return str(error).strip().split("\n")[0]
