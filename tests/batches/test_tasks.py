"""Windows: what is asked for, how often; the loader: in what order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ensue.batches.batch import SequenceBatch
from ensue.batches.loader import Loader, take_share
from ensue.batches.tasks import TASKS, Task, Windows, append_mask, cloze, make_windows, newest_items, next_items
from ensue.data.split import Sequences
from ensue.data.store import SequenceStore
from ensue.errors import DataError

RNG = np.random.default_rng(0)
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
    with pytest.raises(DataError, match="no user has 2 or more training events"):
        make_windows(view_of([1, 1]), 5)


def test_targets_are_the_next_events_and_nothing_beyond_the_view() -> None:
    view = view_of([4, 1, 3])
    windows = make_windows(view, 2)
    batch = next_items(windows, np.array([1, 0]), RNG)
    assert batch.items_P.tolist() == [12, 13, 2, 3]
    assert batch.target_Q is not None
    assert batch.target_Q.tolist() == [13, 14, 3, 4]
    assert batch.lengths_B.tolist() == [2, 2]
    assert batch.times_P is not None
    assert batch.times_P.tolist() == [110, 120, 10, 20]
    # What follows an event is asked for at the time of the next, the target's own at the newest.
    assert batch.query_times_P is not None
    assert batch.query_times_P.tolist() == [120, 130, 20, 30]


def test_without_times_there_are_none() -> None:
    view = view_of([4, 3])
    store = SequenceStore.from_arrays(offsets=view.store.offsets, items=view.store.items)
    windows = make_windows(Sequences(store, view.users_R, view.start_R, view.stop_R), 2)
    batch = next_items(windows, np.array([0, 1]), RNG)
    assert (batch.times_P, batch.query_times_P) == (None, None)


@pytest.mark.parametrize("task", [TASKS["next"], TASKS["last"], cloze()], ids=["next", "last", "cloze"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_are_the_batch_row_by_row(size: int, task: Task) -> None:
    """Every row with its items, times, questions, answers and negatives in exactly one share."""
    windows = make_windows(view_of([9, 4, 7, 2]), 5)
    _, _, batch = next(Loader(windows, task, 4, seed=0).epoch(0))
    assert batch.target_Q is not None
    batch = replace(batch, negatives=batch.target_Q[:, None] * 100 + torch.arange(3))

    def rows(part: SequenceBatch) -> list[list[list[int]]]:
        result = []
        stop_B = part.lengths_B.cumsum(0).tolist()
        for row, (length, stop) in enumerate(zip(part.lengths_B.tolist(), stop_B, strict=True)):
            events, own = slice(stop - length, stop), part.row_Q == row
            of_events = [x[events].tolist() for x in (part.items_P, part.times_P, part.query_times_P) if x is not None]
            of_asked = [x[own].tolist() for x in (part.asked_Q - events.start, part.target_Q, part.negatives)]
            result.append([*of_events, *of_asked])
        return result

    expected = rows(batch)
    for rank in range(size):
        part = take_share(batch, rank, size)
        if rank >= 4:
            assert part is None
            continue
        assert part is not None
        assert rows(part) == expected[rank::size]
        assert part.asks == batch.asks
        assert part.layout.last_B.tolist() == (part.lengths_B.cumsum(0) - 1).tolist()
        shared = take_share(replace(batch, negatives=torch.tensor([1, 2])), rank, size)
        assert shared is not None
        assert shared.negatives is not None
        assert shared.negatives.tolist() == [1, 2]


@given(row_lengths, st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_covers_every_window_once(lengths_R: list[int], batch_size: int, epoch: int) -> None:
    windows = make_windows(view_of(lengths_R), 6, "sliding")
    loader = Loader(windows, TASKS["next"], batch_size, seed=3)
    batches = list(loader.epoch(epoch))
    assert [step for step, _, _ in batches] == list(range(loader.steps))
    sizes = [len(rows) for _, rows, _ in batches]
    assert all(size == batch_size for size in sizes[:-1])
    assert sum(sizes) == len(windows)
    asked = Counter(t for _, _, batch in batches for t in batch.target_Q.tolist())
    assert asked == {event + 1: count for event, count in targets_of(windows).items()}
    for _, rows, batch in batches:
        assert (np.diff(batch.lengths_B.numpy()) <= 0).all()
        first = (batch.lengths_B.cumsum(0) - batch.lengths_B).numpy()
        users = np.searchsorted(windows.sequences.store.offsets, batch.items_P.numpy()[first] - 1, side="right") - 1
        assert (users == rows).all()


def test_a_resumed_epoch_gives_equal_batches() -> None:
    loader = Loader(make_windows(view_of([30, 4, 9, 2, 17, 6, 3]), 4, "sliding"), TASKS["next"], 3, seed=1)
    whole = list(loader.epoch(2))
    for first in range(loader.steps):
        for (step, rows, batch), (step2, rows2, batch2) in zip(whole[first:], loader.epoch(2, first), strict=True):
            assert step == step2
            assert (rows == rows2).all()
            assert torch.equal(batch.items_P, batch2.items_P)
            assert torch.equal(batch.target_Q, batch2.target_Q)


def test_epochs_and_seeds_differ_in_order() -> None:
    windows = make_windows(view_of([5] * 40), 4)

    def order(seed: int, epoch: int) -> list[int]:
        return [int(row) for _, rows, _ in Loader(windows, TASKS["next"], 4, seed).epoch(epoch) for row in rows]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


def test_next_items_asks_every_event_and_newest_items_the_newest() -> None:
    windows = make_windows(view_of([4, 1, 3]), 2)
    every, newest = (make(windows, np.array([0, 1]), RNG) for make in (next_items, newest_items))
    assert every.asked_Q.tolist() == [0, 1, 2, 3]
    assert every.row_Q.tolist() == [0, 0, 1, 1]
    assert newest.asked_Q.tolist() == [1, 3]
    assert newest.row_Q.tolist() == [0, 1]
    assert newest.target_Q is not None
    assert newest.target_Q.tolist() == [4, 14]
    assert torch.equal(newest.items_P, every.items_P)


@given(row_lengths, st.integers(1, 12))
def test_prefixes_ask_for_every_event_but_the_first_once(lengths_R: list[int], maxlen: int) -> None:
    """Each event is the target of one window, whose inputs are the events before it, at most maxlen."""
    view = view_of(lengths_R)
    windows = make_windows(view, maxlen, "prefixes")
    events = [(a, e) for a, b in zip(view.start_R, view.stop_R, strict=True) for e in range(a + 1, b)]
    assert sorted(windows.stop_W - 1) == [event for _, event in events]
    start = {event: max(first, event - maxlen) for first, event in events}
    assert [start[stop - 1] for stop in windows.stop_W] == windows.start_W.tolist()


def cloze_batch(task: Task, lengths_R: list[int], maxlen: int, seed: int = 0) -> SequenceBatch:
    windows = make_windows(view_of(lengths_R), maxlen)
    return task.make(windows, np.arange(len(windows)), np.random.default_rng(seed))


@given(row_lengths, st.integers(2, 12), st.integers(0, 9))
def test_cloze_masks_events_and_asks_for_their_own_items(lengths_R: list[int], maxlen: int, seed: int) -> None:
    batch = cloze_batch(cloze(0.3), lengths_R, maxlen, seed)
    mask = sum(length + 3 for length in lengths_R) + 1
    is_masked = (batch.items_P == mask).numpy()
    assert batch.asks == "own"
    assert np.flatnonzero(is_masked).tolist() == batch.asked_Q.tolist()
    assert set(batch.row_Q.tolist()) == set(range(len(batch.lengths_B)))
    assert batch.lengths_B.tolist() == [min(length, maxlen) for length in lengths_R if length >= 2]
    # The store's items count up, so that the masked ones are known from their neighbours' places.
    assert batch.target_Q is not None
    events = batch.items_P.clone()
    events[batch.asked_Q] = batch.target_Q
    for row in torch.split(events, batch.lengths_B.tolist()):
        assert (row.diff() == 1).all()


def test_cloze_shows_random_and_own_items_in_their_shares() -> None:
    batch = cloze_batch(cloze(0.5, mask_share=0.8, random_share=0.1), [40] * 200, 40)
    mask, shown = 200 * 43 + 1, batch.items_P[batch.asked_Q]
    assert float((shown == mask).double().mean()) == pytest.approx(0.8, abs=0.03)
    assert float((shown == batch.target_Q).double().mean()) == pytest.approx(0.1, abs=0.03)
    assert len(batch.asked_Q) == pytest.approx(0.5 * 8000, rel=0.05)


def test_cloze_masks_the_newest_event_alone_in_its_share_of_rows() -> None:
    batch = cloze_batch(cloze(0.5, newest_share=0.4), [20] * 500, 20)
    asked = Counter(batch.row_Q.tolist())
    newest = set(batch.layout.last_B.tolist()) & set(batch.asked_Q.tolist())
    alone = sum(asked[row] == 1 and 20 * row + 19 in newest for row in range(500))
    assert alone / 500 == pytest.approx(0.4, abs=0.06)


def test_a_mask_follows_each_history() -> None:
    batch = SequenceBatch.from_numpy(
        np.array([1, 2, 3, 4]), np.array([3, 1]), np.array([10, 20, 30, 5]), np.array([20, 30, 99, 7])
    )
    masked = append_mask(batch, 50, maxlen=3)
    assert masked.items_P.tolist() == [2, 3, 50, 4, 50]
    assert masked.times_P is not None
    assert masked.times_P.tolist() == [20, 30, 99, 5, 7]
    assert masked.asked_Q.tolist() == [2, 4]
    assert (masked.asks, masked.lengths_B.tolist()) == ("own", [3, 2])
    untold = append_mask(replace(batch, query_times_P=None), 50, maxlen=9)
    assert untold.times_P is not None
    assert untold.times_P.tolist() == [10, 20, 30, 30, 5, 5]
