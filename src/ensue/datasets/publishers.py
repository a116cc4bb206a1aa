"""Readers of publishers' own formats: zipped MovieLens, Amazon ratings, Steam reviews."""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from ensue.data.unpacking import DAMAGED, open_binary
from ensue.errors import DataError

# The order of the flags in u.item (MovieLens 100K, file u.genre).
_GENRES_100K = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War"),
    "Western",
)
_LINES_AT_ONCE = 200_000


def unzip(archive: Path, members: tuple[str, ...], folder: Path) -> None:
    """Unpack the named members, by their last name, into `folder`.

    Raises:
        DataError: the archive is broken or lacks a member.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in members:
                (folder / Path(member).name).write_bytes(packed.read(member))
    except (zipfile.BadZipFile, KeyError, *DAMAGED) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error})") from None


def movies_1m(path: Path) -> pl.DataFrame:
    """`movies.dat` of MovieLens 1M: item_id::title::genres, in Latin-1."""
    rows = [line.split("::") for line in _latin1_lines(path)]
    return pl.DataFrame(_columns(path, rows, 3), schema=["item_id", "title", "genres"])


def movies_100k(path: Path) -> pl.DataFrame:
    """`u.item` of MovieLens 100K: id|title|date|video date|url and 19 genre flags, in Latin-1."""
    rows = [line.split("|") for line in _latin1_lines(path)]
    ids, titles, _, _, _, *flags = _columns(path, rows, 5 + len(_GENRES_100K))
    genres = [
        "|".join(genre for genre, flag in zip(_GENRES_100K, row, strict=True) if flag == "1")
        for row in zip(*flags, strict=True)
    ]
    return pl.DataFrame({"item_id": ids, "title": titles, "genres": genres})


def steam_reviews(path: Path) -> pl.DataFrame:
    """`steam_reviews.json.gz`: one Python literal per line (not JSON); columns user, item and time.

    Raises:
        DataError: a line is not such a literal, or the file is damaged.
    """
    parts: list[pl.DataFrame] = []
    rows: list[tuple[str, str, str]] = []
    schema = {"user": pl.String, "item": pl.String, "time": pl.String}
    for row in _literals(path):
        rows.append(row)
        if len(rows) == _LINES_AT_ONCE:
            parts.append(pl.DataFrame(rows, schema=schema, orient="row"))
            rows = []
    return pl.concat([*parts, pl.DataFrame(rows, schema=schema, orient="row")])


def _literals(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        with open_binary(path) as handle:
            for number, line in enumerate(handle, start=1):
                yield _literal(path, number, line)
    except DAMAGED as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _literal(path: Path, number: int, line: bytes) -> tuple[str, str, str]:
    try:
        review = ast.literal_eval(line.decode())
        return str(review["username"]), str(review["product_id"]), str(review["date"])
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise DataError(f"{path}: line {number} is not a review ({error})") from None


def _latin1_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="latin-1").splitlines() if line]


def _columns(path: Path, rows: list[list[str]], count: int) -> list[tuple[str, ...]]:
    if not rows or any(len(row) != count for row in rows):
        raise DataError(f"{path}: every line must have {count} fields, but some do not")
    return list(zip(*rows, strict=True))
