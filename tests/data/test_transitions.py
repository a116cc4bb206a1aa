from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensue.data.arrays import packed_events
from ensue.data.transitions import Transitions, fit_popularity, fit_transitions, recent_items
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
