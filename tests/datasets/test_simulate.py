from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from ensue.data.arrays import packed_events
from ensue.data.split import Cases, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.transitions import fit_popularity, fit_transitions
from ensue.datasets import simulate as module
from ensue.datasets.simulate import SimulateConfig, Simulation, ordered_sequences, shuffled, simulate
from ensue.errors import ConfigError, DataError
from ensue.evaluation import metrics


@pytest.fixture(scope="module")
def world() -> Simulation:
    return simulate(SimulateConfig())


def store_of(world: Simulation) -> SequenceStore:
    frame = world.interactions.sort("user", "timestamp")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(frame["user"].to_numpy())[1:])])
    return SequenceStore.from_arrays(
        offsets=offsets, items=frame["item"].to_numpy(), times=frame["timestamp"].to_numpy()
    )


def ndcg(scores_BN: np.ndarray, cases: Cases) -> np.ndarray:
    own = scores_BN[np.arange(len(cases)), cases.target_items_B - 1][:, None]
    better, equal = (scores_BN > own).sum(axis=1), (scores_BN == own).sum(axis=1) - 1
    return metrics.ndcg(better, equal, scores_BN.shape[1], 10)


def histories(cases: Cases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    events, _ = packed_events(cases.start_B, cases.stop_B)
    assert cases.store.times is not None
    return cases.store.items[events], cases.stop_B - cases.start_B, cases.store.times[events]


def test_popularity_below_markov_below_best_by_wide_margins(world: Simulation) -> None:
    split = make_split(store_of(world), SplitConfig())
    items, lengths, times = histories(split.test)
    best = world.best_scores(items, lengths, times)
    unread = np.where(best > 0, 0.0, -1.0)
    popularity = ndcg(np.tile(fit_popularity(split.train), (len(best), 1)) * (best > 0) + unread, split.test).mean()
    first, second = (
        ndcg(fit_transitions(split.train, order).score(items, lengths) + unread, split.test).mean() for order in (1, 2)
    )
    top = ndcg(best, split.test).mean()
    assert popularity * 2 < first
    assert max(first, second) + 0.2 < top < 0.7


def test_best_scores_are_the_probabilities_of_what_comes(world: Simulation) -> None:
    """The mean log-loss on what came equals the mean entropy of what was said: calibrated."""
    cases = make_split(store_of(world), SplitConfig()).test
    best = world.best_scores(*histories(cases))
    np.testing.assert_allclose(best.sum(axis=1), 1, atol=1e-9)
    entropy = -(best * np.log(np.where(best > 0, best, 1))).sum(axis=1)
    loss = -np.log(best[np.arange(len(cases)), cases.target_items_B - 1])
    assert abs((loss - entropy).mean()) < 4 * (loss - entropy).std() / np.sqrt(len(cases))
    hits = np.sort(best, axis=1)[:, -10:].sum(axis=1).mean()
    own = best[np.arange(len(cases)), cases.target_items_B - 1][:, None]
    assert ((best > own).sum(axis=1) < 10).mean() == pytest.approx(hits, abs=0.04)


def test_best_scores_equal_the_sum_over_all_taste_paths() -> None:
    """The filter against the obvious sum over every path of hidden tastes, on a world of 3 tastes."""
    world = simulate(SimulateConfig(num_users=6, num_items=60, num_tastes=3, min_length=3, max_length=5))
    frame = world.interactions.sort("user", "timestamp")
    for user in range(1, 7):
        own = frame.filter(pl.col("user") == user)
        books, times = own["item"].to_numpy(), own["timestamp"].to_numpy()
        slow = _sum_over_paths(world, books - 1, np.diff(times))
        np.testing.assert_allclose(world.best_scores(books, [len(books)], times)[0], slow, rtol=1e-9, atol=1e-15)


def _choice(world: Simulation, before: np.ndarray, later: bool, taste: int) -> np.ndarray:
    lags = np.array(world.config.lags)[: len(before)]
    mixed = world.taste_ZN[taste].copy()
    if len(before):
        threads = sum(w * world.follow_NN[b] for w, b in zip(lags / lags.sum(), before[::-1], strict=False))
        share = module.THREAD_SHARE[int(later)]
        mixed = share * threads + (1 - share) * mixed
    mixed[before] = 0.0
    return mixed / mixed.sum()


def _sum_over_paths(world: Simulation, books: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    number = world.config.num_tastes
    days = [0, *((gap + 43_200) // 86_400 for gap in gaps)]
    total = np.zeros(world.config.num_items)
    for path in itertools.product(range(number), repeat=len(books)):
        weight = 1 / number
        for t, taste in enumerate(path):
            if t:
                stay = module.STAY_PER_DAY ** days[t]
                weight *= stay * (taste == path[t - 1]) + (1 - stay) / number
            weight *= _choice(world, books[:t], days[t] > 0, taste)[books[t]]
        for gap in range(400):  # 0: the same sitting; else days
            chance = module.SAME_SITTING
            if gap:
                chance = (1 - chance) * module.NEW_DAY * (1 - module.NEW_DAY) ** (gap - 1)
            stay = module.STAY_PER_DAY**gap
            for taste in range(number):
                move = stay * (taste == path[-1]) + (1 - stay) / number
                if weight * chance * move > 0:
                    total += weight * chance * move * _cached_choice(world, tuple(books), gap > 0, taste)
    return total / total.sum()


_choices: dict[tuple[int, tuple[int, ...], bool, int], np.ndarray] = {}


def _cached_choice(world: Simulation, books: tuple[int, ...], later: bool, taste: int) -> np.ndarray:
    key = (id(world), books, later, taste)
    if key not in _choices:
        _choices[key] = _choice(world, np.array(books), later, taste)
    return _choices[key]


def test_batches_and_vocabularies_change_nothing(world: Simulation) -> None:
    frame = world.interactions.filter(pl.col("user") <= 5).sort("user", "timestamp")
    lengths = np.bincount(frame["user"].to_numpy())[1:]
    items, times = frame["item"].to_numpy(), frame["timestamp"].to_numpy()
    together = world.best_scores(items, lengths, times)
    ends = np.cumsum(lengths)
    for b, end in enumerate(ends):
        row = slice(end - lengths[b], end)
        np.testing.assert_allclose(world.best_scores(items[row], lengths[b : b + 1], times[row])[0], together[b])
    seen = np.unique(items)
    renumbered = world.best_scores(np.searchsorted(seen, items) + 1, lengths, times, item_ids=seen)
    np.testing.assert_allclose(renumbered, together[:, seen - 1])


def test_an_empty_history_gets_what_first_books_are(world: Simulation) -> None:
    first = world.best_scores([], [0, 0], [])
    np.testing.assert_allclose(first, np.tile(world.taste_ZN.mean(axis=0), (2, 1)))


def test_the_log(world: Simulation) -> None:
    log, config = world.interactions, world.config
    lengths = log.group_by("user").len()["len"]
    assert (lengths.min(), lengths.max(), len(lengths)) == (
        config.min_length,
        config.max_length,
        config.num_users,
    )
    assert log["timestamp"].is_sorted()
    assert not log.select("user", "item").is_duplicated().any()
    assert not log.select("user", "timestamp").is_duplicated().any()
    assert log["item"].n_unique() == config.num_items
    assert world.items["title"].n_unique() == config.num_items
    assert world.items["category"].n_unique() == 12
    number = world.items.filter(pl.col("title").str.ends_with("book 1"))["id"][0]
    series = world.items["title"][number - 1].removesuffix("1")
    assert world.items["title"][int(world.follow_NN[number - 1].argmax())] == series + "2"


def test_the_seed_is_everything() -> None:
    small = SimulateConfig(num_users=20)
    one, again, other = simulate(small), simulate(small), simulate(small.replace(seed=1))
    assert one.interactions.equals(again.interactions)
    assert one.items.equals(again.items)
    assert not one.interactions.equals(other.interactions)


@pytest.mark.parametrize("num_items", [60, 1000, 2000])
def test_other_sizes(num_items: int) -> None:
    made = simulate(SimulateConfig(num_users=5, num_items=num_items, min_length=3, max_length=59))
    assert len(made.items) == made.items["title"].n_unique() == num_items
    np.testing.assert_allclose(made.follow_NN.sum(axis=1), 1)
    np.testing.assert_allclose(made.taste_ZN.sum(axis=1), 1)


def test_what_does_not_fit_is_refused(world: Simulation) -> None:
    with pytest.raises(DataError, match="lengths that add up to 3"):
        world.best_scores([1, 2], [3], [0, 1])
    with pytest.raises(DataError, match=r"1\.\.360 \(got 1\.\.999\)"):
        world.best_scores([1, 999], [2], [0, 1])
    with pytest.raises(ConfigError, match="max_length < num_items"):
        SimulateConfig.parse({"num_items": 60, "max_length": 60})
    with pytest.raises(ConfigError, match="lags"):
        SimulateConfig.parse({"lags": (0.0, 0.0)})


def test_ordered_sequences_have_order_and_shuffled_ones_none() -> None:
    store = ordered_sequences(num_users=300, num_items=30, length=10)
    noise = shuffled(store)
    np.testing.assert_array_equal(np.bincount(store.items), np.bincount(noise.items))
    np.testing.assert_array_equal(store.offsets, noise.offsets)
    for made, low, high in ((store, 0.999, 1.0), (noise, 0.05, 0.25)):
        split = make_split(made, SplitConfig())
        items, lengths, _ = histories(split.test)
        assert low <= ndcg(fit_transitions(split.train).score(items, lengths), split.test).mean() <= high
    with pytest.raises(DataError, match="below num_items 10"):
        ordered_sequences(num_items=10, length=10)
