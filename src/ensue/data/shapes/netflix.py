"""Netflix Prize: blocks that start with the movie (`1:`), then lines of `customer,rating,date`.

The combined_data files have many blocks each, the original mv_ files one.
"""

from __future__ import annotations

import re

import polars as pl

from ensue.data.readers import scan_lines
from ensue.data.shape import SHAPES, Sample, Shape
from ensue.data.table import Table

_MOVIE, _RATING = r"^\d+:$", r"^\d+,\d,\d{4}-\d{2}-\d{2}$"


@SHAPES.register("netflix")
def recognise(sample: Sample) -> Shape | None:
    """The first line is that of a movie, and the next ones are ratings."""
    lines = [line.strip() for line in sample.lines[:20]]
    if len(lines) < 2 or not re.match(_MOVIE, lines[0]):
        return None
    if not any(re.match(_RATING, line) for line in lines[1:]):
        return None
    meanings = {"user": "customer", "item": "movie", "time": "date", "rating": "rating"}
    return Shape(
        "netflix", "blocks of ratings under a line with the movie and a colon", meanings, lambda: _open(sample)
    )


def _open(sample: Sample) -> Table:
    assert sample.file is not None
    line = pl.col("line").str.strip_chars()
    movie = line.str.extract(r"^(\d+):$")
    rows = (
        scan_lines(sample.file).filter(line != "").select(line, movie=movie.forward_fill(), starts=movie.is_not_null())
    )
    fields = pl.col("line").str.split_exact(",", 3).struct.rename_fields(["customer", "rating", "date", "more"])
    rows = rows.filter(~pl.col("starts")).with_columns(fields.alias("fields")).unnest("fields")
    malformed = pl.col("more").is_not_null() | pl.col("date").is_null() | pl.col("movie").is_null()
    names = ["customer", "movie", "rating", "date"]
    return Table(rows, names, sample.where, sample.file, text=True, by_line=False, malformed=malformed)
