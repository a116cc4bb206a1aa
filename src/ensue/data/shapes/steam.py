"""Steam: one Python literal per line, which is not JSON (`{u'username': u'a', u'product_id': u'1', ...}`).

steam_reviews.json (also called steam_new.json) has a review a line; australian_user_reviews.json has a user a line
with reviews, and australian_users_items.json a user with games and without times.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

import polars as pl

from ensue.data.shape import NO_COLUMN, SHAPES, Sample, Shape
from ensue.data.table import Table, first_line
from ensue.data.unpacking import DAMAGED
from ensue.errors import DataError

_LITERAL = re.compile(r"\{u?['\"](\w+)u?['\"]: ")
_SCHEMA = {"user": pl.String, "item": pl.String, "time": pl.String}
_LINES_AT_ONCE = 200_000
_MAX_LINE = 1 << 24
_POSTED = "%B %d, %Y"


@SHAPES.register("steam")
def recognise(sample: Sample) -> Shape | None:
    """A first line in braces with names in single quotes, and the names of one of the three files."""
    head = sample.lines[0] if sample.lines else ""
    if not _LITERAL.match(head) or head.startswith('{"'):
        return None
    names = set(re.findall(r"u?'(\w+)': ", head))
    if {"username", "product_id"} <= names:
        evidence, time = "one Python literal per line with username, product_id and date", "time"
    elif "user_id" in names and "reviews" in names:
        evidence, time = "one Python literal per line with user_id and reviews", "time"
    elif "user_id" in names and "items" in names:
        evidence = "one Python literal per line with user_id and items; no times: the order of games is used"
        time = NO_COLUMN
    else:
        return None
    meanings = {"user": "user", "item": "item", "time": time, "rating": NO_COLUMN}
    return Shape("steam", evidence, meanings, lambda: _open(sample))


def read_literals(where: str, open_file: Callable[[], IO[bytes]]) -> pl.DataFrame:
    """The events of a Steam file: columns user, item and time, all text; users and games without an id are null.

    Args:
        where: what to call it in messages.
        open_file: opens it, unpacked.

    Raises:
        DataError: a line is not such a literal, or the file is damaged.
    """
    parts: list[pl.DataFrame] = []
    rows: list[tuple[str | None, str | None, str | None]] = []
    for literal in _literals(where, open_file):
        rows += literal
        if len(rows) >= _LINES_AT_ONCE:
            parts.append(pl.DataFrame(rows, schema=_SCHEMA, orient="row"))
            rows = []
    return pl.concat([*parts, pl.DataFrame(rows, schema=_SCHEMA, orient="row")])


def _open(sample: Sample) -> Table:
    assert sample.file is not None
    frame = read_literals(sample.where, sample.file.open)
    posted = pl.col("time").str.strip_prefix("Posted ").str.strip_chars(".").str.to_date(_POSTED, strict=False)
    frame = frame.with_columns(pl.coalesce(pl.col("time").str.to_date("%Y-%m-%d", strict=False), posted))
    return Table(frame.lazy(), frame.columns, sample.where, text=True)


def _literals(
    where: str, open_file: Callable[[], IO[bytes]]
) -> Iterator[list[tuple[str | None, str | None, str | None]]]:
    try:
        with open_file() as handle:
            for number, line in enumerate(iter(lambda: handle.readline(_MAX_LINE), b""), start=1):
                if line.strip():
                    yield _events(where, number, line)
    except DAMAGED as error:
        raise DataError(f"{where}: cannot be read ({error})") from None


def _events(where: str, number: int, line: bytes) -> list[tuple[str | None, str | None, str | None]]:
    try:
        record: dict[str, Any] = ast.literal_eval(line.decode().strip())
        if "reviews" in record:
            return [_event(record["user_id"], each["item_id"], each["posted"]) for each in record["reviews"]]
        if "items" in record:
            return [_event(record["user_id"], each["item_id"], None) for each in record["items"]]
        return [_event(record["username"], record["product_id"], record["date"])]
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise DataError(f"{where}: line {number} is not a review ({first_line(error)})") from None


def _event(user: object, item: object, time: object) -> tuple[str | None, str | None, str | None]:
    """The three values as texts, None if missing; a ValueError for half a surrogate pair, which is not valid text."""
    texts = tuple(None if each is None else str(each) for each in (user, item, time))
    "".join(text or "" for text in texts).encode()
    return texts  # type: ignore[return-value]
