"""Views of a store: sequences to train on, and cases to predict.

Suffixes: `E` events of the store, `R` rows, `P` events of all rows, `B` cases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ensue.data.arrays import gather_events
from ensue.data.session_order import kept_events
from ensue.data.store import SequenceStore


@dataclass(frozen=True, eq=False)
class Sequences:
    """R runs of events: row r is events start_R[r]:stop_R[r] of user users_R[r] (0-based), never empty."""

    store: SequenceStore
    users_R: np.ndarray
    start_R: np.ndarray
    stop_R: np.ndarray

    def __len__(self) -> int:
        return len(self.users_R)

    @property
    def lengths_R(self) -> np.ndarray:
        """int64 [R]: events of each row."""
        lengths_R: np.ndarray = self.stop_R - self.start_R
        return lengths_R

    @property
    def events_P(self) -> np.ndarray:
        """int64 [P]: the events of all rows, row after row, as indices into the store's arrays."""
        return gather_events(self.start_R, self.stop_R)

    @property
    def items_P(self) -> np.ndarray:
        """int32 [P]: the items of all rows, row after row."""
        items_P: np.ndarray = self.store.items[self.events_P]
        return items_P


@dataclass(frozen=True, eq=False)
class Cases:
    """B cases: predict the item of event target_B[b] from the events start_B[b]:stop_B[b].

    Every case has a history of at least one event, and its target follows directly (`stop_B == target_B`), except for
    events that are left out (`kept_E`): these are in no history, although they can lie within its bounds.

    Attributes:
        store: the store that the split was made of; all numbers are indices of its events.
        users_B: each case's user, 0-based.
        start_B: the first event of each history.
        stop_B: the end of each history.
        target_B: the event to predict.
        kept_E: which events of the store can be in a history; None for all.
    """

    store: SequenceStore
    users_B: np.ndarray
    start_B: np.ndarray
    stop_B: np.ndarray
    target_B: np.ndarray
    kept_E: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users_B)

    @property
    def target_items_B(self) -> np.ndarray:
        """int32 [B]: the item of each target event."""
        items_B: np.ndarray = self.store.items[self.target_B]
        return items_B

    def take(self, rows_B: np.ndarray) -> Cases:
        """The cases with these numbers, in the given order."""
        arrays = (self.users_B[rows_B], self.start_B[rows_B], self.stop_B[rows_B], self.target_B[rows_B])
        return Cases(self.store, *arrays, self.kept_E)

    def sample(self, count: int, generator: np.random.Generator) -> Cases:
        """`count` of the cases, in their order; all if `count` is 0 or there are no more."""
        if count == 0 or count >= len(self):
            return self
        return self.take(np.sort(generator.choice(len(self), count, replace=False)))

    def without(self, kept_E: np.ndarray) -> Cases:
        """The cases with a kept target and history, whose histories have only kept events."""
        before_E = np.concatenate(([0], np.cumsum(kept_E)))
        has_both_B = kept_E[self.target_B] & (before_E[self.stop_B] > before_E[self.start_B])
        return replace(self.take(np.flatnonzero(has_both_B)), kept_E=kept_E)

    @cached_property
    def packed(self) -> Cases:
        """The same cases of a store without the events that are left out: every target follows its history directly.

        Whatever reads histories reads these.
        """
        if self.kept_E is None:
            return self
        before_E = np.concatenate(([0], np.cumsum(self.kept_E)))
        places = (before_E[self.start_B], before_E[self.stop_B], before_E[self.target_B])
        return Cases(kept_events(self.store, self.kept_E), self.users_B, *places)
