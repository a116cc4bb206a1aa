"""Recent popularity keeps the contract, and its windows and weights are those worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ensue.batches.batch import SequenceBatch
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.errors import ArtefactError, DataError
from ensue.models import Catalogue, build_model
from ensue.models.recent_popularity import RecentPopularity, RecentPopularityConfig
from ensue.recommender import Recommender
from ensue.testing import ModelContract

DAY = 86_400
# Items 1, 2, 3 of two users on the days 0, 1, 2, 3 and 10; in the order of time: 1 2 1 3 2.
STORE = SequenceStore.from_arrays(np.array([0, 3, 5]), np.array([1, 1, 2, 2, 3]), DAY * np.array([0, 2, 10, 1, 3]))


class TestRecentPopularity(ModelContract):
    config = RecentPopularityConfig(maxlen=16)
    reads_order = False


class TestMovingWithDecay(ModelContract):
    config = RecentPopularityConfig(maxlen=16, span=3, span_unit="days", half_life=1, moment="history")
    reads_order = False


def fitted(store: SequenceStore = STORE, **settings: Any) -> RecentPopularity:
    model = build_model(RecentPopularityConfig(**settings), Catalogue.of_store(store))
    assert isinstance(model, RecentPopularity)
    model.fit(make_split(store, SplitConfig(split="none")).train)
    return model


def scores(model: RecentPopularity, *days: float, request: float = 0) -> list[list[float]]:
    """For histories of one event on each of these days."""
    times = np.array([int(day * DAY) for day in days])
    ones = np.ones(len(days), dtype=np.int64)
    batch = SequenceBatch.from_numpy(ones, ones, times, np.full(len(days), int(request * DAY)))
    return [[round(score, 6) for score in row] for row in model.logits(batch).tolist()]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [2, 2, 1]),
        ({"span": 3}, [1, 1, 1]),
        ({"span": 3, "half_life": 1}, [0.25, 1, 0.5]),
        ({"span": 8, "span_unit": "days"}, [1, 1, 1]),
        ({"span": 7, "span_unit": "days", "half_life": 7}, [0, 1, 0.5]),
    ],
)
def test_a_window_at_the_newest_training_event(settings: dict[str, Any], expected: list[float]) -> None:
    model = fitted(**settings)
    assert scores(model, 1, 20) == [expected, expected]
    assert model.for_newcomers().tolist() == expected


def test_a_window_moves_with_the_history_and_sees_nothing_later() -> None:
    by_days = fitted(moment="history", span=2, span_unit="days", half_life=1)
    assert scores(by_days, 2.5, 1, 10, 7) == [[0.707107, 0.353553, 0], [0.5, 1, 0], [0, 1, 0], [0, 0, 0]]
    by_events = fitted(moment="history", span=2)
    assert scores(by_events, 2.5, 10, -1) == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_a_window_moves_with_the_request() -> None:
    model = fitted(moment="request", span=2, span_unit="days")
    assert model.query_time
    assert scores(model, 0, request=3.5) == [[1, 0, 1]]
    alone = SequenceBatch.from_lists([[1]])
    with pytest.raises(DataError, match="needs times"):
        model.logits(alone)


def test_without_times_the_rows_are_the_order() -> None:
    store = SequenceStore.from_arrays(STORE.offsets, STORE.items)
    assert fitted(store, span=2).for_newcomers().tolist() == [0, 1, 1]
    for settings in ({"span_unit": "days"}, {"moment": "history"}):
        with pytest.raises(DataError, match="the data has no times"):
            fitted(store, **settings)


def test_newcomers_are_served_by_the_window() -> None:
    toy = Recommender("recent-popularity", span=3).fit([[1, 1, 1, 1], [2, 3, 3]])
    assert toy.recommend(["nothing known"]).ids == [3, 2, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"items": torch.tensor([0, 1, 1, 2, 3])},
        {"items": torch.tensor([1, 2])},
        {"times": torch.tensor([1, 2, 3, 4, 3])},
        {"more": torch.tensor([1])},
    ],
)
def test_a_broken_state_is_refused(change: dict[str, torch.Tensor]) -> None:
    model = fitted()
    with pytest.raises(ArtefactError, match="recent-popularity"):
        model.load_state_dict({**model.state_dict(), **change})
