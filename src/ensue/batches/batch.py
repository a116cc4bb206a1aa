"""`SequenceBatch`: what every model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ensue.batches.layout import Layout, make_layout
from ensue.data.arrays import gather_events
from ensue.data.split import Sequences


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """Histories, packed: the events of all rows one after another, oldest first, no padding.

    Attributes:
        items_P: int64, item numbers 1..N.
        lengths_B: int64, events of each row, at least 1.
        layout: the rectangles that attention sees, and the place of each row's newest event.
        times_P: int64 seconds, or None.
        query_times_P: int64 seconds, when what follows each event is asked for: the time of the next event, and for a
            row's newest event that of the request; or None.
        targets_P: int64, the item to predict at each position, 0 where there is none; None outside training.
        features: further values per event, each [P].
    """

    items_P: Tensor
    lengths_B: Tensor
    layout: Layout
    times_P: Tensor | None = None
    targets_P: Tensor | None = None
    query_times_P: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def from_numpy(
        cls,
        items_P: np.ndarray,
        lengths_B: np.ndarray,
        times_P: np.ndarray | None = None,
        targets_P: np.ndarray | None = None,
        query_times_P: np.ndarray | None = None,
    ) -> SequenceBatch:
        """Make a batch from arrays; the layout is planned here."""

        def tensor(values: np.ndarray | None) -> Tensor | None:
            return None if values is None else torch.from_numpy(values.astype(np.int64))

        return cls(
            torch.from_numpy(items_P.astype(np.int64)),
            torch.from_numpy(lengths_B.astype(np.int64)),
            make_layout(lengths_B),
            tensor(times_P),
            tensor(targets_P),
            tensor(query_times_P),
        )

    @classmethod
    def from_lists(cls, histories: Sequence[Sequence[int]]) -> SequenceBatch:
        """Make a batch from lists of item numbers, each non-empty."""
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        return cls.from_numpy(np.concatenate([np.asarray(h, dtype=np.int64) for h in histories]), lengths)

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
            move(self.times_P),
            move(self.targets_P),
            move(self.query_times_P),
            {name: values.to(device, non_blocking=True) for name, values in self.features.items()},
        )


def query_times(times_P: np.ndarray, lengths_B: np.ndarray, request_times_B: np.ndarray) -> np.ndarray:
    """When what follows each event is asked for: the next event's time, and for each row's newest the request's."""
    asked_P = np.append(times_P[1:], 0)
    asked_P[np.cumsum(lengths_B) - 1] = request_times_B
    return asked_P


def history_batch(
    histories: Sequences, rows_B: np.ndarray, maxlen: int, request_times_B: np.ndarray | None = None
) -> SequenceBatch:
    """The newest `maxlen` events of the given rows of a view, as a batch without targets.

    Args:
        histories: the view.
        rows_B: row numbers; every row must have at least one event.
        maxlen: the longest history the model reads.
        request_times_B: seconds of each request, for models that may know them.
    """
    stop_B = histories.stop_R[rows_B]
    start_B = np.maximum(histories.start_R[rows_B], stop_B - maxlen)
    events_P = gather_events(start_B, stop_B)
    store = histories.store
    times_P = None if store.times is None else store.times[events_P]
    asked_P = None
    if request_times_B is not None and times_P is not None:
        asked_P = query_times(times_P, stop_B - start_B, request_times_B)
    return SequenceBatch.from_numpy(store.items[events_P], stop_B - start_B, times_P, query_times_P=asked_P)
