"""Windows: what is asked for, how often; the loader: in what order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.batches.loader import Loader, take_share
from ensue.batches.tasks import Windows, make_windows, shifted
from ensue.data.split import Sequences
from ensue.data.store import SequenceStore
from ensue.errors import DataError

row_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12).filter(lambda rows: max(rows) > 1)


def view_of(lengths_R: list[int], gap: int = 3) -> Sequences:
    """A view whose rows leave `gap` events of each user out, as a split does."""
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths_R) + gap)])
    events = np.arange(offsets[-1])
    store = SequenceStore.from_arrays(offsets=offsets, items=(events + 1).astype(np.int32), times=events * 10)
    return Sequences(store, np.arange(len(lengths_R)), offsets[:-1], offsets[:-1] + np.array(lengths_R))


def targets_of(windows: Windows) -> Counter[int]:
    """Event number -> how often it is a target."""
    counts: Counter[int] = Counter()
    for start, stop in zip(windows.start_W, windows.stop_W, strict=True):
        counts.update(range(start + 1, stop))
    return counts


@given(row_lengths, st.integers(1, 12))
def test_sliding_windows_ask_for_every_event_but_the_first_exactly_once(lengths_R: list[int], maxlen: int) -> None:
    view = view_of(lengths_R)
    windows = make_windows(view, maxlen, "sliding")
    expected = {e for a, b in zip(view.start_R, view.stop_R, strict=True) for e in range(a + 1, b)}
    assert targets_of(windows) == dict.fromkeys(expected, 1)
    assert (windows.stop_W - windows.start_W >= 2).all()
    assert (windows.stop_W - windows.start_W <= maxlen + 1).all()
    assert (windows.start_W >= view.start_R[windows.row_W]).all()
    assert (windows.stop_W <= view.stop_R[windows.row_W]).all()


@given(row_lengths, st.integers(1, 12), st.integers(1, 12))
def test_overlapping_windows_miss_no_event(lengths_R: list[int], maxlen: int, stride: int) -> None:
    view = view_of(lengths_R)
    windows = make_windows(view, maxlen, "sliding", min(stride, maxlen))
    expected = {e for a, b in zip(view.start_R, view.stop_R, strict=True) for e in range(a + 1, b)}
    assert set(targets_of(windows)) == expected
    assert (windows.stop_W - windows.start_W >= 2).all()


@given(row_lengths, st.integers(1, 12))
def test_last_windows_ask_for_the_newest_events(lengths_R: list[int], maxlen: int) -> None:
    view = view_of(lengths_R)
    windows = make_windows(view, maxlen)
    expected = {e for a, b in zip(view.start_R, view.stop_R, strict=True) for e in range(max(a, b - maxlen - 1) + 1, b)}
    assert targets_of(windows) == dict.fromkeys(expected, 1)
    assert len(windows) == sum(length >= 2 for length in lengths_R)


def test_rows_too_short_to_train_on_are_an_error() -> None:
    with pytest.raises(DataError, match="no user has two events"):
        make_windows(view_of([1, 1]), 5)


def test_targets_are_the_next_events_and_nothing_beyond_the_view() -> None:
    view = view_of([4, 1, 3])
    windows = make_windows(view, 2)
    batch = shifted(windows, np.array([1, 0]))
    assert batch.items_P.tolist() == [12, 13, 2, 3]
    assert batch.targets_P is not None
    assert batch.targets_P.tolist() == [13, 14, 3, 4]
    assert batch.lengths_B.tolist() == [2, 2]
    assert batch.times_P is not None
    assert batch.times_P.tolist() == [110, 120, 10, 20]
    # What follows an event is asked for at the time of the next, the target's own at the newest.
    assert batch.query_times_P is not None
    assert batch.query_times_P.tolist() == [120, 130, 20, 30]


def test_without_times_there_are_none() -> None:
    view = view_of([4, 3])
    store = SequenceStore.from_arrays(offsets=view.store.offsets, items=view.store.items)
    batch = shifted(make_windows(Sequences(store, view.users_R, view.start_R, view.stop_R), 2), np.array([0, 1]))
    assert (batch.times_P, batch.query_times_P) == (None, None)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_are_the_batch_row_by_row(size: int) -> None:
    """Every row with its items, times, query times, targets and negatives in exactly one share."""
    windows = make_windows(view_of([9, 4, 7, 2]), 5)
    _, _, batch = next(Loader(windows, 4, seed=0).epoch(0))
    negatives = batch.items_P[:, None] * 100 + torch.arange(3)

    def rows(part: SequenceBatch, drawn: Tensor) -> list[list[list[int]]]:
        columns = (part.items_P, part.times_P, part.query_times_P, part.targets_P, *drawn.T)
        cut = [torch.split(column, part.lengths_B.tolist()) for column in columns]
        return [[values.tolist() for values in row] for row in zip(*cut, strict=True)]

    expected = rows(batch, negatives)
    assert [len(row[0]) for row in expected] == [5, 5, 3, 1]
    for rank in range(size):
        part, drawn = take_share(batch, negatives, rank, size)
        if rank >= 4:
            assert part is None
            continue
        assert part is not None
        assert drawn is not None
        assert rows(part, drawn) == expected[rank::size]
        assert part.layout.last_B.tolist() == (part.lengths_B.cumsum(0) - 1).tolist()


@given(row_lengths, st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_covers_every_window_once(lengths_R: list[int], batch_size: int, epoch: int) -> None:
    windows = make_windows(view_of(lengths_R), 6, "sliding")
    loader = Loader(windows, batch_size, seed=3)
    batches = list(loader.epoch(epoch))
    assert [step for step, _, _ in batches] == list(range(loader.steps))
    sizes = [len(rows) for _, rows, _ in batches]
    assert all(size == batch_size for size in sizes[:-1])
    assert sum(sizes) == len(windows)
    asked = Counter(t for _, _, batch in batches for t in batch.targets_P.tolist())
    assert asked == {event + 1: count for event, count in targets_of(windows).items()}
    for _, rows, batch in batches:
        assert (np.diff(batch.lengths_B.numpy()) <= 0).all()
        first = (batch.lengths_B.cumsum(0) - batch.lengths_B).numpy()
        users = np.searchsorted(windows.sequences.store.offsets, batch.items_P.numpy()[first] - 1, side="right") - 1
        assert (users == rows).all()


def test_a_resumed_epoch_gives_equal_batches() -> None:
    loader = Loader(make_windows(view_of([30, 4, 9, 2, 17, 6, 3]), 4, "sliding"), 3, seed=1)
    whole = list(loader.epoch(2))
    for first in range(loader.steps):
        for (step, rows, batch), (step2, rows2, batch2) in zip(whole[first:], loader.epoch(2, first), strict=True):
            assert step == step2
            assert (rows == rows2).all()
            assert torch.equal(batch.items_P, batch2.items_P)
            assert torch.equal(batch.targets_P, batch2.targets_P)


def test_epochs_and_seeds_differ_in_order() -> None:
    windows = make_windows(view_of([5] * 40), 4)

    def order(seed: int, epoch: int) -> list[int]:
        return [int(row) for _, rows, _ in Loader(windows, 4, seed).epoch(epoch) for row in rows]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6
