"""What a batch asks for: rows of a training view become inputs and targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ensue.batches.batch import SequenceBatch
from ensue.data.arrays import gather_events
from ensue.data.split import Sequences
from ensue.errors import DataError


@dataclass(frozen=True, slots=True)
class Windows:
    """The training windows of a view: window w is the events start_W[w]:stop_W[w] of row row_W[w].

    A window has at most maxlen + 1 events and at least two, so that it gives at least one (input, target) pair.
    """

    sequences: Sequences
    row_W: np.ndarray
    start_W: np.ndarray
    stop_W: np.ndarray

    def __len__(self) -> int:
        return len(self.row_W)


def make_windows(
    sequences: Sequences, maxlen: int, window: Literal["last", "sliding"] = "last", stride: int | None = None
) -> Windows:
    """Cut the rows of a training view into windows.

    Args:
        sequences: the training view.
        maxlen: inputs per window at most.
        window: `last` takes each row's newest maxlen + 1 events (SASRec); `sliding` covers longer rows with
            windows that end at the newest event and step back by `stride`.
        stride: events between the ends of sliding windows; maxlen by default, so that every event is a target once.

    Raises:
        DataError: no row has two events.
    """
    start_R, stop_R = np.asarray(sequences.start_R), np.asarray(sequences.stop_R)
    rows = np.flatnonzero(stop_R - start_R >= 2)
    if len(rows) == 0:
        raise DataError("nothing to train on: no user has two events before the split's held-out ones")
    start_R, stop_R = start_R[rows], stop_R[rows]
    if window == "sliding":
        step = stride or maxlen
        count = 1 + np.maximum(0, -(-(stop_R - start_R - 1 - maxlen) // step))
        back = (np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)) * step
        rows, start_R = np.repeat(rows, count), np.repeat(start_R, count)
        stop_R = np.repeat(stop_R, count) - back
    return Windows(sequences, rows, np.maximum(start_R, stop_R - maxlen - 1), stop_R)


def shifted(windows: Windows, chosen_B: np.ndarray) -> SequenceBatch:
    """The next-item task: each event but a window's last is an input, the event after it the target.

    Args:
        windows: the windows of a training view.
        chosen_B: the windows of this batch.
    """
    start_B, stop_B = windows.start_W[chosen_B], windows.stop_W[chosen_B]
    events_P = gather_events(start_B, stop_B - 1)
    store = windows.sequences.store
    times_P, asked_P = (None, None) if store.times is None else (store.times[events_P], store.times[events_P + 1])
    targets_P = store.items[events_P + 1]
    return SequenceBatch.from_numpy(store.items[events_P], stop_B - start_B - 1, times_P, targets_P, asked_P)
