from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensue.data.arrays import packed_events
from ensue.data.transitions import Smoothing, Transitions, fit_popularity, fit_transitions, recent_items
from ensue.errors import ArtefactError, ConfigError, DataError


def sequences(rows: list[list[int]], num_items: int, times: list[int] | None = None, keep: int | None = None):
    """A training view over `rows`; `keep` hides the last events of each row from it."""
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    start = ends - [len(row) for row in rows]
    store = SimpleNamespace(
        items=np.array([item for row in rows for item in row], dtype=np.int32),
        times=None if times is None else np.array(times, dtype=np.int64),
        num_items=num_items,
    )
    return SimpleNamespace(store=store, start_R=start, stop_R=ends if keep is None else start + keep)


def by_hand(rows: list[list[int]], num_items: int, order: int, smoothing: float, history: list[int]) -> np.ndarray:
    popularity = Counter(item for row in rows for item in row)
    total = sum(popularity.values())
    p = np.array([(popularity[i] + smoothing / num_items) / (total + smoothing) for i in range(1, num_items + 1)])
    for j in range(1, min(order, len(history)) + 1):
        context = history[-j:]
        after = Counter(row[t] for row in rows for t in range(j, len(row)) if row[t - j : t] == context)
        n = sum(after.values())
        p = np.array([(after[i + 1] + smoothing * p[i]) / (n + smoothing) for i in range(num_items)])
    return p


rows_strategy = st.lists(st.lists(st.integers(1, 4), max_size=12), min_size=1, max_size=6)


@given(
    rows_strategy,
    st.integers(1, 4),
    st.sampled_from([0.1, 1.0, 5.0]),
    st.lists(st.integers(1, 4), max_size=6),
)
def test_equal_to_counting_by_hand(rows: list[list[int]], order: int, smoothing: float, history: list[int]) -> None:
    fitted = fit_transitions(sequences(rows, 4), order, smoothing)
    batch = [[2, 1], history, []]
    scores = fitted.score([i for h in batch for i in h], [len(h) for h in batch])
    assert scores.dtype == np.float32
    for row, h in zip(scores, batch, strict=True):
        np.testing.assert_allclose(row, by_hand(rows, 4, order, smoothing, h), rtol=1e-5)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def chain_by_hand(rows: list[list[int]], num_items: int, order: int, how: Smoothing, history: list[int]) -> np.ndarray:
    """The formulas of `Transitions.score` for additive and Kneser-Ney smoothing, by looking at every place of a row."""
    places = [(row, t) for row in rows for t in range(len(row))]

    def counts(context: tuple[int, ...], is_longest: bool) -> np.ndarray:
        j = len(context)
        where = [(row, t) for row, t in places if t >= j and tuple(row[t - j : t]) == context]
        if is_longest or how.method == "additive":
            return np.array([sum(row[t] == i for row, t in where) for i in range(1, num_items + 1)])
        before = {(row[t - j - 1] if t > j else "start", row[t]) for row, t in where}
        return np.array([sum(item == i for _, item in before) for i in range(1, num_items + 1)])

    n = counts((), False)
    uniform = how.weight if how.method == "additive" else how.weight / num_items
    p = (n + uniform) / (n.sum() + uniform * num_items)
    longest = min(order, len(history))
    for j in range(1, longest + 1):
        n = counts(tuple(history[-j:]), j == longest)
        if not n.sum():
            break
        if how.method == "additive":
            p = (n + how.weight) / (n.sum() + how.weight * num_items)
        else:
            p = np.maximum(n - how.discount, 0) / n.sum() + how.discount * (n > 0).sum() / n.sum() * p
    return p


