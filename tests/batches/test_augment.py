"""Augmentations change histories as they say, row by row."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ensue.batches.augment import AUGMENTATIONS, View, augmented, similar_items
from ensue.batches.batch import SequenceBatch
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.rng import stream

LENGTHS = np.array([10, 1, 2, 7])
# A similar item is the item's number plus 100.
SIMILAR = np.arange(200) + 100
WHOLE = View(np.arange(1, 21), np.arange(20), LENGTHS)


def rows_of(view: View) -> list[list[int]]:
    return [row.tolist() for row in np.split(view.items_V, view.start_B[1:])]


BEFORE = rows_of(WHOLE)


def rows_after(name: str, seed: int) -> list[list[int]]:
    view = AUGMENTATIONS[name](WHOLE, SIMILAR, stream(seed, "views"))
    assert view.lengths_B.sum() == len(view.items_V) == len(view.event_V)
    assert view.lengths_B.min() >= 1
    return rows_of(view)


def is_subsequence(part: list[int], whole: list[int]) -> bool:
    events = iter(whole)
    return all(item in events for item in part)


@pytest.mark.parametrize("seed", range(5))
def test_crop_mask_and_reorder(seed: int) -> None:
    for row, cropped in zip(BEFORE, rows_after("crop", seed), strict=True):
        assert cropped == list(range(cropped[0], cropped[-1] + 1))
        assert len(cropped) == max(1, int(0.6 * len(row)))
    for row, masked in zip(BEFORE, rows_after("mask", seed), strict=True):
        assert is_subsequence(masked, row)
        assert len(masked) == max(1, len(row) - max(1, int(0.3 * len(row))))
    for row, reordered in zip(BEFORE, rows_after("reorder", seed), strict=True):
        assert sorted(reordered) == row
        moved = [place for place, pair in enumerate(zip(row, reordered, strict=True)) if pair[0] != pair[1]]
        assert not moved or moved[-1] - moved[0] < int(0.6 * len(row))


@pytest.mark.parametrize("seed", range(5))
def test_substitute_and_insert(seed: int) -> None:
    for row, changed in zip(BEFORE, rows_after("substitute", seed), strict=True):
        assert [item % 100 for item in changed] == row
        assert sum(item > 100 for item in changed) == 1
    for row, longer in zip(BEFORE, rows_after("insert", seed), strict=True):
        assert [item for item in longer if item < 100] == row
        new = [place for place, item in enumerate(longer) if item > 100]
        assert len(new) == max(1, int(0.4 * len(row)))
        assert all(longer[place + 1] == longer[place] - 100 for place in new)


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_every_row_is_changed_in_the_long_run_and_every_draw_is_of_the_stream(name: str) -> None:
    many = [rows_after(name, seed) for seed in range(12)]
    assert many[3] == rows_after(name, 3)
    assert any(rows[0] != BEFORE[0] for rows in many)
    assert any(rows != many[0] for rows in many)


def test_similar_items_are_the_most_frequent_neighbours() -> None:
    rng = np.random.default_rng(0)
    items = rng.integers(1, 8, size=(40, 6))
    store = SequenceStore.from_arrays(offsets=np.arange(41) * 6, items=items.reshape(-1).astype(np.int32))
    train = make_split(store, SplitConfig()).train
    counts: dict[int, Counter[int]] = {item: Counter() for item in range(1, store.num_items + 1)}
    for start, stop in zip(train.start_R, train.stop_R, strict=True):
        row = store.items[start:stop].tolist()
        for one, other in pairwise(row):
            if one != other:
                counts[one][other] += 1
                counts[other][one] += 1
    expected = [min(near, key=lambda item: (-near[item], item)) for near in counts.values()]
    similar = similar_items(train)
    assert similar.tolist() == [0, *expected, store.num_items + 1]


def test_an_item_without_neighbours_is_its_own() -> None:
    store = SequenceStore.from_arrays(offsets=np.array([0, 4]), items=np.array([1, 1, 2, 3], dtype=np.int32))
    assert similar_items(make_split(store, SplitConfig()).train).tolist() == [0, 1, 2, 3, 4]


def batch_of(**changes: Any) -> SequenceBatch:
    times = np.arange(20) * 10
    return SequenceBatch.from_numpy(WHOLE.items_V, LENGTHS, times, times + 10, **changes)


def test_each_row_has_its_own_augmentation_and_its_own_times() -> None:
    names = ("crop", "reorder", "insert")
    view = augmented(batch_of(), names, np.array([2, 1, 0, 2]), SIMILAR, stream(0, "views"))
    assert view.times_P is not None
    assert view.query_times_P is not None
    rows = [row.tolist() for row in view.items_P.split(view.lengths_B.tolist())]
    assert [item % 100 for item in rows[0]][-3:] == [item % 100 for item in rows[0][-3:]]
    assert rows[0][-1] == 10
    assert rows[1] == [11]
    assert len(rows[2]) == 1
    assert rows[3][-1] == 20
    assert len(rows[3]) == 9
    # No view is longer than the longest history, which is what a model is made for.
    assert view.lengths_B.max() == 10
    # An item has the time of its event; an inserted one that of the event it stands before.
    inserted = (view.items_P - 1) % 100 * 10
    is_reordered = view.row_Q.new_tensor([0, 1, 0, 0]).repeat_interleave(view.lengths_B).bool()
    assert (view.times_P == inserted)[~is_reordered].all()
    assert (view.query_times_P == view.times_P + 10).all()
    assert view.target_Q is None
