"""Opening of a log as its published shape, or otherwise as a plain table; several parts are opened as one."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import polars as pl

from ensue.data.doubt import UnclearLogError
from ensue.data.joining import finish, join
from ensue.data.lines import first_lines
from ensue.data.readers import is_number, open_table
from ensue.data.shape import Sample, recognise
from ensue.data.sources import SPLIT, Part, Parts, Source, parts_of
from ensue.data.table import ANY_SHAPE, NO_SHAPE, TYPED, MissingColumnError, Reading, Table, first_line
from ensue.data.unpacking import DAMAGED, TextFile, first_bytes
from ensue.errors import DataError

# Number of lines that recognisers receive, and the length of the longest line that columns are inferred from.
_SAMPLED, _LONGEST = 200, 1 << 16
_BEGINNING = 1 << 20


def open_log(source: Source, reading: Reading) -> Table:
    """Open a log; if it has the shape of a published log it is read as such, unless its format is given.

    Raises:
        DataError: the source cannot be read, or its parts have different columns.
        UnclearLogError: it can be read in several ways.
    """
    parts = parts_of(source)
    filled = [part for part in parts.parts if not _is_empty(part)] or parts.parts[:1]
    read, beside = _of_one_kind(parts, filled, reading)
    table = join(parts.name, read, [partial(_open, part, reading) for part in read])
    if beside:
        names = ", ".join(part.name for part in beside)
        table = replace(table, evidence=f"{table.evidence}; not read, as they have other columns: {names}")
    return replace(finish(table), keeps=parts)


def open_beginning(source: Source, reading: Reading) -> Table | None:
    """The first megabyte of a large text file as a log, to find unclear points before all of it is read.

    Raises:
        UnclearLogError: the format is unclear.
    """
    if not isinstance(source, str | Path) or not Path(source).is_file() or Path(source).stat().st_size <= _BEGINNING:
        return None
    try:
        return open_log(source, replace(reading, most=_BEGINNING))
    except UnclearLogError:
        raise
    except DataError:  # a document that is cut off, such as a slice of playlists
        return None


def _is_empty(part: Part) -> bool:
    """Whether a file has no bytes, as written by Spark for partitions without rows."""
    return isinstance(part.source, Path) and part.source.is_file() and not part.source.stat().st_size


@dataclass(frozen=True)
class _Kind:
    """The kind of a part: its published shape ("" for none), and the fields of its first line or its columns."""

    shape: str
    header: tuple[str, ...]

    def differs(self, other: _Kind) -> bool:
        """Whether the columns certainly differ, by their number or by names."""
        if len(self.header) != len(other.header):
            return True
        named = not any(is_number(field) for field in (*self.header, *other.header))
        return named and set(self.header) != set(other.header)

    @property
    def words(self) -> str:
        """For messages."""
        return f"a log of the shape {self.shape}" if self.shape else f"a table with {', '.join(self.header)[:80]}"


def _of_one_kind(parts: Parts, read: Sequence[Part], reading: Reading) -> tuple[Sequence[Part], list[Part]]:
    """The parts of the log, and other tables in the folder of a published log.

    Raises:
        DataError: it is unclear which files are the log.
    """
    if len(read) == 1 or _is_stated(reading):
        return read, []
    if parts.is_archive:
        return _of_archive(parts, read, reading)
    kinds = [_kind_of(part, reading) for part in read]
    shapes = {kind.shape for kind in kinds}
    if len(shapes) == 1:
        return read, []
    shaped = [kind for kind in kinds if kind.shape]
    others = [kind for kind in kinds if not kind.shape]
    if parts.is_listed or len(shapes) > 2 or not all(other.differs(one) for other in others for one in shaped):
        place = next(place for place, kind in enumerate(kinds) if kind.shape != kinds[0].shape)
        raise DataError(
            f"{parts.name}: the files are of two kinds: {read[0].name} is {kinds[0].words}, {read[place].name} is "
            f"{kinds[place].words}: name those of one kind, or their form (--format)"
        )
    pairs = list(zip(read, kinds, strict=True))
    return [part for part, kind in pairs if kind.shape], [part for part, kind in pairs if not kind.shape]


def _of_archive(parts: Parts, read: Sequence[Part], reading: Reading) -> tuple[Sequence[Part], list[Part]]:
    """The files of an archive that are the log, and the others.

    The log is what has a published shape, or all files if none has and all have the same columns. Several files are
    read as one log only if their names differ in their numbers, or say that they are the parts of a split.

    Raises:
        DataError: it is unclear which files are the log.
    """
    kinds: list[tuple[Part, _Kind]] = []
    for part in read:
        with suppress(DataError):  # not a table, such as a picture
            kinds.append((part, _kind_of(part, reading)))
    log = [(part, kind) for part, kind in kinds if kind.shape] or kinds
    is_one = len({kind.shape or kind for _, kind in log}) == 1
    numbered = {re.sub(r"\d+", "0", part.name) for part, _ in log}
    if not is_one or (len(numbered) > 1 and not all(SPLIT in part.columns for part, _ in log)):
        names = ", ".join(shlex.quote(part.name) for part in read[:10])
        raise DataError(
            f"{parts.name}: has several files, and which is the log is unclear: name one as SOURCE: {names}"
        )
    chosen = [part for part, _ in log]
    return chosen, [part for part in read if not any(part is one for one in chosen)]


def _kind_of(part: Part, reading: Reading) -> _Kind:
    sample = _sample(part, reading)
    shape = recognise(sample)
    return _Kind("" if shape is None else shape.name, tuple(sample.header))


def _is_stated(reading: Reading) -> bool:
    """Whether the format of the file is given; published shapes are then not tried."""
    if reading.shape != ANY_SHAPE:
        return reading.shape == NO_SHAPE
    return reading.form != "auto" or reading.header is not None or reading.separator is not None


def _open(part: Part, reading: Reading) -> Table:
    reading = replace(reading, name=part.name)
    if _is_stated(reading) or (isinstance(part.source, Path) and not part.source.is_file()):
        return replace(open_table(part.source, reading), where=part.name)
    sample = _sample(part, reading)
    try:
        shape = recognise(sample)
        if shape is None and reading.shape != ANY_SHAPE:
            raise MissingColumnError(f"{part.name}: does not have the shape {reading.shape} (--shape)")
        if shape is None:
            return replace(open_table(part.source, reading), where=part.name)
        table = shape.read()
    except (pl.exceptions.PolarsError, *DAMAGED) as error:
        raise DataError(f"{part.name}: cannot be read ({first_line(error)})") from None
    return replace(
        table,
        where=part.name,
        shape=shape.name,
        evidence=shape.evidence,
        meanings=shape.meanings,
        events=shape.events,
    )


def _sample(part: Part, reading: Reading) -> Sample:
    if not isinstance(part.source, Path) or first_bytes(part.source, 8).startswith(TYPED):
        table = open_table(part.source)
        return Sample(part.name, schema=table.rows.collect_schema(), rows=table.rows, reading=reading)
    path = part.source
    try:
        file = TextFile.at(path, reading.encoding, reading.skip, reading.comment, reading.most, part.name)
    except DAMAGED as error:
        raise DataError(f"{part.name}: cannot be read ({error})") from None
    lines = first_lines(file, _SAMPLED)
    if not lines[0].lstrip().startswith("{") or not lines[0].rstrip().endswith("}"):
        return Sample(part.name, file, lines, reading=reading)
    rows = pl.scan_ndjson(file.for_json(), infer_schema_length=None)
    return Sample(part.name, file, lines, _schema(lines), rows, reading)


def _schema(lines: list[str]) -> pl.Schema:
    """The columns of the first lines of a JSON Lines file; none if they are not JSON objects."""
    text = "\n".join(line for line in lines if len(line) < _LONGEST)
    try:
        return pl.read_ndjson(io.BytesIO(text.encode()), infer_schema_length=None).schema
    except pl.exceptions.PolarsError:
        return pl.Schema()