@given(
    rows_strategy,
    st.integers(1, 3),
    st.sampled_from(["additive", "kneser-ney"]),
    st.sampled_from([0.1, 2.0]),
    st.lists(st.integers(1, 4), max_size=5),
)
def test_other_smoothing_equals_counting_by_hand(
    rows: list[list[int]], order: int, method: Any, weight: float, history: list[int]
) -> None:
    how = Smoothing(weight, method, 0.6)
    scores = fit_transitions(sequences(rows, 4), order, how).score([3, 2, *history], [2, len(history)])
    for row, h in zip(scores, ([3, 2], history), strict=True):
        np.testing.assert_allclose(row, chain_by_hand(rows, 4, order, how, h), rtol=1e-5)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_kneser_ney_counts_how_many_different_items_come_before() -> None:
    """3 follows 2 four times, always after 1; 4 follows 2 twice, after 5 and at the start of a row."""
    rows = [[1, 2, 3]] * 4 + [[5, 2, 4], [2, 4]]
    fitted = fit_transitions(sequences(rows, 5), 2, Smoothing(1.0, "kneser-ney", 0.5))
    assert fitted.levels[0].items_M.tolist() == [2, 3, 4, 2]
    assert fitted.levels[0].counts_M.tolist() == [4, 4, 2, 1]
    assert fitted.levels[0].continuations_M.tolist() == [1, 1, 2, 1]
    # After 9 2, with 9 2 unknown, what followed 2 in more contexts comes first; after 2 alone, what did more often.
    unknown, alone = fitted.score([9, 2, 2], [2, 1])
    assert unknown[3] > unknown[2]
    assert alone[2] > alone[3]
    # m = 1 + 2 after 2. Before 1..5 there are 1, 3, 1, 1 and 1 different items, the start among them.
    base = (np.array([1, 3, 1, 1, 1]) + 1 / 5) / 8
    expected = 0.5 * 2 / 3 * base + np.array([0, 0, 0.5, 1.5, 0]) / 3
    np.testing.assert_allclose(unknown, expected, rtol=1e-6)


def test_skips_are_the_weighted_mean_of_chains_of_one_item() -> None:
    """Two steps after 1 comes 3 once and 2 once; three steps after it 4."""
    rows = [[1, 2, 3, 4], [1, 1, 2]]
    fitted = fit_transitions(sequences(rows, 4), 1, Smoothing(1.0, skips=2, skip_weight=0.5))
    plain = fit_transitions(sequences(rows, 4), 1)
    base = (np.array([3, 2, 1, 1]) + 1 / 4) / 8
    second = (np.array([0, 1, 1, 0]) + base) / 3
    third = (np.array([0, 0, 0, 1]) + base) / 2
    after_2 = plain.score([2], [1])[0]
    long, short, single = fitted.score([1, 1, 2, 1, 2, 2], [3, 2, 1])
    np.testing.assert_allclose(long, (after_2 + 0.5 * second + 0.25 * third) / 1.75, rtol=1e-6)
    np.testing.assert_allclose(short, (after_2 + 0.5 * second) / 1.5, rtol=1e-6)
    np.testing.assert_allclose(single, after_2, rtol=1e-6)


@pytest.mark.parametrize("how", [Smoothing(2.0, "additive", skips=1), Smoothing(0.5, "kneser-ney", skips=2)])
def test_every_smoothing_survives_its_arrays(how: Smoothing) -> None:
    fitted = fit_transitions(sequences([[1, 2, 3, 1, 2], [3, 2]], 3), 3, how)
    again = Transitions.from_arrays(fitted.arrays(), how)
    np.testing.assert_array_equal(again.score([1, 2, 3, 2], [3, 1]), fitted.score([1, 2, 3, 2], [3, 1]))


def test_backs_off_to_the_longest_known_context() -> None:
    rows = [[1, 2, 3], [4, 2, 1], [5, 5]]
    fitted = fit_transitions(sequences(rows, 6), order=2)
    (known, shorter, popular, nothing) = fitted.score([1, 2, 3, 2, 3, 6], [2, 2, 2, 0])
    assert known.argmax() + 1 == 3
    np.testing.assert_array_equal(shorter, fitted.score([2], [1])[0])
    np.testing.assert_array_equal(popular, nothing)
    assert popular[[1, 4]].min() > popular[[2, 3, 5]].max()


def test_an_unknown_item_ends_the_context() -> None:
    fitted = fit_transitions(sequences([[1, 2, 3], [2, 2, 1]], 3), order=2)
    np.testing.assert_array_equal(fitted.score([1, 0, 2], [3]), fitted.score([2], [1]))
    np.testing.assert_array_equal(fitted.score([1, 2, 0], [3]), fitted.score([], [0]))


