"""Sequences given as lists: `[[1, 2, 3, 4], [1, 2, 5]]`, one list of item ids for each user or session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ensue.data.vocabulary import INT64_MAX, INT64_MIN, ExternalId
from ensue.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Lists = Sequence[Sequence[ExternalId]]


def is_lists(data: object) -> TypeIs[Lists]:
    """Whether data is given as a list of lists, and not as a path, a frame, a store, or a list of paths or frames."""
    if isinstance(data, np.ndarray):
        return True
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        return False
    return not data or not all(isinstance(part, str | Path | pl.DataFrame | pl.LazyFrame) for part in data)


def frame_of_lists(lists: Lists) -> pl.DataFrame:
    """One row per event: `user`, the index of its list, from 0, and `item`.

    An empty list has no events and therefore no user.

    >>> frame_of_lists([["tea", "milk"], [], ["tea"]]).rows()
    [(0, 'tea'), (0, 'milk'), (2, 'tea')]

    Raises:
        DataError: an entry is not a list; an id is neither an integer nor a string; both kinds of ids occur; or there
            are no events.
    """
    rows = [_row(place, row) for place, row in enumerate(lists)]
    kinds = set(map(type, chain.from_iterable(rows)))
    if not kinds:
        raise DataError(f"the data has no events: {len(rows)} lists, and none with an item id")
    if kinds not in ({int}, {str}):
        rows = [[_plain(item, place, event) for event, item in enumerate(row)] for place, row in enumerate(rows)]
        _refuse_mixed(rows)
    items = list(chain.from_iterable(rows))
    if type(items[0]) is int and not INT64_MIN <= min(items) <= max(items) <= INT64_MAX:
        raise DataError(f"item ids must be integers of 64 bits (got {max(items, key=abs)}): give such ids as strings")
    if "" in items:
        raise DataError("an item id must not be an empty string")
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return pl.DataFrame({"user": users, "item": items})


def _row(place: int, row: Any) -> list[Any]:
    if isinstance(row, str | bytes | Mapping | Set) or not isinstance(row, Iterable):
        raise DataError(
            "data given as a list must contain lists of item ids, oldest first, such as [[1, 2, 3], [1, 4]], but entry "
            f"{place} is {row!r:.60}. For other data, give a path or a frame (polars.DataFrame(rows))"
        )
    return list(row)


def _plain(item: Any, place: int, event: int) -> ExternalId:
    """An id as a Python integer or string."""
    if isinstance(item, str):
        return str(item)
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        return int(item)
    raise DataError(f"item ids must be integers or strings, but list {place} has {item!r:.60} at place {event}")


def _refuse_mixed(rows: list[list[ExternalId]]) -> None:
    """Ids are never converted, so 7 and "7" would be two items."""
    first = next(chain.from_iterable(rows))
    for place, row in enumerate(rows):
        for item in row:
            if type(item) is not type(first):
                raise DataError(
                    f"item ids must be all integers or all strings, but the first is {first!r} and list {place} has "
                    f"{item!r:.60}"
                )
