"""Open files and frames of many formats as one kind of table. Ids of text files remain texts, as written."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from ensue.data.doubt import SHOWN_ROWS, Answer, Doubt, UnclearLogError
from ensue.data.lines import (
    NO_SEPARATOR,
    check_lines,
    count_bytes,
    first_lines,
    row_kinds,
    split_fields,
    unbalanced,
    undecodable,
)
from ensue.data.sources import ArrowStream, Source
from ensue.data.table import Format, Reading, Table, first_line, unclear_quotes, why_unreadable
from ensue.data.unpacking import DAMAGED, TextFile, first_bytes
from ensue.errors import DataError

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "arrow",
    ".arrow": "arrow",
    ".avro": "avro",
}
_SEPARATORS = {"csv": ",", "tsv": "\t", ";": ";", "|": "|"}
# First bytes of files with typed columns.
_TYPED: tuple[tuple[bytes, Format], ...] = ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"Obj\x01", "avro"))
_PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip", ".zz")
# Number of lines after the first that are used to decide whether the first line contains names.
LOOKED_AT = 10
_MORE = "\x01more"


def open_table(source: Source, reading: Reading | None = None) -> Table:
    """Open a file or a frame.

    Args:
        source: a path, or a frame.
        reading: settings for reading a text file.

    Raises:
        DataError: there is no such file, it is empty, or it is not what it should be.
    """
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        rows = source.lazy()
        return Table(rows, rows.collect_schema().names(), "the frame")
    if isinstance(source, str | Path):
        return _open_file(Path(source), reading or Reading())
    if isinstance(source, ArrowStream):
        try:
            frame = pl.DataFrame(source)
        except (ValueError, TypeError, pl.exceptions.PolarsError) as error:  # a column of mixed types
            raise DataError(f"cannot read the {type(source).__name__} ({first_line(error)})") from None
        return Table(frame.lazy(), frame.columns, f"the {type(source).__name__}")
    raise DataError(f"cannot read {type(source).__name__}: give a path or a frame with an Arrow stream")


def _open_file(path: Path, reading: Reading) -> Table:
    where = reading.name or str(path)
    if not path.is_file():
        raise DataError(f"{where}: " + ("is not a plain file" if path.exists() else "no such file"))
    form: str = reading.form
    try:
        if form == "auto":
            form = _form_by_bytes_or_name(path)
        if form in ("parquet", "arrow", "avro"):
            rows = _scan_typed(path, form)
            return Table(rows, rows.collect_schema().names(), where)
        file = TextFile.at(path, reading.encoding, reading.skip, reading.comment, reading.most, reading.name)
        if reading.separator is not None:
            return _open_with_separator(file, reading.separator, reading)
        if form == "auto" or (form == "csv" and reading.form == "auto"):
            form = sniff(file, named_csv=form == "csv")
        if form == "jsonl":
            return _open_json(file)
        if form in _SEPARATORS:
            return open_separated(file, _SEPARATORS[form], reading)
        return _open_lines(file, "::" if form == "::" else None, reading.header)
    except (pl.exceptions.PolarsError, *DAMAGED) as error:
        raise DataError(f"{where}: not readable as {form} ({first_line(error)})") from None


def _open_with_separator(file: TextFile, separator: str, reading: Reading) -> Table:
    if separator == " ":
        return _open_lines(file, None, reading.header)
    if len(separator.encode()) > 1:
        return _open_lines(file, separator, reading.header)
    return open_separated(file, separator, reading)


def _form_by_bytes_or_name(path: Path) -> Format:
    head = first_bytes(path, 16)
    for mark, form in _TYPED:
        if head.startswith(mark):
            return form
    plain = Path(path.stem) if path.suffix.lower() in _PACKED_SUFFIXES else path
    return _SUFFIXES.get(plain.suffix.lower(), "auto")


def _scan_typed(path: Path, form: str) -> pl.LazyFrame:
    if form == "parquet":
        return pl.scan_parquet(path, glob=False)
    if form == "arrow":
        return pl.read_ipc(path).lazy()
    return pl.read_avro(path).lazy()


def _open_json(file: TextFile) -> Table:
    rows = pl.scan_ndjson(file.for_json(), infer_schema_length=None)
    try:
        return Table(rows, rows.collect_schema().names(), file.where, file)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{file.where}: {why_unreadable(file, True) or first_line(error)}") from None


def sniff(file: TextFile, named_csv: bool = False) -> Format:
    """The format of a text file by its first line.

    Args:
        file: the file.
        named_csv: the name ends in `.csv`, so only the separator is to be determined.

    Raises:
        DataError: the file is empty, or its first line is of no known form.
    """
    line = first_lines(file, 1)[0]
    if named_csv:
        other = max((";", "|", "\t"), key=line.count)
        forms: dict[str, Format] = {";": ";", "|": "|", "\t": "tsv"}
        return forms[other] if line.count(other) > line.count(",") else "csv"
    if line.lstrip().startswith("{"):
        return "jsonl"
    marks: tuple[tuple[str, Format], ...] = (
        ("::", "::"),
        ("\t", "tsv"),
        (";", ";"),
        ("|", "|"),
        (",", "csv"),
        (" ", "space"),
    )
    for mark, form in marks:
        if mark in line:
            return form
    raise DataError(
        f"{file.where}: the format is not clear from {line[:60]!r}: name it (--format csv, tsv, ';', '|', space, :: or "
        "jsonl)"
    )


def open_separated(file: TextFile, separator: str, reading: Reading) -> Table:
    """Open a CSV file or a similar one; a DataError names a line end or a header that cannot be read."""
    where, quotes, multiline = file.where, reading.quotes, reading.multiline
    head = first_lines(file, 1)[0]
    _check_line_ends(where, head, quotes)
    first = split_fields(head, separator) if quotes else head.split(separator)
    named = reading.header if reading.header is not None else _starts_with_names(file, first)
    if named:
        # Columns without a name cannot be used, so there may be several.
        _check_names(where, [name.strip() for name in first if name.strip()])
    counts = count_bytes(file, separator, quotes)
    quoted = counts.quoted and quotes
    if quoted and not multiline and head.count('"') % 2:  # the columns cannot be determined
        raise unclear_quotes(file, unbalanced(file), multiline)

    due = counts.lines - 1 if named else counts.lines

    def check(count: int) -> None:
        # Blank lines before the header are not rows; a line can only be swallowed by an unclosed quote before it.
        if quoted and not multiline and count != due and (fault := unbalanced(file)):
            raise unclear_quotes(file, f"{count} rows read from {due} lines; {fault}", multiline)

    def kinds() -> np.ndarray:
        try:
            return row_kinds(file, separator, quoted, len(first), named)
        except csv.Error as error:
            fault = unbalanced(file) or f"it contains quotes ({error})"
            raise unclear_quotes(file, f"cannot be read; {fault}", multiline) from None
        except UnicodeDecodeError:
            raise DataError(f"{where}: {undecodable(file)}") from None

    rows, names = _scan(file, separator, named, quoted, first, ragged=True)
    ragged = Table(
        rows,
        names,
        where,
        file,
        text=True,
        positional=not named,
        quoted=quoted,
        multiline=multiline,
        separator=separator,
        kinds=kinds,
        check=check,
    )
    # The other reader fails at rows with too many fields; so if the sum is correct, no row has too few.
    is_even = counts.separators == counts.rows * (len(first) - 1)
    if not is_even or (quoted and counts.loose):
        return ragged
    rows, _ = _scan(file, separator, named, quoted, first, ragged=False)
    return replace(ragged, rows=rows, kinds=None, uneven=ragged)


def _starts_with_names(file: TextFile, first: list[str]) -> bool:
    """Whether a first line contains names: no number, or the numbers of the columns after an empty name, as of pandas.

    Raises:
        UnclearLogError: it is 0, 1, 2, ..., which may be the numbers of the columns or an event.
    """
    if [field.strip() for field in first] == [str(place) for place in range(len(first))] and len(first) > 2:
        what = f"does the first line contain the numbers of the columns or an event? {','.join(first)[:60]!r}"
        answers = Answer({"header": True}, "the numbers of the columns"), Answer({"header": False}, "an event")
        shown = tuple((line,) for line in first_lines(file, SHOWN_ROWS))
        raise UnclearLogError(Doubt(what, answers, where=file.where, rows=shown))
    is_numbered = len(first) > 2 and first == ["", *(str(place) for place in range(len(first) - 1))]
    return is_numbered or not any(is_number(field) for field in first)


def _scan(
    file: TextFile, separator: str, named: bool, quoted: bool, first: list[str], ragged: bool
) -> tuple[pl.LazyFrame, list[str]]:
    """The rows of a CSV file as texts, and the names of their columns; `ragged` rows may have too many fields."""
    rows = pl.scan_csv(
        file.source,
        separator=separator,
        has_header=named,
        infer_schema=False,
        glob=False,
        quote_char='"' if quoted else None,
        new_columns=None if named else [str(i + 1) for i in range(len(first))],
        truncate_ragged_lines=ragged,
        skip_lines=file.skip,
        comment_prefix=file.comment or None,
    )
    names = rows.collect_schema().names()
    if not _follow_blanks(file, separator, first):
        return rows, names
    # Blanks follow the separators, so they are not part of a field.
    field = pl.all().str.strip_chars()
    rows = rows.rename({name: _bare(name, quoted) for name in names})
    if quoted:  # for polars, a quote after a blank does not open a field
        inside = field.str.slice(1, field.str.len_chars() - 2).str.replace_all('""', '"', literal=True)
        field = pl.when(field.str.contains('(?s)^".*"$')).then(inside).otherwise(field)
    return rows.with_columns(field), [_bare(name, quoted) for name in names]


def _follow_blanks(file: TextFile, separator: str, first: list[str]) -> bool:
    """Whether the fields of the first line, or all of the next few, have blanks around them."""
    if separator.isspace():
        return False
    if any(name != name.strip() for name in first):
        return True
    lines = [split_fields(line, separator) for line in first_lines(file, 1 + LOOKED_AT)[1:]]
    return bool(lines) and len(first) > 1 and all(field[:1] == " " for line in lines for field in line[1:])


def _bare(name: str, quoted: bool) -> str:
    """A name without surrounding blanks, and without the quotes that polars leaves after a blank."""
    name = name.strip()
    return name[1:-1].replace('""', '"') if quoted and len(name) > 1 and name[0] == name[-1] == '"' else name


def _open_lines(file: TextFile, separator: str | None, header: bool | None) -> Table:
    """A file whose lines are split at the separator, or at blanks if it is None. Blank lines are skipped."""
    where = file.where
    head = [line.strip() for line in first_lines(file, 1 + LOOKED_AT)]
    _check_line_ends(where, head[0], quotes=False)
    first, *following = [line.split(separator) for line in head]
    if header is None and looks_like_names(first, following):
        what = f"does the first line contain names or an event? {head[0][:60]!r}"
        answers = Answer({"header": True}, "it contains names"), Answer({"header": False}, "it is an event")
        shown = tuple((line,) for line in head[:SHOWN_ROWS])
        raise UnclearLogError(Doubt(what, answers, where=where, rows=shown))
    if header:
        _check_names(where, first)
    lines = scan_lines(file, bool(header))
    line = pl.col("line")
    # Blank lines are not rows; polars reads empty lines as null.
    lines = lines.filter(line.str.strip_chars() != "")
    if separator is None:
        line = line.str.strip_chars().str.replace_all(r"\s+", " ")
    names = first if header else [str(i + 1) for i in range(len(first))]
    fields = line.str.split_exact(separator or " ", len(first)).struct.rename_fields([*names, _MORE])
    rows = lines.select(fields.alias("fields")).unnest("fields")
    malformed = pl.col(_MORE).is_not_null() | pl.col(names[-1]).is_null()
    spaced = separator is None
    return Table(
        rows,
        names,
        where,
        file,
        True,
        positional=not header,
        spaced=spaced,
        malformed=malformed,
        separator=separator or " ",
    )


def scan_lines(file: TextFile, header: bool = False) -> pl.LazyFrame:
    """The lines of a text file, but its header, as one column `line` of text; blank ones are null."""
    check_lines(file)
    return pl.scan_csv(
        file.source,
        separator=NO_SEPARATOR,
        has_header=header,
        quote_char=None,
        infer_schema=False,
        glob=False,
        new_columns=["line"],
        skip_lines=file.skip,
        comment_prefix=file.comment or None,
    )


def _check_line_ends(where: str, head: str, quotes: bool) -> None:
    before, mark, _ = head.partition("\r")
    if mark and not (quotes and before.count('"') % 2):
        raise DataError(f"{where}: a line ends in CR only ({before[:60]!r}): convert the line ends to LF or CRLF")


def _check_names(where: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise DataError(f"{where}: the first line has two columns of the same name: {', '.join(names)}")


def looks_like_names(first: Sequence[str | None], following: Sequence[Sequence[str | None]]) -> bool:
    """Whether no field of the first line is a number, but some column is a number in all following lines."""
    if not following or any(is_number(field) for field in first):
        return False
    return any(all(is_number(field) for field in column) for column in zip(*following, strict=False))


def is_number(field: str | None) -> bool:
    """Whether a field is a finite number."""
    try:
        float(field or "")
    except ValueError:
        return False
    assert field is not None
    return field.strip().lower() not in ("nan", "inf", "infinity", "-inf")
