"""Session neighbours keep the contract, are their formulas written out, and take further sessions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ensue.batches.batch import SequenceBatch
from ensue.data.split import Sequences, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ArtefactError, EnsueError
from ensue.models import Catalogue, build_model
from ensue.models.vsknn import VSKNN, VSKNNConfig
from ensue.recommender import Recommender
from ensue.testing import ModelContract

NUM_ITEMS = 9
HISTORIES = [[1, 2, 3], [5], [4, 4, 1, 4], [9, 8], [2, 7, 2, 6, 1]]


class TestSKNN(ModelContract):
    config = VSKNNConfig(maxlen=16, variant="sknn")
    reads_order = False


class TestVSKNN(ModelContract):
    config = VSKNNConfig(maxlen=16, neighbours=50, candidates=60)
    reads_order = False


class TestSTANOfWhatComesAfter(ModelContract):
    config = VSKNNConfig(maxlen=16, variant="stan", only_after=True, history_decay=0.2, distance_decay=0.2)


def store_of(sessions: list[list[int]], times: list[int] | None = None) -> SequenceStore:
    offsets = np.cumsum([0, *map(len, sessions)])
    seconds = None if times is None else np.repeat(times, np.diff(offsets))
    items = np.array([item for session in sessions for item in session])
    return SequenceStore.from_arrays(offsets, items, seconds, item_ids=Vocabulary.of_range(NUM_ITEMS))


def view(store: SequenceStore) -> Sequences:
    return make_split(store, SplitConfig(split="none")).train


def drawn(count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, NUM_ITEMS, rng.integers(1, 7)).tolist() for _ in range(count)]


def fitted(store: SequenceStore, **settings: Any) -> VSKNN:
    model = build_model(VSKNNConfig(**settings), Catalogue(NUM_ITEMS))
    assert isinstance(model, VSKNN)
    model.fit(view(store))
    return model


def by_hand(sessions: list[list[int]], times: list[int], config: VSKNNConfig, history: list[int]) -> list[float]:
    """The formulas of the documentation, one session and one item at a time."""
    span = max(times) - min(times) or 1
    weights = {item: place for place, item in enumerate(history)}
    back = {item: len(history) - 1 - place for item, place in weights.items()}
    near = []
    for number, session in enumerate(sessions):
        shared = set(session) & set(history)
        if not shared:
            continue
        weight = {"sknn": lambda b: 1.0, "vsknn": lambda b: 1 - b / len(history)}.get(
            config.variant, lambda b: math.exp(-b / config.history_decay)
        )
        similarity = sum(weight(back[item]) for item in shared) / math.sqrt(len(set(session)) * len(set(history)))
        if config.variant == "stan":
            similarity *= math.exp(-(max(times) - times[number]) / span / config.age_decay)
        near.append((similarity, number, min(back[item] for item in shared)))
    near = sorted(near, key=lambda entry: entry[1])[-config.candidates :]
    near = sorted(near)[-config.neighbours :]
    frequency = [sum(item in session for session in sessions) for item in range(1, NUM_ITEMS + 1)]
    scores = [0.0] * NUM_ITEMS if near else [float(count) for count in frequency]
    for similarity, number, newest in near:
        session = sessions[number]
        place = {item: at for at, item in enumerate(session)}
        middle = place[history[len(history) - 1 - newest]]
        for item, at in place.items():
            vote = similarity
            if config.variant == "vsknn":
                vote *= max(0.0, 1 - 0.1 * newest)
            if config.variant == "stan":
                vote *= math.exp(-abs(at - middle) / config.distance_decay)
            if config.variant != "sknn":
                vote *= 1 + config.idf * math.log(len(sessions) / frequency[item - 1])
            if not config.only_after or at > middle:
                scores[item - 1] += vote
    return scores


@pytest.mark.parametrize("variant", ["sknn", "vsknn", "stan"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"neighbours": 7}, {"candidates": 11, "neighbours": 5, "only_after": True}, {"idf": 0, "age_decay": 0.1}],
)
def test_it_is_its_formulas(variant: str, settings: dict[str, Any]) -> None:
    sessions = drawn(40)
    # Older sessions stand last, and no two are of one time.
    times = list(range(400, 0, -10))
    model = fitted(store_of(sessions, times), variant=variant, **settings)
    got = model.logits(SequenceBatch.from_lists(HISTORIES))
    for row, history in zip(got, HISTORIES, strict=True):
        expected = by_hand(sessions[::-1], times[::-1], model.config, history)
        assert row.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_neighbour_of_two_shared_items_by_hand() -> None:
    """After 1 2 the sessions 1 2 3 and 2 4 4 are neighbours, 5 6 is not; 4 counts once, at its last place."""
    model = fitted(
        store_of([[1, 2, 3], [2, 4, 4], [5, 6]]),
        variant="stan",
        idf=0,
        history_decay=1,
        age_decay=1e9,
        distance_decay=2,
    )
    first, second = (1 + math.exp(-1)) / math.sqrt(6), 1 / math.sqrt(4)
    (scores,) = model.logits(SequenceBatch.from_lists([[1, 2]])).tolist()
    half, one = math.exp(-1 / 2), math.exp(-1)
    expected = [first * half, first + second, first * half, second * one, 0, 0, 0, 0, 0]
    assert scores == pytest.approx(expected, rel=1e-5)


def test_without_a_neighbour_popularity_decides() -> None:
    model = fitted(store_of([[1, 2], [2, 3, 3], [2]]))
    assert model.logits(SequenceBatch.from_lists([[9]])).tolist() == [[1, 3, 1, 0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("has_times", [False, True])
def test_added_sessions_are_as_if_they_had_been_there(has_times: bool) -> None:
    sessions, times = drawn(30), list(range(1, 31)) if has_times else None
    settings: dict[str, Any] = {"variant": "stan", "candidates": 8, "neighbours": 5}
    whole = fitted(store_of(sessions, times), **settings)
    grown = fitted(store_of(sessions[:12], times and times[:12]), **settings)
    for part in (slice(12, 20), slice(20, 30)):
        grown.add(view(store_of(sessions[part], times and times[part])))
    batch = SequenceBatch.from_lists(HISTORIES)
    assert torch.equal(grown.logits(batch), whole.logits(batch))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(grown.state_dict()[name], tensor), name


def test_only_fitted_models_answer_and_scores_are_no_probabilities() -> None:
    with pytest.raises(EnsueError, match="call fit first"):
        build_model(VSKNNConfig(), Catalogue(3)).logits(SequenceBatch.from_lists([[1]]))
    with pytest.raises(EnsueError, match="scores of VSKNN are not probabilities"):
        Recommender("vsknn").fit([[1, 2, 3], [1, 2, 4]]).recommend([1], probabilities=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": torch.tensor([0, 2, 3])}, "outside 1..9"),
        ({"items": torch.tensor([1, 2])}, "lengths"),
        ({"starts": torch.tensor([0, 2, 2])}, "starts must rise"),
        ({"places": torch.tensor([0, 1, -1])}, "place below 0"),
        ({"more": torch.tensor([1])}, "more"),
    ],
)
def test_a_broken_state_is_refused(change: dict[str, torch.Tensor], message: str) -> None:
    model = fitted(store_of([[1, 2], [3]]))
    with pytest.raises(ArtefactError, match=message):
        model.load_state_dict({**model.state_dict(), **change})
