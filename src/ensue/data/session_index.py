"""Sessions and the sessions in which each item occurs, for neighbour models.

Suffixes: `S` sessions, `N` items, `E` occurrences of items in sessions, `R` rows of a view, `P` events of all rows; `1`
one more entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ensue.data.arrays import IntArray, packed_events
from ensue.data.split import Sequences
from ensue.errors import ArtefactError


@dataclass(frozen=True, slots=True)
class SessionIndex:
    """Sessions from the oldest to the newest; a repeated item counts once, at its last place.

    Attributes:
        starts_S1: int64, the occurrences of session s are starts[s]:starts[s + 1].
        items_E: int32, the item of each occurrence, in the order of places.
        places_E: int32, its place in the session, from 0.
        times_S: int64, seconds of each session's newest event; without times its number.
        first_N1: int64, the entries of item i are first[i - 1]:first[i].
        sessions_E: int32, the sessions of each item, oldest first.
        places_of_E: int32, the item's place in each of them.
    """

    starts_S1: IntArray
    items_E: NDArray[np.int32]
    places_E: NDArray[np.int32]
    times_S: IntArray
    first_N1: IntArray
    sessions_E: NDArray[np.int32]
    places_of_E: NDArray[np.int32]

    @classmethod
    def build(cls, sessions: Sequences) -> Self:
        """The index of the rows of a training view."""
        empty = np.zeros(0, dtype=np.int32)
        no_items = np.zeros(sessions.store.num_items + 1, dtype=np.int64)
        nothing = np.zeros(1, dtype=np.int64)
        return cls(nothing, empty, empty, nothing[:0], no_items, empty, empty).plus(sessions)

    @property
    def num_sessions(self) -> int:
        """S."""
        return len(self.times_S)

    @property
    def lengths_S(self) -> IntArray:
        """int64 [S]: different items of each session."""
        return np.diff(self.starts_S1)

    @property
    def sessions_of_N(self) -> IntArray:
        """int64 [N]: sessions that each item occurs in."""
        return np.diff(self.first_N1)

    def plus(self, sessions: Sequences) -> Self:
        """An index with further sessions, which count as newer than those before; nothing is sorted again.

        Args:
            sessions: of the same item numbers. Rows are taken in the order of their newest events' times, and without
                times as they are.
        """
        store, before = sessions.store, self.num_sessions
        if store.times is None:
            rows = np.arange(len(sessions))
            times_S = before + rows
        else:
            newest_R = store.times[sessions.stop_R - 1]
            rows = np.argsort(newest_R, kind="stable")
            times_S = newest_R[rows]
        items_E, places_E, lengths_S = _distinct(sessions, rows)
        new_S = np.repeat(np.arange(before, before + len(rows), dtype=np.int32), lengths_S)
        order = np.argsort(items_E, kind="stable")
        # New sessions come after the existing ones of each item, in their own order.
        at = self.first_N1[items_E[order]]
        count_N = np.bincount(items_E, minlength=store.num_items + 1)[1:]
        return type(self)(
            np.concatenate((self.starts_S1, self.starts_S1[-1] + np.cumsum(lengths_S))),
            np.concatenate((self.items_E, items_E)),
            np.concatenate((self.places_E, places_E)),
            np.concatenate((self.times_S, times_S)),
            self.first_N1 + np.concatenate(([0], np.cumsum(count_N))),
            np.insert(self.sessions_E, at, new_S[order]),
            np.insert(self.places_of_E, at, places_E[order]),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The sessions as named arrays, to be saved; `from_arrays` is the inverse."""
        return {"starts": self.starts_S1, "items": self.items_E, "places": self.places_E, "times": self.times_S}

    @classmethod
    def from_arrays(cls, named: Mapping[str, NDArray[Any]], num_items: int) -> Self:
        """Rebuild from `arrays`.

        Raises:
            ArtefactError: an array is missing or unknown, or its shape or values break a rule.
        """
        if named.keys() != {"starts", "items", "places", "times"}:
            raise ArtefactError(f"sessions have the arrays starts, items, places and times, not {sorted(named)}")
        starts_S1, times_S = named["starts"].astype(np.int64), named["times"].astype(np.int64)
        items_E, places_E = named["items"].astype(np.int32), named["places"].astype(np.int32)
        if items_E.ndim != 1 or items_E.shape != places_E.shape or starts_S1.shape != (times_S.size + 1,):
            raise ArtefactError("sessions: the lengths of the arrays do not match")
        if starts_S1[0] != 0 or starts_S1[-1] != items_E.size or (np.diff(starts_S1) < 1).any():
            raise ArtefactError("sessions: starts must rise from 0 to the number of items")
        if items_E.size and not (1 <= items_E.min() <= items_E.max() <= num_items and places_E.min() >= 0):
            raise ArtefactError(f"sessions: an item is outside 1..{num_items}, or a place below 0")
        order = np.argsort(items_E, kind="stable")
        sessions_E = np.repeat(np.arange(times_S.size, dtype=np.int32), np.diff(starts_S1))
        first_N1 = np.searchsorted(items_E[order], np.arange(1, num_items + 2))
        return cls(starts_S1, items_E, places_E, times_S, first_N1, sessions_E[order], places_E[order])


def _distinct(sessions: Sequences, rows: IntArray) -> tuple[NDArray[np.int32], NDArray[np.int32], IntArray]:
    """The items of these rows, each at its last place in the row, those places, and how many each row has."""
    events, places = packed_events(sessions.start_R[rows], sessions.stop_R[rows])
    items = sessions.store.items[events].astype(np.int32)
    row_P = np.cumsum(places == 0) - 1
    order = np.lexsort((places, items, row_P))
    is_last = np.ones(len(order), dtype=bool)
    is_last[:-1] = (np.diff(row_P[order]) != 0) | (np.diff(items[order]) != 0)
    kept = np.sort(order[is_last])
    return items[kept], places[kept].astype(np.int32), np.bincount(row_P[kept], minlength=len(rows))
