"""The lines of a text file as bytes: their number, and the lines that cannot be read."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from ensue.data.unpacking import DAMAGED, TextFile
from ensue.errors import DataError

# The kinds of rows of a CSV file: readable, with a wrong number of fields, or blank.
SOUND, MISSHAPEN, EMPTY = 0, 1, 2
# The separator for files that are read line by line; a file that contains it is refused.
NO_SEPARATOR = "\x01"
_CHUNK = 1 << 22
_LONGEST_FIELD = 1 << 27
_SHOWN = 80


@dataclass(frozen=True)
class Counts:
    """Counts from a pass over the bytes of a file.

    Attributes:
        lines: number of lines.
        rows: number of lines that end outside quotes.
        separators: number of separators outside quotes.
        quoted: whether there is any quote.
        loose: whether a closing quote is followed by anything other than a separator, a line end or a quote.
    """

    lines: int
    rows: int
    separators: int
    quoted: bool
    loose: bool


def first_lines(file: TextFile, count: int) -> list[str]:
    """Up to `count` lines that are not empty, at least one.

    Raises:
        DataError: the file is damaged, or has no such line.
    """
    lines: list[str] = []
    try:
        for _, raw in file.lines():
            line = raw[:65536].removeprefix(b"\xef\xbb\xbf").decode(errors="replace").rstrip("\r\n")
            if line.strip():
                lines.append(line)
            if len(lines) == count:
                break
    except DAMAGED as error:
        raise DataError(f"{file.where}: cannot be read ({error})") from None
    if not lines:
        raise DataError(f"{file.where}: the file is empty")
    return lines


def check_lines(file: TextFile, count: int = 200) -> None:
    """Refuse a file if its first lines contain the separator for files read line by line.

    Raises:
        DataError: one does.
    """
    if any(NO_SEPARATOR in line for line in first_lines(file, count)):
        raise DataError(
            f"{file.where}: contains U+0001, the control character that separates fields in Hive: replace it by tabs"
        )


def split_fields(line: str, separator: str) -> list[str]:
    """The fields of one line; quotes enclose fields, unless the line is not valid CSV (a CR outside quotes)."""
    if len(separator) > 1 or '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error:
        return line.split(separator)


def count_bytes(file: TextFile, separator: str, quotes: bool) -> Counts:
    """Count lines and separators; if `quotes` enclose fields, those outside quotes are also counted separately."""
    mark = separator.encode()
    lines = rows = separators = 0
    quoted, inside, last = False, 0, b"\n"
    loose, closed = False, False
    after = np.frombuffer(b'\n\r"' + mark, dtype=np.uint8)
    with file.open() as handle:
        while chunk := handle.read(_CHUNK):
            ends = chunk.count(b"\n")
            lines += ends
            last = chunk[-1:]
            quoted = quoted or b'"' in chunk
            if not (quotes and quoted):
                rows += ends
                separators += chunk.count(mark)
                continue
            byte = np.frombuffer(chunk, dtype=np.uint8)
            within = (np.cumsum(byte == ord('"'), dtype=np.uint8) + np.uint8(inside)) & 1
            rows += int(np.count_nonzero((byte == ord("\n")) & (within == 0)))
            separators += int(np.count_nonzero((byte == ord(mark)) & (within == 0)))
            loose = loose or (closed and byte[0] not in after)
            closing = np.flatnonzero((byte == ord('"')) & (within == 0))
            closed = bool(len(closing)) and int(closing[-1]) == len(byte) - 1
            loose = loose or not np.isin(byte[closing[: len(closing) - closed] + 1], after).all()
            inside = int(within[-1])
    open_end = last != b"\n"
    return Counts(lines + open_end, rows + open_end, separators, quoted, bool(loose))


def row_kinds(file: TextFile, separator: str, quoted: bool, columns: int, header: bool) -> np.ndarray:
    """Which rows of a CSV file have the right number of fields: uint8 [rows], SOUND, MISSHAPEN or EMPTY.

    Blank lines before the first row are not counted, nor is the header.

    Raises:
        csv.Error: characters follow a closing quote, or a field is longer than 128 MiB.
        UnicodeDecodeError: a line is not UTF-8.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    kinds = bytearray()
    with io.TextIOWrapper(file.open(), encoding="utf-8-sig", newline="") as handle:
        rows = csv.reader(handle, delimiter=separator, quoting=quoting, strict=quoted)
        for row in rows:
            count = len(row)
            if count == columns:
                kinds.append(SOUND)
            elif count == 0 or (count == 1 and not row[0].strip()):
                if kinds:
                    kinds.append(EMPTY)
            else:
                kinds.append(MISSHAPEN)
    return np.frombuffer(bytes(kinds[1:] if header else kinds), dtype=np.uint8)


def unbalanced(file: TextFile) -> str:
    """A message about the first line with an unclosed quote; empty if there is none."""
    for number, line in file.lines():
        if line.count(b'"') % 2:
            return f"line {number} opens a quote and does not close it"
    return ""


def undecodable(file: TextFile) -> str:
    """A message about the first line that is not UTF-8, with advice; empty if there is none."""
    for number, line in file.lines():
        try:
            line.decode()
        except UnicodeDecodeError:
            shown = line[:_SHOWN].decode("latin-1").strip()
            return (
                f"line {number} is not UTF-8 ({shown!r} if it is Latin-1): name the encoding, such as "
                "--encoding latin-1 (encoding='latin-1')"
            )
    return ""


def unreadable_json(file: TextFile) -> str:
    """A message about the first line that is not a JSON object; empty if there is none."""
    for number, line in file.lines():
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            return f"line {number} is not JSON ({error}): {_shown(line)!r}"
        if not isinstance(value, dict):
            return f"line {number} is not a JSON object: {_shown(line)!r}"
    return ""


def line_of_row(file: TextFile, row: int, header: bool) -> tuple[int, str]:
    """The number and the text of the line of a row (from 0), if no field has several lines."""
    filled = (line for line in file.lines() if line[1].strip(b"\xef\xbb\xbf \t\r\n"))
    number, line = next(islice(filled, row + header, None), (0, b""))
    return number, _shown(line)


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace").strip()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")