def test_nothing_crosses_rows_or_leaves_the_view() -> None:
    full = fit_transitions(sequences([[1, 2, 9], [3, 4, 9]], 9, keep=2), order=2)
    cut = fit_transitions(sequences([[1, 2], [3, 4]], 9), order=2)
    for name, array in full.arrays().items():
        np.testing.assert_array_equal(array, cut.arrays()[name])
    assert full.levels[1].keys_C.size == 0
    assert full.score([2], [1])[0, 2] == full.score([], [0])[0, 2]


def test_rows_in_one_batch_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(0)
    rows = [list(rng.integers(1, 8, size=20)) for _ in range(30)]
    fitted = fit_transitions(sequences(rows, 7), order=3)
    histories = [list(rng.integers(1, 8, size=n)) for n in rng.integers(0, 6, size=40)]
    together = fitted.score([i for h in histories for i in h], [len(h) for h in histories])
    np.testing.assert_array_equal(together, np.concatenate([fitted.score(h, [len(h)]) for h in histories]))


def test_arrays_there_and_back() -> None:
    fitted = fit_transitions(sequences([[1, 2, 3, 1, 2], [3, 2]], 3), order=3, smoothing=0.5)
    again = Transitions.from_arrays(fitted.arrays())
    assert again.order == 3
    np.testing.assert_array_equal(again.score([1, 2, 3], [3]), fitted.score([1, 2, 3], [3]))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("1.items", np.array([1, 99]), "outside 1..3"),
        ("1.starts", np.array([0, 5, 2]), "sorted"),
        ("1.starts", np.array([0, 1]), "lengths"),
        ("1.keys", np.array([2, 1]), "sorted"),
        ("popularity", np.array([1.0, np.nan, 1.0]), "finite"),
        ("smoothing", np.array([]), "missing"),
        ("extra", np.array([1]), "unknown array 'extra'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, array: np.ndarray, message: str) -> None:
    arrays = fit_transitions(sequences([[1, 2, 3]], 3)).arrays()
    Transitions.from_arrays(arrays)
    with pytest.raises(ArtefactError, match=message):
        Transitions.from_arrays({**arrays, name: array})


def test_settings_out_of_range() -> None:
    view = sequences([[1, 2]], 2)
    with pytest.raises(ConfigError, match=r"order must be 1\.\.16 \(got 0\)"):
        fit_transitions(view, order=0)
    with pytest.raises(ConfigError, match="smoothing must be above 0"):
        fit_transitions(view, smoothing=0.0)


def test_popularity_and_its_windows() -> None:
    days = [86_400 * day for day in (0, 1, 2, 9, 0, 5, 8, 10)]
    view = sequences([[1, 1, 1, 2], [1, 3, 3, 4]], 5, times=days)
    np.testing.assert_array_equal(fit_popularity(view), [4, 1, 2, 1, 0])
    np.testing.assert_array_equal(fit_popularity(view, last_days=2), [0, 1, 1, 1, 0])
    np.testing.assert_array_equal(fit_popularity(view, last_fraction=0.25), [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(fit_popularity(view, last_fraction=1.0), fit_popularity(view))
    untimed = sequences([[1, 1, 1, 2], [1, 3, 3, 4]], 5)
    np.testing.assert_array_equal(fit_popularity(untimed, last_fraction=0.5), [1, 1, 1, 1, 0])
    with pytest.raises(DataError, match="needs times"):
        fit_popularity(untimed, last_days=1)
    with pytest.raises(ConfigError, match="last_fraction"):
        fit_popularity(view, last_fraction=0.0)
    with pytest.raises(ConfigError, match="not both"):
        fit_popularity(view, last_fraction=0.1, last_days=1)


def test_popularity_does_not_look_outside_the_view() -> None:
    view = sequences([[1, 2, 3], [1, 2, 3]], 3, times=[0, 1, 99, 0, 1, 99], keep=2)
    np.testing.assert_array_equal(fit_popularity(view, last_fraction=0.5), [0, 2, 0])


def test_packing() -> None:
    events, place = packed_events([5, 9, 2], [7, 9, 5])
    assert events.tolist() == [5, 6, 2, 3, 4]
    assert place.tolist() == [0, 1, 0, 1, 2]
    assert recent_items([1, 2, 3, 7], [3, 0, 1], 2).tolist() == [[3, 2], [0, 0], [7, 0]]
    with pytest.raises(DataError, match="add up to 5"):
        recent_items([1, 2, 3, 7], [5], 2)
