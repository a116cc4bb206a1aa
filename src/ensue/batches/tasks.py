"""Tasks: how windows of a training view become batches with asked events and targets.

Suffixes: `E` events of the store, `R` rows of a view, `W` windows, `B` rows of a batch, `P` events of a batch,
`Q` asked events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from ensue.batches.batch import SequenceBatch, feature_codes
from ensue.batches.layout import newest
from ensue.data.arrays import gather_events
from ensue.data.split import Sequences
from ensue.data.targets import last_targets
from ensue.errors import DataError
from ensue.registry import OWN, Registry

WindowName = Literal["last", "sliding", "prefixes"]


@dataclass(frozen=True, slots=True)
class Windows:
    """The training windows of a view: window w is the events start_W[w]:stop_W[w] of row row_W[w].

    A window has at least two and at most maxlen + 1 events, so it gives at least one pair of input and target. `maxlen`
    is the length of the longest history that the model reads.
    """

    sequences: Sequences
    maxlen: int
    row_W: np.ndarray
    start_W: np.ndarray
    stop_W: np.ndarray

    def __len__(self) -> int:
        return len(self.row_W)


Maker = Callable[[Windows, np.ndarray, np.random.Generator], SequenceBatch]


@dataclass(frozen=True, slots=True)
class Task:
    """The events at which a model is asked in training, and their targets.

    Attributes:
        make: (windows, the numbers of this batch's windows, the random stream of this step) -> batch with targets.
        window: the kind of windows that the task needs; None for the kind in the training settings.
        lane_steps: 0: a batch is a draw of whole windows. Otherwise the windows follow one another in session-parallel
            lanes, and a batch is the next `lane_steps` pairs of input and target of every lane; see `LaneLoader`.
    """

    make: Maker
    window: WindowName | None = None
    lane_steps: int = 0


# The tasks of causal models, which their setting `task` names. `cloze` is for bidirectional models.
TASKS: Registry[Task] = Registry("task", hint=OWN)


def make_windows(sequences: Sequences, maxlen: int, window: WindowName = "last", stride: int | None = None) -> Windows:
    """Cut the rows of a training view into windows, which are ranges of the store's events, not copies.

    Args:
        sequences: the training view.
        maxlen: maximum number of inputs in a window.
        window: `last`: each row's newest maxlen + 1 events (SASRec). `sliding`: windows that cover the whole row; the
            last ends at the newest event, the others `stride` events before the next. `prefixes`: for each event except
            a row's first, a window that ends with it.
        stride: number of events between the ends of sliding windows; by default maxlen, so that every event is a target
            once.

    Raises:
        DataError: no row has two events.
    """
    start_R, stop_R = np.asarray(sequences.start_R), np.asarray(sequences.stop_R)
    is_target_E = sequences.store.is_target
    if is_target_E is not None:
        stop_R = np.maximum(start_R, last_targets(is_target_E, stop_R) + 1)
    rows = np.flatnonzero(stop_R - start_R >= 2)
    if len(rows) == 0:
        kind = "" if is_target_E is None else ", the last of them a target"
        raise DataError(f"nothing to train on: no user has 2 or more training events after the split{kind}")
    start_R, stop_R = start_R[rows], stop_R[rows]
    if window != "last":
        step = 1 if window == "prefixes" else stride or maxlen
        shortest = 1 if window == "prefixes" else maxlen
        count = 1 + np.maximum(0, -(-(stop_R - start_R - 1 - shortest) // step))
        back = (np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)) * step
        rows, start_R = np.repeat(rows, count), np.repeat(start_R, count)
        stop_R = np.repeat(stop_R, count) - back
        if is_target_E is not None:
            # Every window ends with a target; a prefix that does not is left out.
            ends_R = last_targets(is_target_E, stop_R) + 1
            kept = ends_R == stop_R if window == "prefixes" else ends_R - np.maximum(start_R, stop_R - maxlen - 1) >= 2
            rows, start_R, stop_R = rows[kept], np.maximum(start_R, stop_R - maxlen - 1)[kept], ends_R[kept]
    return Windows(sequences, maxlen, rows, np.maximum(start_R, stop_R - maxlen - 1), stop_R)


def next_items(windows: Windows, chosen_B: np.ndarray, rng: np.random.Generator) -> SequenceBatch:
    """Ask for the next item at each event of a window except the last (SASRec).

    A window of the items 3 1 4 becomes the history 3 1, asked at both events, with the targets 1 4.
    """
    return _shifted(windows, chosen_B, lambda lengths_B: np.arange(lengths_B.sum()))


def newest_items(windows: Windows, chosen_B: np.ndarray, rng: np.random.Generator) -> SequenceBatch:
    """Ask for the next item only at the last event but one of each window.

    A window of the items 3 1 4 becomes the history 3 1, asked at its newest event, with the target 4.
    """
    return _shifted(windows, chosen_B, newest)


def next_of(count: int) -> Task:
    """A task whose target at each event of a window except the last is one of the next `count` items, drawn uniformly.

    Over many draws this is the mean loss of `count` targets (Caser, Tang & Wang, WSDM 2018, section 3.4). With two next
    items, the window of the items 3 1 4 becomes the history 3 1 with the targets 1 or 4, and 4.
    """

    def make(windows: Windows, chosen_B: np.ndarray, rng: np.random.Generator) -> SequenceBatch:
        def ahead(lengths_B: np.ndarray) -> np.ndarray:
            left_P = np.repeat(np.cumsum(lengths_B), lengths_B) - np.arange(lengths_B.sum())
            ahead_P: np.ndarray = rng.integers(0, np.minimum(left_P, count))
            return ahead_P

        return _shifted(windows, chosen_B, lambda lengths_B: np.arange(lengths_B.sum()), ahead)

    return Task(make)


def _shifted(
    windows: Windows,
    chosen_B: np.ndarray,
    asked: Callable[[np.ndarray], np.ndarray],
    ahead: Callable[[np.ndarray], np.ndarray | int] = lambda _: 0,
) -> SequenceBatch:
    """The events of each window except its last; the events selected by `asked` are asked for the next item.

    Args:
        windows: all windows.
        chosen_B: the numbers of this batch's windows.
        asked: lengths of the rows -> the asked events.
        ahead: lengths of the rows -> number of items between each event and its target.
    """
    start_B, stop_B = windows.start_W[chosen_B], windows.stop_W[chosen_B]
    events_P, lengths_B = gather_events(start_B, stop_B - 1), stop_B - start_B - 1
    return batch_of_events(windows, chosen_B, events_P, lengths_B, asked(lengths_B), ahead(lengths_B))


def batch_of_events(
    windows: Windows,
    chosen_B: np.ndarray,
    events_P: np.ndarray,
    lengths_B: np.ndarray,
    asked_Q: np.ndarray,
    ahead_P: np.ndarray | int = 0,
) -> SequenceBatch:
    """A batch of events of the store, asked for the next item.

    Args:
        windows: all windows.
        chosen_B: the window of each row.
        events_P: the events of all rows, none of them the last of its window.
        lengths_B: number of events of each row.
        asked_Q: the asked events, as numbers 0..P-1.
        ahead_P: number of items between each event and its target.
    """
    store = windows.sequences.store
    target_P = events_P + 1 + ahead_P
    if store.is_target is not None:
        asked_Q = asked_Q[store.is_target[target_P[asked_Q]]]
    users_B = windows.sequences.users_R[windows.row_W[chosen_B]]
    batch = SequenceBatch.from_numpy(
        store.items[events_P],
        lengths_B,
        None if store.times is None else store.times[events_P],
        None if store.times is None else store.times[events_P + 1],
        asked_Q,
        store.items[target_P[asked_Q]],
        features=feature_codes(store, events_P, users_B, lengths_B),
    )
    return replace(batch, users_B=torch.from_numpy(users_B.astype(np.int64) + 1))


def cloze(
    mask_prob: float = 0.2, mask_share: float = 1.0, random_share: float = 0.0, newest_share: float = 0.0
) -> Task:
    """A task that masks events and asks for their items (BERT4Rec, Sun et al., CIKM 2019, section 3.6).

    The history 3 1 4 with its second event masked becomes 3 [MASK] 4, asked at the second event, with the target 1.
    [MASK] is item N + 1. Every history has at least one masked event.

    Args:
        mask_prob: probability that an event is masked.
        mask_share: share of the masked events that are replaced by [MASK].
        random_share: share that are replaced by a random item; the rest keep their own.
        newest_share: share of the histories in which only the newest event is masked, as in serving.
    """

    def make(windows: Windows, chosen_B: np.ndarray, rng: np.random.Generator) -> SequenceBatch:
        stop_B = windows.stop_W[chosen_B]
        start_B = np.maximum(windows.start_W[chosen_B], stop_B - windows.maxlen)
        store, lengths_B = windows.sequences.store, stop_B - start_B
        events_P = gather_events(start_B, stop_B)
        items_P = store.items[events_P].astype(np.int64)
        is_target_P = None if store.is_target is None else store.is_target[events_P]
        asked_Q = _masked(lengths_B, mask_prob, newest_share, rng, is_target_P)
        target_Q = items_P[asked_Q]
        kind_Q = rng.random(len(asked_Q))
        items_P[asked_Q[kind_Q < mask_share]] = store.num_items + 1
        is_random = (kind_Q >= mask_share) & (kind_Q < mask_share + random_share)
        items_P[asked_Q[is_random]] = rng.integers(1, store.num_items + 1, int(is_random.sum()))
        times_P = None if store.times is None else store.times[events_P]
        features = feature_codes(store, events_P, windows.sequences.users_R[windows.row_W[chosen_B]], lengths_B)
        for codes_P in (features or {}).values():
            codes_P[asked_Q] = 0  # in serving, the features of [MASK] are unknown
        return SequenceBatch.from_numpy(items_P, lengths_B, times_P, None, asked_Q, target_Q, "own", features)

    return Task(make)


def _masked(
    lengths_B: np.ndarray,
    mask_prob: float,
    newest_share: float,
    rng: np.random.Generator,
    is_target_P: np.ndarray | None = None,
) -> np.ndarray:
    """The events to mask, only targets: at least one per row, whose newest is one; in some rows only the newest."""
    score_P = rng.random(int(lengths_B.sum()))
    if is_target_P is not None:
        score_P[~is_target_P] = 2.0
    first_B = np.cumsum(lengths_B) - lengths_B
    is_masked = score_P < mask_prob
    # In a row without a masked event, the event with the smallest draw is masked.
    row_P = np.repeat(np.arange(len(lengths_B)), lengths_B)
    is_masked[np.lexsort((score_P, row_P))[first_B]] = True
    only_newest_B = rng.random(len(lengths_B)) < newest_share
    is_masked[only_newest_B[row_P]] = False
    is_masked[newest(lengths_B)[only_newest_B]] = True
    return np.flatnonzero(is_masked)


def append_mask(batch: SequenceBatch, mask: int, maxlen: int) -> SequenceBatch:
    """Append [MASK] to each row and ask for its item, instead of asking for the next item after the row.

    Args:
        batch: histories; each row's newest event is asked.
        mask: the number of [MASK].
        maxlen: length of the longest row after appending; the oldest event of a longer row is dropped.
    """
    lengths_B = batch.lengths_B.cpu().numpy()
    kept_B = np.minimum(lengths_B, maxlen - 1)
    stop_B = np.cumsum(lengths_B)
    events_P = gather_events(stop_B - kept_B, stop_B)
    at = np.cumsum(kept_B)
    items_P = np.insert(batch.items_P.cpu().numpy()[events_P], at, mask)
    times_P = None
    if batch.times_P is not None:
        known = batch.times_P.cpu().numpy()
        request_B = known if batch.query_times_P is None else batch.query_times_P.cpu().numpy()
        times_P = np.insert(known[events_P], at, request_B[stop_B - 1])
    features = None
    if batch.features is not None:
        features = {name: np.insert(x_P.cpu().numpy()[events_P], at, 0) for name, x_P in batch.features.items()}
    masked = SequenceBatch.from_numpy(items_P, kept_B + 1, times_P, asks="own", features=features)
    return masked.to(batch.items_P.device)


TASKS.register("next")(Task(next_items))
TASKS.register("last")(Task(newest_items))
TASKS.register("prefixes")(Task(newest_items, "prefixes"))
