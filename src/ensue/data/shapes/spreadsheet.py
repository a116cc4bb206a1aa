"""Exports of spreadsheets: a first line `sep=;` that gives the separator."""

from __future__ import annotations

import re
from dataclasses import replace

from ensue.data.readers import open_separated
from ensue.data.shape import SHAPES, Sample, Shape
from ensue.data.table import Table

_SEP = re.compile(r'"?sep=([\t -/:-@\[-`{-~])"?')


@SHAPES.register("spreadsheet")
def recognise(sample: Sample) -> Shape | None:
    """The first line is `sep=` and one character, which is neither a letter nor a digit."""
    match = _SEP.fullmatch(sample.lines[0].strip(" \r\n")) if sample.lines else None
    if match is None or len(sample.lines) < 2:
        return None
    separator = match.group(1)
    if separator == '"':
        return None
    return Shape("spreadsheet", f"a first line sep={separator}", {}, lambda: _open(sample, separator))


def _open(sample: Sample, separator: str) -> Table:
    assert sample.file is not None
    number = next(number for number, line in sample.file.lines() if line.strip())
    rest = replace(sample.file, skip=number)
    return open_separated(rest, separator, replace(sample.reading, header=True))
