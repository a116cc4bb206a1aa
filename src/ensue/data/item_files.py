"""Item files of MovieLens that have no header: `movies.dat` (1M, 10M) and `u.item` (100K), in UTF-8 or Latin-1."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from ensue.data.table import TYPED, Reading, Table
from ensue.data.unpacking import TextFile, first_bytes, open_binary

_MOVIE = re.compile(r"\d+::.+::[^:]*")
_U_ITEM = re.compile(r"\d+\|[^|]*\|[^|]*\|[^|]*\|[^|]*(\|[01]){19}")
# The genres of u.genre, in the order of the last columns of u.item.
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_LARGEST = 1 << 26
_SAMPLED = 20


def movielens_items(path: Path, reading: Reading) -> Table | None:
    """The table of a MovieLens item file without a header: id, title and category.

    Args:
        path: the file, which may be packed.
        reading: its encoding (by default UTF-8, or Latin-1 where it is not that) and its name for messages.

    Returns:
        The table; None if the file has another form.

    Raises:
        DataError: it is a file of another program, or not text in the encoding that was named.
    """
    if path.stat().st_size > _LARGEST or first_bytes(path, 8).startswith(TYPED):
        return None
    with open_binary(path) as handle:
        first = [line.decode("latin-1").rstrip("\r") for line in handle.read(1 << 16).split(b"\n")[:_SAMPLED]]
    filled = [line for line in first if line][: _SAMPLED - 1]
    form = next((form for form in (_MOVIE, _U_ITEM) if filled and all(map(form.fullmatch, filled))), None)
    if form is None:
        return None
    with TextFile.at(path, reading.encoding, name=reading.name).open() as handle:
        content = handle.read()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [line.rstrip("\r") for line in text.split("\n") if form.fullmatch(line.rstrip("\r"))]
    rows = [_movie(line) if form is _MOVIE else _u_item(line) for line in lines]
    names = ["id", "title", "category"]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    return Table(frame.lazy(), names, reading.name or str(path), text=True)


def _movie(line: str) -> tuple[str, ...]:
    number, _, rest = line.partition("::")
    title, _, genres = rest.rpartition("::")
    return number, title, genres


def _u_item(line: str) -> tuple[str, ...]:
    number, title, _, _, _, *flags = line.split("|")
    genres = "|".join(genre for genre, flag in zip(_GENRES, flags, strict=True) if flag == "1")
    return number, title, genres
