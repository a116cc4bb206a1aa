"""Popularity and sparse transition counts of orders 1..k: what the simple baselines are computed from.

Suffixes: `N` items, `B` histories, `P` events of all histories, `K` items of a context, `C` contexts, `M` entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensue.data.arrays import IntArray, packed_events
from ensue.errors import ArtefactError, ConfigError, DataError

if TYPE_CHECKING:
    from ensue.data.split import Sequences

SECONDS_PER_DAY = 86_400
MAX_ORDER = 16


def fit_popularity(
    sequences: Sequences, last_fraction: float | None = None, last_days: float | None = None
) -> NDArray[np.float64]:
    """Count the training events of each item, of all time or of a recent window.

    Args:
        sequences: the training part.
        last_fraction: count this share of the events, in (0, 1]: the newest by time, or the last of each row in a store
            without times.
        last_days: count the events of this many days up to the newest training event.

    Returns:
        float64 [N]: events of items 1..N.

    Raises:
        ConfigError: both windows are given, or one is out of range.
        DataError: `last_days` is given for a store without times.
    """
    if last_fraction is not None and last_days is not None:
        raise ConfigError("give last_fraction or last_days, not both")
    store = sequences.store
    events, place = packed_events(sequences.start_R, sequences.stop_R)
    if last_days is not None:
        if not last_days > 0:
            raise ConfigError(f"last_days must be above 0 (got {last_days})")
        if store.times is None:
            raise DataError("popularity of the last days needs times, but this store has only an order")
        if events.size:
            times = store.times[events]
            events = events[times >= times.max() - last_days * SECONDS_PER_DAY]
    elif last_fraction is not None:
        if not 0 < last_fraction <= 1:
            raise ConfigError(f"last_fraction must be in (0, 1] (got {last_fraction})")
        if store.times is not None and events.size:
            times = store.times[events]
            events = events[times >= np.quantile(times, 1 - last_fraction, method="higher")]
        else:
            length = np.asarray(sequences.stop_R) - np.asarray(sequences.start_R)
            events = events[place >= np.floor(np.repeat(length * (1 - last_fraction), length))]
    return np.bincount(store.items[events], minlength=store.num_items + 1)[1:].astype(np.float64)


@dataclass(frozen=True, slots=True)
class Level:
    """The counts after contexts of one length, as sorted keys and a CSR matrix.

    The key of a context of j items is (number of the context of its j - 1 newest items) * (N + 1) + its oldest item,
    so a context of any length fits in an int64. The number of a context is the index of its key in `keys_C`.

    Attributes:
        keys_C: sorted keys.
        starts_C1: the entries of context c are starts[c]:starts[c + 1].
        items_M: the item of each entry.
        counts_M: how often the item follows the context.
    """

    keys_C: IntArray
    starts_C1: IntArray
    items_M: NDArray[np.int32]
    counts_M: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Transitions:
    """Transition counts of orders 1..k with back-off, from `fit_transitions`."""

    popularity_N: NDArray[np.float64]
    levels: tuple[Level, ...]
    smoothing: float

    @property
    def order(self) -> int:
        """The longest context, in items."""
        return len(self.levels)

    def score(self, items_P: ArrayLike, lengths_B: ArrayLike) -> NDArray[np.float32]:
        """The probability of each item after each history, [B, N]; column j is item j + 1.

        For a context c of j items, with p_0 the popularity smoothed in the same way,

            p_j(i | c) = (count(c, i) + smoothing * p_{j-1}(i | c')) / (count(c) + smoothing)

        where c' is c without its oldest item, so an unseen context gives exactly the probabilities of the shorter
        one. Source: hierarchical Dirichlet smoothing with a fixed weight, MacKay & Peto, Natural Language Engineering
        1995.

        Args:
            items_P: the histories' items, packed, each oldest first; 0 is an unknown item and ends the context.
            lengths_B: the length of each history; 0 is allowed and gives popularity.
        """
        return self.score_recent(recent_items(items_P, lengths_B, self.order))

    def score_recent(self, recent_BK: ArrayLike) -> NDArray[np.float32]:
        """As `score`, for the last items of each history, *newest first*, padded with 0."""
        recent = np.asarray(recent_BK, dtype=np.int64)
        num_items = self.popularity_N.size
        uniform = self.smoothing / num_items
        base = (self.popularity_N + uniform) / (self.popularity_N.sum() + self.smoothing)
        scores = np.tile(base.astype(np.float32), (recent.shape[0], 1))
        rows = np.arange(recent.shape[0])
        parents = np.zeros(recent.shape[0], dtype=np.int64)
        for level, column in zip(self.levels, recent.T, strict=False):
            item = column[rows]
            rows, parents = rows[item > 0], parents[item > 0]
            keys = parents * (num_items + 1) + item[item > 0]
            numbers = np.searchsorted(level.keys_C, keys)
            known = numbers < level.keys_C.size
            known[known] = level.keys_C[numbers[known]] == keys[known]
            rows, parents = rows[known], numbers[known]
            if not rows.size:
                break
            entries, place = packed_events(level.starts_C1[parents], level.starts_C1[parents + 1])
            entry_rows = np.cumsum(place == 0) - 1
            counts = level.counts_M[entries].astype(np.float64)
            total = np.bincount(entry_rows, weights=counts, minlength=rows.size) + self.smoothing
            scores[rows] *= (self.smoothing / total).astype(np.float32)[:, None]
            scores[rows[entry_rows], level.items_M[entries] - 1] += (counts / total[entry_rows]).astype(np.float32)
        return scores

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays, to be saved as tensors; `from_arrays` is the inverse."""
        named: dict[str, NDArray[Any]] = {
            "popularity": self.popularity_N,
            "smoothing": np.array([self.smoothing]),
        }
        for j, level in enumerate(self.levels, start=1):
            named |= {
                f"{j}.keys": level.keys_C,
                f"{j}.starts": level.starts_C1,
                f"{j}.items": level.items_M,
                f"{j}.counts": level.counts_M,
            }
        return named

    @classmethod
    def from_arrays(cls, named: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild from `arrays`.

        Raises:
            ArtefactError: an array is missing or unknown, or its shape or values break a rule.
        """
        try:
            order = (len(named) - 2) // 4
            popularity, smoothing = named["popularity"].astype(np.float64), float(named["smoothing"][0])
            levels = [
                Level(
                    named[f"{j}.keys"].astype(np.int64),
                    named[f"{j}.starts"].astype(np.int64),
                    named[f"{j}.items"].astype(np.int32),
                    named[f"{j}.counts"].astype(np.int32),
                )
                for j in range(1, order + 1)
            ]
        except (KeyError, IndexError) as error:
            raise ArtefactError(f"transition counts: an array is missing or empty ({error})") from None
        if not (popularity.size and np.isfinite(popularity).all() and (popularity >= 0).all() and smoothing > 0):
            raise ArtefactError("transition counts: popularity must be finite and 0 or more, smoothing above 0")
        for j, level in enumerate(levels, start=1):
            _check_level(level, j, popularity.size)
        fitted = cls(popularity, tuple(levels), smoothing)
        if unknown := sorted(named.keys() - fitted.arrays().keys()):
            raise ArtefactError(f"transition counts: unknown array {unknown[0]!r}")
        return fitted


def _check_level(level: Level, j: int, num_items: int) -> None:
    shapes = level.starts_C1.size == level.keys_C.size + 1 and level.items_M.size == level.counts_M.size
    if not shapes or level.starts_C1[0] != 0 or level.starts_C1[-1] != level.items_M.size:
        raise ArtefactError(f"transition counts of order {j}: the lengths of the arrays do not match")
    if (np.diff(level.starts_C1) < 1).any() or (np.diff(level.keys_C) < 1).any():
        raise ArtefactError(f"transition counts of order {j}: contexts must be sorted, and each must have an entry")
    if level.items_M.size and (level.items_M.min() < 1 or level.items_M.max() > num_items or level.counts_M.min() < 1):
        raise ArtefactError(f"transition counts of order {j}: an item is outside 1..{num_items} or a count below 1")


def recent_items(items_P: ArrayLike, lengths_B: ArrayLike, count: int) -> IntArray:
    """The last `count` items of each packed history, newest first, padded with 0: [B, count]."""
    items, length = np.asarray(items_P, dtype=np.int64), np.asarray(lengths_B, dtype=np.int64)
    if items.ndim != 1 or length.ndim != 1 or int(length.sum()) != items.size:
        raise DataError(f"the lengths of the histories add up to {int(length.sum())}, but there are {items.size} items")
    back = np.arange(1, count + 1)
    place = np.cumsum(length)[:, None] - back
    inside = back <= length[:, None]
    recent = np.zeros(inside.shape, dtype=np.int64)
    recent[inside] = items[place[inside]]
    return recent


def fit_transitions(sequences: Sequences, order: int = 1, smoothing: float = 1.0) -> Transitions:
    """Count which items follow the contexts of 1..`order` items in the training part, by sorting.

    Args:
        sequences: the training part.
        order: the longest context, in items.
        smoothing: additive smoothing, above 0: the weight of the shorter context's prediction, in events.

    Raises:
        ConfigError: `order` or `smoothing` is out of range.
    """
    if not 1 <= order <= MAX_ORDER:
        raise ConfigError(f"order must be 1..{MAX_ORDER} (got {order})")
    if not (smoothing > 0 and np.isfinite(smoothing)):
        raise ConfigError(f"smoothing must be above 0 and finite (got {smoothing})")
    store = sequences.store
    events, place = packed_events(sequences.start_R, sequences.stop_R)
    items = store.items[events].astype(np.int64)
    before = np.flatnonzero(place[1:] > 0)  # packed numbers of the events that have a next one in their row
    contexts = np.zeros(before.size, dtype=np.int64)
    levels = []
    for j in range(1, order + 1):
        deep = place[before] >= j - 1
        before, contexts = before[deep], contexts[deep]
        keys, contexts = np.unique(contexts * (store.num_items + 1) + items[before - (j - 1)], return_inverse=True)
        levels.append(_count(keys, contexts, items[before + 1], store.num_items))
    return Transitions(fit_popularity(sequences), tuple(levels), float(smoothing))


def _count(keys_C: IntArray, contexts: IntArray, targets: IntArray, num_items: int) -> Level:
    pairs, counts = np.unique(contexts * (num_items + 1) + targets, return_counts=True)
    starts = np.searchsorted(pairs, np.arange(keys_C.size + 1, dtype=np.int64) * (num_items + 1))
    return Level(keys_C, starts, (pairs % (num_items + 1)).astype(np.int32), counts.astype(np.int32))
