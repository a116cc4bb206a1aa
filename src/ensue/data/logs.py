"""A log opened as the published shape that it has, or else as a plain table."""

from __future__ import annotations

import glob
import io
from dataclasses import replace
from pathlib import Path

import polars as pl

from ensue.data.lines import first_lines
from ensue.data.readers import open_table
from ensue.data.shape import Sample, recognise
from ensue.data.table import Reading, Source, Table, first_line
from ensue.data.unpacking import DAMAGED, TextFile, first_bytes
from ensue.errors import DataError

# Lines that recognisers see, and the longest of them whose columns are inferred.
_SAMPLED, _LONGEST = 200, 1 << 16
_TYPED = (b"PAR1", b"ARROW1", b"Obj\x01")


def open_log(source: Source, reading: Reading) -> Table:
    """Open a log; one that has the shape of a published log is read as that, unless its form is stated.

    Raises:
        DataError: the source cannot be read.
        UnclearLogError: it can be read in several ways.
    """
    stated = reading.form != "auto" or reading.header is not None
    if stated or (isinstance(source, str | Path) and not Path(source).is_file()):
        return open_table(source, reading)
    sample = _sample_file(Path(source), reading) if isinstance(source, str | Path) else _sample_table(source)
    try:
        shape = recognise(sample)
        if shape is None:
            return open_table(source, reading)
        table = shape.read()
    except (pl.exceptions.PolarsError, *DAMAGED) as error:
        raise DataError(f"{sample.where}: cannot be read ({first_line(error)})") from None
    return replace(table, where=sample.where, shape=shape.name, evidence=shape.evidence, meanings=shape.meanings)


def _sample_file(path: Path, reading: Reading) -> Sample:
    if first_bytes(path, 8).startswith(_TYPED):
        return _sample_table(path)
    try:
        file = TextFile.at(path, reading.encoding)
    except DAMAGED as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    lines = first_lines(file, _SAMPLED)
    if not lines[0].lstrip().startswith("{") or not lines[0].rstrip().endswith("}"):
        return Sample(str(path), file, lines, reading=reading)
    file = file.without_mark()
    rows = pl.scan_ndjson(glob.escape(str(path)) if file.content is None else file.content, infer_schema_length=None)
    return Sample(str(path), file, lines, _schema(lines), rows, reading)


def _sample_table(source: Source) -> Sample:
    table = open_table(source)
    return Sample(table.where, schema=table.rows.collect_schema(), rows=table.rows)


def _schema(lines: list[str]) -> pl.Schema:
    """The columns of the first lines of a JSON Lines file; none if they are not JSON objects."""
    text = "\n".join(line for line in lines if len(line) < _LONGEST)
    try:
        return pl.read_ndjson(io.BytesIO(text.encode()), infer_schema_length=None).schema
    except pl.exceptions.PolarsError:
        return pl.Schema()
