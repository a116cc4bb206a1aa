"""Session-parallel lanes have every pair once, in the order of each history."""

from __future__ import annotations

import numpy as np
import pytest

from ensue.batches.loader import make_loader
from ensue.batches.tasks import TASKS, Task, Windows, make_windows, next_items
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError

LENGTHS = [5, 2, 9, 3, 3, 2, 7, 4]


def windows_of(lengths: list[int]) -> Windows:
    """Histories of items that are all different, so that an item names its event."""
    offsets = np.append(0, np.cumsum(lengths))
    store = SequenceStore.from_arrays(offsets=offsets, items=np.arange(1, offsets[-1] + 1).astype(np.int32))
    return make_windows(make_split(store, SplitConfig(split="none")).train, 20, "sliding")


@pytest.mark.parametrize("lanes", [1, 3, 40])
@pytest.mark.parametrize("lane_steps", [1, 2, 5])
def test_every_pair_comes_once_and_rows_continue_their_lane(lanes: int, lane_steps: int) -> None:
    windows = windows_of(LENGTHS)
    firsts = set((np.cumsum(LENGTHS) - LENGTHS + 1).tolist())
    loader = make_loader(windows, Task(next_items, "sliding", lane_steps), lanes, seed=0)
    for epoch in range(2):
        inputs, newest, begun = [], {}, 0
        batches = list(loader.epoch(epoch))
        assert [step for step, _, _ in batches] == list(range(loader.steps))
        for step, rows_B, batch in batches:
            assert batch.lanes is not None
            assert batch.target_Q is not None
            assert batch.lengths_B.max() <= lane_steps
            assert (batch.target_Q == batch.items_P + 1).all()
            inputs += batch.items_P.tolist()
            stop = 0
            for row, lane, is_new, length in zip(
                rows_B,
                batch.lanes.lane_B.tolist(),
                batch.lanes.is_new_B.tolist(),
                batch.lengths_B.tolist(),
                strict=True,
            ):
                first, stop = int(batch.items_P[stop]), stop + length
                assert windows.sequences.start_R[row] < first <= windows.sequences.stop_R[row]
                # A row without a state begins a history, or its lane does.
                assert is_new == (first in firsts or (step == 0 and newest.get(lane) is None))
                begun += is_new
                if not is_new:
                    assert newest[lane] == first - 1
                newest[lane] = int(batch.items_P[stop - 1])
        targets = [item for item in range(1, sum(LENGTHS) + 1) if item not in (np.cumsum(LENGTHS)).tolist()]
        assert sorted(inputs) == targets
        assert len(LENGTHS) <= begun < len(LENGTHS) + lanes


def test_an_epoch_that_is_resumed_gives_the_same_batches() -> None:
    loader = make_loader(windows_of(LENGTHS), Task(next_items, "sliding", 2), 3, seed=4)
    whole = [batch.items_P.tolist() for _, _, batch in loader.epoch(1)]
    assert [batch.items_P.tolist() for _, _, batch in loader.epoch(1, 2)] == whole[2:]
    assert [batch.items_P.tolist() for _, _, batch in loader.epoch(0)] != whole


def test_lanes_are_not_shared() -> None:
    with pytest.raises(ConfigError, match=r"lane_steps 1 keeps the states of all lanes: .* \(got 2 shares"):
        make_loader(windows_of(LENGTHS), Task(next_items, "sliding", 1), 3, 0, shares=2)
    assert make_loader(windows_of(LENGTHS), TASKS["next"], 3, 0, shares=2).steps == 3
