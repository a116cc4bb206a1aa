"""Negatives are never the target, padding or a seen item, and come from the distribution they are named after."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from ensue.data.split import Sequences
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.objectives.negatives import (
    InBatchNegatives,
    MixedNegatives,
    Negatives,
    PopularityNegatives,
    SeenItems,
    UniformNegatives,
)
from ensue.rng import stream

KINDS = ["uniform", "popularity", "in-batch", "mixed"]
histories_of_10 = st.lists(st.lists(st.integers(1, 10), min_size=1, max_size=14), min_size=1, max_size=6)


def view_of(histories: list[list[int]], num_items: int) -> Sequences:
    items = np.concatenate([np.array(history, dtype=np.int32) for history in histories])
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
    store = SequenceStore.from_arrays(offsets=offsets, items=items, item_ids=Vocabulary.of_range(num_items))
    return Sequences(store, np.arange(len(histories)), offsets[:-1], offsets[1:])


def make(kind: str, view: Sequences) -> Negatives:
    seen = SeenItems(view)
    counts_N = np.bincount(view.items_P, minlength=seen.num_items + 1)[1:]
    if kind == "uniform":
        return UniformNegatives(seen)
    if kind == "in-batch":
        return InBatchNegatives(seen, counts_N)
    popularity = PopularityNegatives(seen, counts_N, 0.75)
    return popularity if kind == "popularity" else MixedNegatives(UniformNegatives(seen), popularity, 0.5)


def positions(histories: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Every event of every history is asked for once: rows and targets."""
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    return rows, np.concatenate([np.array(history, dtype=np.int64) for history in histories])


@pytest.mark.parametrize("kind", KINDS)
@given(histories_of_10, st.integers(0, 1000))
def test_never_the_target_padding_or_a_seen_item(kind: str, histories: list[list[int]], seed: int) -> None:
    negatives = make(kind, view_of(histories, 10))
    rows_P, targets_P = positions(histories)
    drawn = negatives.draw(rows_P, targets_P, 5, stream(seed, "test"))
    assert drawn.shape == (len(rows_P), 5)
    assert drawn.dtype == np.int64
    assert drawn.min() >= 1
    assert drawn.max() <= 10
    assert (drawn != targets_P[:, None]).all()
    for row, items in zip(rows_P, drawn, strict=True):
        if len(set(histories[row])) < 10:
            assert not set(items.tolist()) & set(histories[row])


@given(histories_of_10, st.integers(0, 1000))
def test_a_list_of_the_unseen_gives_what_a_search_gives(histories: list[list[int]], seed: int) -> None:
    """Many draws for a position go by the list, few by the search; each position's first draws must not differ."""
    seen = SeenItems(view_of(histories, 10))
    rows_P, targets_P = positions(histories)
    uniform_PK = stream(seed, "test").random((len(rows_P), 80))
    many = seen.draw_unseen(rows_P, targets_P, uniform_PK)
    few = [seen.draw_unseen(rows_P[[p]], targets_P[[p]], uniform_PK[[p], :3]) for p in range(len(rows_P))]
    np.testing.assert_array_equal(many[:, :3], np.concatenate(few))


@pytest.mark.parametrize("kind", KINDS)
def test_who_has_seen_everything_or_all_but_one(kind: str) -> None:
    """Bounded work, and the target is never its own negative."""
    everything, all_but_seven = list(range(1, 31)), [i for i in range(1, 31) if i != 7]
    negatives = make(kind, view_of([everything, all_but_seven], 30))
    rows_P, targets_P = positions([everything, all_but_seven])
    drawn = negatives.draw(rows_P, targets_P, 200, stream(5, "test"))
    assert (drawn[rows_P == 1] == 7).all()
    assert (drawn != targets_P[:, None]).all()
    assert (drawn >= 1).all()
    assert (drawn <= 30).all()
    # Without unseen items the draw falls back on all others, first and last item too.
    assert set(drawn[rows_P == 0].reshape(-1).tolist()) == set(range(1, 31))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_stream_gives_the_same_draws(kind: str) -> None:
    histories = [[1, 2, 3], [4, 9, 9, 2], [30, 5]]
    rows_P, targets_P = positions(histories)
    view = view_of(histories, 30)

    def draws(step: int) -> list[list[int]]:
        return make(kind, view).draw(rows_P, targets_P, 6, stream(1, "negatives", 2, step)).tolist()

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)


