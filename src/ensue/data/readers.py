"""Files and frames of many forms, opened as one kind of table. Ids stay the text they were written as."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import polars as pl

from ensue.errors import DataError

Format = Literal["auto", "csv", "tsv", "space", "::", "jsonl", "parquet"]

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_SEPARATORS = {"csv": ",", "tsv": "\t"}
# Splits no line: the byte is not allowed in text files, and one that holds it is refused.
_NO_SEPARATOR = "\x01"
# Lines after the first that are looked at to tell whether the first one holds names.
_LOOKED_AT = 10
MALFORMED = "malformed row"
_SAY_QUOTES = (
    ": of a log, --no-quotes (quotes=False) reads quotes as characters like others, and --multiline (multiline=True) "
    "fields of several lines"
)
_MORE = "\x01more"
# What reading a damaged file raises, packed or not.
DAMAGED = (OSError, EOFError, zlib.error)


class UnclearLogError(DataError):
    """A log that can be read once somebody says what its columns mean or how it is written.

    Args:
        message: what is unclear.
        flags: the flags of `ensue prepare` that say it.
    """

    def __init__(self, message: str, flags: str) -> None:
        super().__init__(message)
        self.flags = flags


@runtime_checkable
class ArrowStream(Protocol):
    """Any frame that exports itself as an Arrow stream: polars, pandas, pyarrow, DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The Arrow C stream capsule."""


Source = str | Path | pl.DataFrame | pl.LazyFrame | ArrowStream


@dataclass(frozen=True)
class Table:
    """An opened source.

    Attributes:
        rows: the rows, not yet read.
        names: its columns; "1", "2", ... in files without a header.
        where: what to call it in messages.
        text: every value is text as it was written (CSV and its like), so types are still to be found.
        positional: the columns have no names of their own.
        spaced: the fields were separated by blanks.
        quoted: there are quotes, and they enclose fields.
        separator: what ends a field in CSV and TSV files.
        malformed: an expression that is true for rows with a wrong number of fields, if the format has such.
        check: called with the number of rows read; raises when rows were swallowed.
    """

    rows: pl.LazyFrame
    names: list[str]
    where: str
    text: bool = False
    positional: bool = False
    spaced: bool = False
    quoted: bool = False
    separator: str = ""
    malformed: pl.Expr | None = None
    check: Callable[[int], None] = lambda _: None


def open_table(
    source: Source,
    form: Format = "auto",
    header: bool | None = None,
    multiline: bool = False,
    quotes: bool = True,
) -> Table:
    """Open a file or a frame.

    Args:
        source: a path, or a frame.
        form: the file's format; "auto" goes by suffix and first line.
        header: whether a text file starts with names. By default a CSV or TSV file does unless a field of the
            first line is a number, and a space- or `::`-separated file does not, but one that looks so is refused.
        multiline: allow quoted CSV fields that run over several lines.
        quotes: quotes enclose fields of CSV and TSV files; False: they are characters like others.

    Raises:
        DataError: there is no such file, it is empty, or it is not what it should be.
    """
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        rows = source.lazy()
        return Table(rows, rows.collect_schema().names(), "the frame")
    if isinstance(source, str | Path):
        return _open_file(Path(source), form, header, multiline, quotes)
    if isinstance(source, ArrowStream):
        try:
            frame = pl.DataFrame(source)
        except (ValueError, TypeError, pl.exceptions.PolarsError) as error:  # a column of mixed types
            raise DataError(f"cannot read the {type(source).__name__} ({_first_line(error)})") from None
        return Table(frame.lazy(), frame.columns, f"the {type(source).__name__}")
    raise DataError(f"cannot read {type(source).__name__}: a path or a frame with an Arrow stream is due")


def _open_file(path: Path, form: Format, header: bool | None, multiline: bool, quotes: bool) -> Table:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if form == "auto":
        form = sniff(path)
    try:
        if form == "parquet":
            rows = pl.scan_parquet(path, glob=False)
            return Table(rows, rows.collect_schema().names(), str(path))
        if form == "jsonl":
            # It has no switch for patterns.
            rows = pl.scan_ndjson(glob.escape(str(path)), infer_schema_length=None)
            return Table(rows, rows.collect_schema().names(), str(path))
        if form in _SEPARATORS:
            return _open_separated(path, _SEPARATORS[form], header, multiline, quotes)
        return _open_lines(path, "::" if form == "::" else None, header)
    except (pl.exceptions.PolarsError, *DAMAGED) as error:
        raise DataError(f"{path}: not readable as {form} ({_first_line(error)})") from None


def sniff(path: Path) -> Format:
    """The format of a file by its suffix (".gz" put aside), else by its first line.

    Raises:
        DataError: the file is empty.
        UnclearLogError: its first line is of no known form.
    """
    known = _SUFFIXES.get(Path(path.name.removesuffix(".gz")).suffix.lower())
    if known is not None:
        return known
    line = _head(path)
    if line.startswith("PAR1"):
        return "parquet"
    if line.lstrip().startswith("{"):
        return "jsonl"
    marks: tuple[tuple[str, Format], ...] = (("::", "::"), ("\t", "tsv"), (",", "csv"), (" ", "space"))
    for mark, form in marks:
        if mark in line:
            return form
    raise UnclearLogError(
        f"{path}: cannot tell the format from {line[:60]!r}; name it (csv, tsv, space, ::, jsonl)", "--format ..."
    )


def _open_separated(path: Path, separator: str, header: bool | None, multiline: bool, quotes: bool) -> Table:
    head = _head(path)
    _check_line_ends(path, head, quotes)
    first = next(csv.reader([head], delimiter=separator)) if quotes else head.split(separator)
    named = header if header is not None else not any(_is_number(field) for field in first)
    if named:
        # Columns without a name cannot be asked for, so they may be many.
        _check_names(path, [name for name in first if name])
    lines, quoted = _count_lines(path)
    quoted = quoted and quotes
    if quoted and not multiline and head.count('"') % 2:  # what are columns cannot be told
        raise UnclearLogError(f"{path}: {_unbalanced(path)}{_SAY_QUOTES}", "--no-quotes")
    rows = pl.scan_csv(
        path,
        separator=separator,
        has_header=named,
        infer_schema=False,
        glob=False,
        quote_char='"' if quoted else None,
        new_columns=None if named else [str(i + 1) for i in range(len(first))],
    )
    names = rows.collect_schema().names()
    due = lines - 1 if named else lines

    def check(count: int) -> None:
        # Blank lines before the header are no rows; a swallowed line needs an earlier one left open.
        if quoted and not multiline and count != due and (found := _unbalanced(path)):
            raise UnclearLogError(f"{path}: {count} rows read from {due} lines; {found}{_SAY_QUOTES}", "--no-quotes")

    return Table(
        rows, names, str(path), text=True, positional=not named, quoted=quoted, separator=separator, check=check
    )


def _open_lines(path: Path, separator: str | None, header: bool | None) -> Table:
    """A file whose lines are split at the separator; at blanks if it is None. Blank lines are left out."""
    head = [line.strip() for line in _first_lines(path, 1 + _LOOKED_AT)]
    _check_line_ends(path, head[0], quotes=False)
    first, *following = [line.split(separator) for line in head]
    if header is None and _looks_like_names(first, following):
        raise UnclearLogError(
            f"{path}: does the first line hold names or an event? {head[0][:60]!r}: say so (--header or "
            "--no-header, header=True or False)",
            "--header",
        )
    if header:
        _check_names(path, first)
    lines = pl.scan_csv(
        path,
        separator=_NO_SEPARATOR,
        has_header=bool(header),
        quote_char=None,
        infer_schema=False,
        glob=False,
        new_columns=["line"],
    )
    line = pl.col("line")
    # Blank lines are no rows; polars reads those without any character as null.
    lines = lines.filter(line.str.strip_chars() != "")
    if separator is None:
        line = line.str.strip_chars().str.replace_all(r"\s+", " ")
    names = first if header else [str(i + 1) for i in range(len(first))]
    fields = line.str.split_exact(separator or " ", len(first)).struct.rename_fields([*names, _MORE])
    rows = lines.select(fields.alias("fields")).unnest("fields")
    malformed = pl.col(_MORE).is_not_null() | pl.col(names[-1]).is_null()
    return Table(rows, names, str(path), True, positional=not header, spaced=separator is None, malformed=malformed)


def _check_line_ends(path: Path, head: str, quotes: bool) -> None:
    before, mark, _ = head.partition("\r")
    if mark and not (quotes and before.count('"') % 2):
        raise DataError(f"{path}: a line ends in CR alone ({before[:60]!r}): write the line ends as LF or CRLF")


def _check_names(path: Path, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise DataError(f"{path}: the first line names a column twice: {', '.join(names)}")


def _looks_like_names(first: list[str], following: list[list[str]]) -> bool:
    """Whether no field of the first line is a number, and some column is one in all of the following lines."""
    if not following or any(_is_number(field) for field in first):
        return False
    return any(all(_is_number(field) for field in column) for column in zip(*following, strict=False))


def collect(table: Table, columns: list[str]) -> pl.DataFrame:
    """Read the named columns of every row.

    Raises:
        DataError: the file is broken.
        UnclearLogError: it is one with quotes, and they may be why; or an unclosed one would swallow rows.
    """
    wanted = [pl.col(name) for name in columns]
    if table.malformed is not None:
        wanted.append(table.malformed.alias(MALFORMED))
    try:
        frame = table.rows.select(wanted).collect(engine="streaming")
    except (pl.exceptions.PolarsError, *DAMAGED) as error:
        told = f"{table.where}: cannot be read ({_first_line(error)})"
        if not table.quoted:
            raise DataError(told) from None
        found = _unbalanced(Path(table.where)) or "it holds quotes"
        raise UnclearLogError(f"{told}; {found}{_SAY_QUOTES}", "--no-quotes") from None
    table.check(frame.height)
    return frame


def open_binary(path: Path) -> io.BufferedIOBase:
    """Open a file for reading bytes, unpacking gzip."""
    with path.open("rb") as handle:
        packed = handle.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _head(path: Path) -> str:
    """The first line that is not empty."""
    return _first_lines(path, 1)[0]


def _first_lines(path: Path, count: int) -> list[str]:
    """Up to `count` lines that are not empty, at least one."""
    found: list[str] = []
    try:
        with open_binary(path) as handle:
            for raw in handle:
                line = raw[:65536].removeprefix(b"\xef\xbb\xbf").decode(errors="replace").rstrip("\r\n")
                if line.strip():
                    found.append(line)
                if len(found) == count:
                    break
    except DAMAGED as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if not found:
        raise DataError(f"{path}: the file is empty")
    return found


def _count_lines(path: Path) -> tuple[int, bool]:
    """The number of lines, and whether there is any quote."""
    lines, quoted, last = 0, False, b"\n"
    with open_binary(path) as handle:
        while chunk := handle.read(1 << 22):
            lines += chunk.count(b"\n")
            quoted = quoted or b'"' in chunk
            last = chunk[-1:]
    return lines + (last != b"\n"), quoted


def _unbalanced(path: Path) -> str:
    """Name the first line with a quote that is not closed on it; empty when there is none."""
    with open_binary(path) as handle:
        for number, line in enumerate(handle, start=1):
            if line.count(b'"') % 2:
                return f"line {number} opens a quote and does not close it"
    return ""


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return field.strip().lower() not in ("nan", "inf", "infinity", "-inf")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
