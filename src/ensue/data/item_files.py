"""Item files of MovieLens that have no header: `movies.dat` (1M, 10M) and `u.item` (100K), in UTF-8 or Latin-1."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from ensue.data.table import Table

_MOVIE = re.compile(r"\d+::.+::[^:]*")
_U_ITEM = re.compile(r"\d+\|[^|]*\|[^|]*\|[^|]*\|[^|]*(\|[01]){19}")
# The genres of u.genre, in the order of the last columns of u.item.
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_LARGEST = 1 << 26
_SAMPLED = 20


def movielens_items(source: object, encoding: str | None) -> Table | None:
    """The table of a MovieLens item file without a header: id, title and category.

    Args:
        source: a path; anything else is no such file.
        encoding: how its characters are encoded; by default UTF-8, or Latin-1 where it is not that.

    Returns:
        The table; None if the file has another form.
    """
    if not isinstance(source, str | Path) or not Path(source).is_file() or Path(source).stat().st_size > _LARGEST:
        return None
    content = Path(source).read_bytes()
    first = [line.decode("latin-1").rstrip("\r") for line in content[: 1 << 16].split(b"\n")[:_SAMPLED]]
    filled = [line for line in first if line][: _SAMPLED - 1]
    form = next((form for form in (_MOVIE, _U_ITEM) if filled and all(map(form.fullmatch, filled))), None)
    if form is None:
        return None
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [line.rstrip("\r") for line in text.split("\n") if form.fullmatch(line.rstrip("\r"))]
    rows = [_movie(line) if form is _MOVIE else _u_item(line) for line in lines]
    names = ["id", "title", "category"]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    return Table(frame.lazy(), names, str(source), text=True)


def _movie(line: str) -> tuple[str, ...]:
    number, _, rest = line.partition("::")
    title, _, genres = rest.rpartition("::")
    return number, title, genres


def _u_item(line: str) -> tuple[str, ...]:
    number, title, _, _, _, *flags = line.split("|")
    genres = "|".join(genre for genre, flag in zip(_GENRES, flags, strict=True) if flag == "1")
    return number, title, genres
