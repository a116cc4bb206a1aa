"""`SequenceBatch`: the histories that a model reads, and the events at which it is asked to predict.

Suffixes: `B` rows, `P` events of all rows, `Q` asked events, `K` negatives, `R` rows of a view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ensue.batches.layout import Layout, make_layout, newest
from ensue.data.arrays import gather_events
from ensue.data.split import Cases, Sequences
from ensue.data.store import SequenceStore

Asks = Literal["next", "own"]


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """Histories, packed: the events of all rows one after another, oldest first, without padding.

    Attributes:
        items_P: int64, item numbers 1..N; larger numbers are special inputs such as [MASK].
        lengths_B: int64, number of events in each row, at least 1.
        layout: the rectangles for attention, the ages of the events, and the asked events of each rectangle.
        asked_Q: int64, event numbers of the asked events, distinct and ascending: all, the newest, or the masked ones.
        row_Q: int64, the row of each asked event.
        asks: `next`: predict the item after an asked event; `own`: predict its own, masked item.
        target_Q: int64, the correct item; None outside training.
        negatives: int64, incorrect items: [Q, K], or [K] for all asked events; or None.
        times_P: int64 seconds, or None.
        query_times_P: int64 seconds of the request after each event: the next event's time, or, for a row's newest
            event, that of the request; or None. Every event has one, since every event is a query of attention.
        users_B: int64, the number of each row's user in the training data (0: unknown), or None.
        features: name -> int64 codes [P] of the features of events, and of those of their users, repeated for each
            event; None if the model reads none. Features of items are looked up by the model.
        views: augmented copies of the rows, for an auxiliary term of the loss; or None.
        lanes: the place of each row in session-parallel training, or None.
        log_rate_K: float32, the log of the expected number of each shared negative in a batch; None: a constant of the
            objective.
    """

    items_P: Tensor
    lengths_B: Tensor
    layout: Layout
    asked_Q: Tensor
    row_Q: Tensor
    asks: Asks = "next"
    target_Q: Tensor | None = None
    negatives: Tensor | None = None
    times_P: Tensor | None = None
    query_times_P: Tensor | None = None
    users_B: Tensor | None = None
    views: Views | None = None
    features: Mapping[str, Tensor] | None = None
    lanes: Lanes | None = None
    log_rate_K: Tensor | None = None

    @classmethod
    def from_numpy(
        cls,
        items_P: np.ndarray,
        lengths_B: np.ndarray,
        times_P: np.ndarray | None = None,
        query_times_P: np.ndarray | None = None,
        asked_Q: np.ndarray | None = None,
        target_Q: np.ndarray | None = None,
        asks: Asks = "next",
        features: Mapping[str, np.ndarray] | None = None,
    ) -> SequenceBatch:
        """Create a batch, with its layout, from arrays. Without `asked_Q` each row's newest event is asked."""
        if asked_Q is None:
            asked_Q = newest(lengths_B)
        row_Q = np.searchsorted(np.cumsum(lengths_B), asked_Q, side="right")
        return cls(
            _int64(items_P),
            _int64(lengths_B),
            _layout(lengths_B, asked_Q),
            _int64(asked_Q),
            _int64(row_Q),
            asks,
            None if target_Q is None else _int64(target_Q),
            None,
            None if times_P is None else _int64(times_P),
            None if query_times_P is None else _int64(query_times_P),
            features=None if features is None else {name: _int64(codes_P) for name, codes_P in features.items()},
        )

    @classmethod
    def from_lists(cls, histories: Sequence[Sequence[int]]) -> SequenceBatch:
        """Create a batch from non-empty lists of item numbers; each row's newest event is asked."""
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        return cls.from_numpy(np.concatenate([np.asarray(h, dtype=np.int64) for h in histories]), lengths)

    def asking(self, asked_Q: np.ndarray) -> SequenceBatch:
        """The same histories with other events asked, and without targets.

        Args:
            asked_Q: event numbers, distinct and ascending.
        """
        lengths_B = self.lengths_B.cpu().numpy()
        row_Q = np.searchsorted(np.cumsum(lengths_B), asked_Q, side="right")
        device = self.items_P.device
        return replace(
            self,
            layout=_layout(lengths_B, asked_Q).to(device),
            asked_Q=_int64(asked_Q).to(device),
            row_Q=_int64(row_Q).to(device),
            target_Q=None,
            negatives=None,
        )

    def asking_all(self) -> SequenceBatch:
        """The same histories with every event asked."""
        return self.asking(np.arange(len(self.items_P)))

    def to(self, device: torch.device) -> SequenceBatch:
        """The same batch on `device`."""
        if device == self.items_P.device:
            return self

        def move(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.to(device, non_blocking=True)

        return SequenceBatch(
            self.items_P.to(device, non_blocking=True),
            self.lengths_B.to(device, non_blocking=True),
            self.layout.to(device),
            self.asked_Q.to(device, non_blocking=True),
            self.row_Q.to(device, non_blocking=True),
            self.asks,
            move(self.target_Q),
            move(self.negatives),
            move(self.times_P),
            move(self.query_times_P),
            move(self.users_B),
            None if self.views is None else self.views.to(device),
            None if self.features is None else {name: codes_P.to(device) for name, codes_P in self.features.items()},
            None if self.lanes is None else self.lanes.to(device),
            move(self.log_rate_K),
        )


@dataclass(frozen=True, slots=True)
class Views:
    """Two views of a batch's rows, row by row.

    Attributes:
        first: the first; the newest event of each row is asked.
        second: the second, likewise.
        is_same_BB: pairs of rows that are no negatives of each other: a row and itself, rows of one user or one target.
    """

    first: SequenceBatch
    second: SequenceBatch
    is_same_BB: Tensor

    def to(self, device: torch.device) -> Views:
        """The same views on `device`."""
        return Views(self.first.to(device), self.second.to(device), self.is_same_BB.to(device))


def newest_events(batch: SequenceBatch, maxlen: int) -> SequenceBatch:
    """The newest `maxlen` events of each row; each row's newest event must be the asked one.

    The batch itself if no row is longer.
    """
    lengths_B = batch.lengths_B.cpu().numpy()
    if lengths_B.max() <= maxlen:
        return batch
    stop_B, kept_B = np.cumsum(lengths_B), np.minimum(lengths_B, maxlen)
    events_P = gather_events(stop_B - kept_B, stop_B)

    def kept(values: Tensor | None) -> np.ndarray | None:
        return None if values is None else values.cpu().numpy()[events_P]

    features = None
    if batch.features is not None:
        features = {name: codes_P.cpu().numpy()[events_P] for name, codes_P in batch.features.items()}
    items_P = batch.items_P.cpu().numpy()[events_P]
    times = kept(batch.times_P), kept(batch.query_times_P)
    shorter = SequenceBatch.from_numpy(items_P, kept_B, *times, features=features).to(batch.items_P.device)
    return replace(shorter, users_B=batch.users_B)


@dataclass(frozen=True, slots=True)
class Lanes:
    """The place of each row of a batch in session-parallel training.

    A lane is a stream of histories, one after another. A row is the part of one history that a step reads.

    Attributes:
        count: number of lanes.
        lane_B: int64, the lane of each row, ascending; the rows of a lane are in their order.
        is_new_B: bool, whether the row starts without a state; otherwise it continues the last row of its lane in the
            step before.
    """

    count: int
    lane_B: Tensor
    is_new_B: Tensor

    def to(self, device: torch.device) -> Lanes:
        """The same places on `device`."""
        return Lanes(self.count, self.lane_B.to(device), self.is_new_B.to(device))


def _layout(lengths_B: np.ndarray, asked_Q: np.ndarray) -> Layout:
    return make_layout(lengths_B, None if len(asked_Q) == lengths_B.sum() else asked_Q)


def _int64(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


def query_times(times_P: np.ndarray, lengths_B: np.ndarray, request_times_B: np.ndarray) -> np.ndarray:
    """The time of the request after each event: the next event's time, or the request's for each row's newest event."""
    query_P = np.append(times_P[1:], 0)
    query_P[np.cumsum(lengths_B) - 1] = request_times_B
    return query_P


def history_batch(
    histories: Sequences, rows_B: np.ndarray, maxlen: int, request_times_B: np.ndarray | None = None
) -> SequenceBatch:
    """The newest `maxlen` events of the given rows of a view; each row's newest event is asked.

    Args:
        histories: the view.
        rows_B: row numbers; every row must have at least one event.
        maxlen: length of the longest history that the model reads.
        request_times_B: time of each request in seconds, for models that read it.
    """
    stop_B = histories.stop_R[rows_B]
    start_B = np.maximum(histories.start_R[rows_B], stop_B - maxlen)
    events_P = gather_events(start_B, stop_B)
    store = histories.store
    times_P = None if store.times is None else store.times[events_P]
    query_P = None
    if request_times_B is not None and times_P is not None:
        query_P = query_times(times_P, stop_B - start_B, request_times_B)
    features = feature_codes(store, events_P, histories.users_R[rows_B], stop_B - start_B)
    return SequenceBatch.from_numpy(store.items[events_P], stop_B - start_B, times_P, query_P, features=features)


def feature_codes(
    store: SequenceStore, events_P: np.ndarray, users_B: np.ndarray, lengths_B: np.ndarray
) -> dict[str, np.ndarray] | None:
    """The codes of the features of some events and of their users, by name: [P]; None if no model reads any.

    Args:
        store: the data.
        events_P: events of the store.
        users_B: the user of each row, 0-based.
        lengths_B: events of each row.
    """
    return None if store.inputs is None else store.inputs.at(events_P, np.repeat(users_B, lengths_B))


def case_batch(cases: Cases, rows_B: np.ndarray, maxlen: int, query_time: bool) -> SequenceBatch:
    """The histories of the given cases, newest `maxlen` events.

    Args:
        cases: histories and targets.
        rows_B: numbers of the cases.
        maxlen: length of the longest history that the model reads.
        query_time: whether to include the time of the request, which is the target's.
    """
    histories = Sequences(cases.store, cases.users_B, cases.start_B, cases.stop_B)
    times = cases.store.times
    request_times_B = times[cases.target_B[rows_B]] if query_time and times is not None else None
    batch = history_batch(histories, rows_B, maxlen, request_times_B)
    return replace(batch, users_B=_int64(cases.users_B[rows_B] + 1))