def test_uniform_is_uniform_over_the_unseen() -> None:
    history = [2, 3, 9, 10, 20, 1]
    negatives = make("uniform", view_of([[5], history], 20))
    drawn = negatives.draw(np.ones(700, dtype=np.int64), np.full(700, 9), 20, stream(0, "chi-square"))
    counts = np.bincount(drawn.reshape(-1), minlength=21)[1:]
    unseen = np.array([i not in history for i in range(1, 21)])
    assert counts[~unseen].sum() == 0
    assert chisquare(counts[unseen]).pvalue > 0.01


def test_uniform_fallback_is_uniform_over_all_but_the_target() -> None:
    negatives = make("uniform", view_of([list(range(1, 13))], 12))
    drawn = negatives.draw(np.zeros(500, dtype=np.int64), np.full(500, 4), 20, stream(0, "chi-square"))
    counts = np.bincount(drawn.reshape(-1), minlength=13)[1:]
    assert counts[3] == 0
    assert chisquare(np.delete(counts, 3)).pvalue > 0.01


def test_popularity_is_by_count_to_the_alpha() -> None:
    """Of a row that has seen only an item of its own, draws follow the shares of the others."""
    histories = [[1], [2] * 16, [3] * 4, [4], [5] * 9]
    negatives = make("popularity", view_of(histories, 6))
    drawn = negatives.draw(np.zeros(2_000, dtype=np.int64), np.ones(2_000, dtype=np.int64), 5, stream(0, "popularity"))
    counts = np.bincount(drawn.reshape(-1), minlength=7)[2:]
    share = np.array([16, 4, 1, 9, 1]) ** 0.75  # item 6 has no training event and counts as one
    # A seen draw is drawn anew at most three times and then uniformly: less than 1e-4 of the draws here.
    assert chisquare(counts, counts.sum() * share / share.sum()).pvalue > 0.01


def test_in_batch_draws_are_targets_of_the_batch() -> None:
    histories = [[1, 2], [3, 4], [5, 6, 7]]
    negatives = make("in-batch", view_of(histories, 500))
    rows_P, targets_P = positions(histories)
    drawn = negatives.draw(rows_P, targets_P, 50, stream(0, "in-batch"))
    # Rows 0 and 1 miss their own items at four tries only once in hundreds of draws.
    assert np.isin(drawn, targets_P).mean() > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_log_q_is_a_distribution(kind: str) -> None:
    log_q = make(kind, view_of([[1, 1, 1, 2], [5, 3]], 8)).log_q()
    assert log_q.shape == (9,)
    assert log_q.dtype == np.float32
    assert np.exp(log_q[1:].astype(np.float64)).sum() == pytest.approx(1.0, abs=1e-6)


def test_log_q_of_popularity_and_mixture() -> None:
    view = view_of([[1, 1, 1, 1, 2]], 3)
    share = np.array([4, 1, 1]) ** 0.75
    np.testing.assert_allclose(np.exp(make("popularity", view).log_q()[1:]), share / share.sum(), rtol=1e-6)
    mixed = 0.5 / 3 + 0.5 * share / share.sum()
    np.testing.assert_allclose(np.exp(make("mixed", view).log_q()[1:]), mixed, rtol=1e-6)
    weights = np.array([4, 1, 1]) / 6
    np.testing.assert_allclose(np.exp(make("in-batch", view).log_q()[1:]), weights, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 7, 19, 20])
def test_shared_draws_are_distinct(kind: str, count: int) -> None:
    drawn = make(kind, view_of([[1, 1, 1, 2, 2, 20]], 20)).draw_shared(count, stream(2, "shared"))
    assert len(set(drawn.tolist())) == count
    assert drawn.min() >= 1
    assert drawn.max() <= 20


def test_shared_popularity_draws_start_with_the_shares() -> None:
    """The first of a draw without replacement is a draw by share."""
    negatives = make("popularity", view_of([[1] * 16 + [2] * 4], 4))
    first = [int(negatives.draw_shared(1, stream(step, "shared"))[0]) for step in range(3_000)]
    share = np.array([16, 4, 1, 1]) ** 0.75
    counts = np.bincount(first, minlength=5)[1:]
    assert chisquare(counts, counts.sum() * share / share.sum()).pvalue > 0.01


def test_contains() -> None:
    seen = SeenItems(view_of([[3, 1, 3], [2]], 5))
    rows, items = np.array([1, 0, 0]), np.array([[2, 3, 5], [2, 3, 1], [4, 5, 1]])
    assert seen.contains(rows, items).tolist() == [[True, False, False], [False, True, True], [False, False, True]]
