"""Steam and Epinions: one Python literal per line, which is not JSON (`{u'username': u'a', u'product_id': u'1', ...}`).

steam_reviews.json (also called steam_new.json) has a review a line; australian_user_reviews.json has a user a line
with reviews, and australian_users_items.json a user with games and without times. epinions.json has a review a line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import polars as pl

from ensue.data.shape import NO_COLUMN, SHAPES, Recogniser, Sample, Shape
from ensue.data.table import Table, first_line
from ensue.data.unpacking import DAMAGED
from ensue.errors import DataError

_LITERAL = re.compile(r"\{u?['\"](\w+)u?['\"]: ")
_Event = tuple[str | None, str | None, str | None, str | None]
_SCHEMA = dict.fromkeys(("user", "item", "time", "rating"), pl.String)
_LINES_AT_ONCE = 200_000
_MAX_LINE = 1 << 24
_POSTED = "%B %d, %Y"


@dataclass(frozen=True)
class _Form:
    """The names of a line: the user, the list that contains the events (if there is one), item, time and rating."""

    shape: str
    user: str
    item: str
    time: str = ""
    rating: str = ""
    within: str = ""

    @property
    def names(self) -> set[str]:
        """The names that a line of this form has."""
        return {self.user, *([self.within] if self.within else [self.item, self.time])}


_FORMS = (
    _Form("steam", "username", "product_id", "date"),
    _Form("steam", "user_id", "item_id", "posted", within="reviews"),
    _Form("steam", "user_id", "item_id", within="items"),
    _Form("epinions", "user", "item", "time", "stars"),
)


def _recogniser(name: str) -> Recogniser:
    """Recognises a first line in braces with names in single quotes, and the names of a form of this shape."""

    def recognise(sample: Sample) -> Shape | None:
        head = sample.lines[0] if sample.lines else ""
        if not _LITERAL.match(head) or head.startswith('{"'):
            return None
        names = set(re.findall(r"u?'(\w+)': ", head))
        form = next((form for form in _FORMS if form.shape == name and form.names <= names), None)
        if form is None:
            return None
        listed = [form.user, form.within] if form.within else [form.user, form.item, form.time]
        evidence = f"one Python literal per line with {', '.join(listed)}"
        if not form.time:
            evidence += "; no times: the order of the list is used"
        time, rating = ("time" if form.time else NO_COLUMN), ("rating" if form.rating else NO_COLUMN)
        meanings = {"user": "user", "item": "item", "time": time, "rating": rating}
        return Shape(name, evidence, meanings, lambda: _open(sample))

    return recognise


for _name in ("steam", "epinions"):
    SHAPES.register(_name)(_recogniser(_name))


def read_literals(where: str, open_file: Callable[[], IO[bytes]]) -> pl.DataFrame:
    """The events of a file of literals: columns user, item, time and rating, all text; what is missing is null.

    Args:
        where: what to call it in messages.
        open_file: opens it, unpacked.

    Raises:
        DataError: a line is not such a literal, or the file is damaged.
    """
    parts: list[pl.DataFrame] = []
    rows: list[_Event] = []
    for literal in _literals(where, open_file):
        rows += literal
        if len(rows) >= _LINES_AT_ONCE:
            parts.append(pl.DataFrame(rows, schema=_SCHEMA, orient="row"))
            rows = []
    return pl.concat([*parts, pl.DataFrame(rows, schema=_SCHEMA, orient="row")])


def _open(sample: Sample) -> Table:
    assert sample.file is not None
    frame = read_literals(sample.where, sample.file.open)
    time = pl.col("time")
    posted = time.str.strip_prefix("Posted ").str.strip_chars(".").str.to_date(_POSTED, strict=False)
    dates = pl.coalesce(time.str.to_date("%Y-%m-%d", strict=False), posted).cast(pl.Datetime("us"))
    seconds = pl.from_epoch(time.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False), "s")
    frame = frame.with_columns(pl.coalesce(dates, seconds.cast(pl.Datetime("us"))))
    return Table(frame.lazy(), frame.columns, sample.where, text=True)


def _literals(where: str, open_file: Callable[[], IO[bytes]]) -> Iterator[list[_Event]]:
    try:
        with open_file() as handle:
            for number, line in enumerate(iter(lambda: handle.readline(_MAX_LINE), b""), start=1):
                if line.strip():
                    yield _events(where, number, line)
    except DAMAGED as error:
        raise DataError(f"{where}: cannot be read ({error})") from None


def _events(where: str, number: int, line: bytes) -> list[_Event]:
    try:
        record: dict[str, Any] = ast.literal_eval(line.decode().strip())
        form = next((form for form in _FORMS if form.names <= set(record)), _FORMS[0])
        return [
            _event(record[form.user], event[form.item], event[form.time] if form.time else None, event.get(form.rating))
            for event in (record[form.within] if form.within else [record])
        ]
    except (ValueError, SyntaxError, KeyError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise DataError(f"{where}: line {number} is not a review ({first_line(error)})") from None


def _event(*values: object) -> _Event:
    """The values as texts, None if missing; a ValueError for half a surrogate pair, which is not valid text."""
    texts = tuple(None if each is None else str(each) for each in values)
    "".join(text or "" for text in texts).encode()
    return texts  # type: ignore[return-value]
