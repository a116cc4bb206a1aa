"""Popularity and sparse transition counts of orders 1..k, from which the simple baselines are computed.

Suffixes: `N` items, `B` histories, `P` events of all histories, `K` items of a context, `R` rows of a view; `C`
contexts and `M` entries of a `Level`, `1` one more entry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensue.data.arrays import IntArray, packed_events
from ensue.data.levels import Level
from ensue.errors import ArtefactError, ConfigError, DataError

if TYPE_CHECKING:
    from ensue.data.split import Sequences

SECONDS_PER_DAY = 86_400
MAX_ORDER = 16
Method = Literal["interpolated", "additive", "kneser-ney"]


def fit_popularity(
    sequences: Sequences, last_fraction: float | None = None, last_days: float | None = None
) -> NDArray[np.float64]:
    """Count the training events of each item, over all time or a recent window.

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
class Smoothing:
    """How counts become probabilities; the defaults are `Transitions.score`'s first formula, without skips.

    Attributes:
        weight: above 0: of the shorter context's prediction, in events (`interpolated`), or added to each count
            (`additive`).
        method: see `Transitions.score`.
        discount: `kneser-ney`: subtracted from each count, in (0, 1).
        skips: number of additional contexts of one item each, 2..1 + skips steps before the next item.
        skip_weight: factor of the weight of a context for each step back, above 0.
    """

    weight: float = 1.0
    method: Method = "interpolated"
    discount: float = 0.75
    skips: int = 0
    skip_weight: float = 0.5


@dataclass(frozen=True, slots=True)
class Transitions:
    """Transition counts of orders 1..k, and of items some steps before the next, from `fit_transitions`."""

    popularity_N: NDArray[np.float64]
    levels: tuple[Level, ...]
    smoothing: Smoothing
    skips: tuple[Level, ...] = ()

    @property
    def order(self) -> int:
        """The longest context, in items."""
        return len(self.levels)

    def score(self, items_P: ArrayLike, lengths_B: ArrayLike) -> NDArray[np.float32]:
        """The probability of each item after each history, [B, N]; column j is item j + 1.

        For a context c of j items, c' the same without its oldest item, n the counts, w the weight and d the discount:

            interpolated  p_j(i | c) = (n(c, i) + w p_{j-1}(i | c')) / (n(c) + w)
            additive      p_j(i | c) = (n(c, i) + w) / (n(c) + w N)
            kneser-ney    p_j(i | c) = (m(c, i) - d) / m(c) + d entries(c) / m(c) p_{j-1}(i | c')

        where m is n for the longest context of the history, and for shorter ones the number of different contexts with
        one more item; entries(c) is the number of different items after c. An unseen context gives exactly the
        probabilities of the shorter one, and p_0 is popularity (`kneser-ney`: the number of different items before i),
        smoothed with w / N for each item (`additive`: w).

        With skips, the result is the mean of this and of the first-order chains over the item s steps before the next,
        s = 2..1 + skips, with weights 1 and skip_weight^(s - 1), without those for which the history is too short.

        Sources: hierarchical Dirichlet smoothing with a fixed weight, MacKay & Peto, Natural Language Engineering 1995;
        Kneser & Ney, ICASSP 1995, interpolated as in Chen & Goodman, Computer Speech and Language 1999.

        Args:
            items_P: the histories' items, packed, each oldest first; 0 is an unknown item and ends the context.
            lengths_B: the length of each history; 0 is allowed and gives popularity.
        """
        return self.score_recent(recent_items(items_P, lengths_B, max(self.order, len(self.skips) + 1)))

    def score_recent(self, recent_BK: ArrayLike) -> NDArray[np.float32]:
        """As `score`, for the last items of each history, *newest first*, padded with 0."""
        recent = np.asarray(recent_BK, dtype=np.int64)
        base = self._base()
        scores = np.tile(base, (recent.shape[0], 1))
        rows, parents = np.arange(recent.shape[0]), np.zeros(recent.shape[0], dtype=np.int64)
        for j, (level, column) in enumerate(zip(self.levels, recent.T, strict=False), start=1):
            is_longest_B = recent[:, j] == 0 if j < min(self.order, recent.shape[1]) else np.ones(len(recent), bool)
            rows, parents = self._blend(level, scores, rows, parents, column, is_longest_B)
            if not rows.size:
                break
        total_B = np.ones(len(recent), dtype=np.float32)
        for s, level in enumerate(self.skips, start=1):
            rows = np.flatnonzero(recent[:, s])
            weight = np.float32(self.smoothing.skip_weight**s)
            part = np.tile(base, (len(rows), 1))
            every, root = np.arange(len(rows)), np.zeros(len(rows), dtype=np.int64)
            self._blend(level, part, every, root, recent[rows, s], np.ones(len(rows), bool))
            scores[rows] += weight * part
            total_B[rows] += weight
        return scores / total_B[:, None] if self.skips else scores

    def _base(self) -> NDArray[np.float32]:
        """The probabilities without a context, [N]."""
        num_items, weight = self.popularity_N.size, self.smoothing.weight
        counts_N: NDArray[Any] = self.popularity_N
        if self.smoothing.method == "kneser-ney":
            first = self.levels[0]
            followed_N = np.bincount(first.items_M, weights=first.counts_M, minlength=num_items + 1)[1:]
            counts_N = np.bincount(first.items_M, minlength=num_items + 1)[1:] + (counts_N > followed_N)
        if self.smoothing.method == "additive":
            weight *= num_items
        base: NDArray[np.float32] = ((counts_N + weight / num_items) / (counts_N.sum() + weight)).astype(np.float32)
        return base

    def _blend(
        self,
        level: Level,
        scores: NDArray[np.float32],
        rows: IntArray,
        parents: IntArray,
        items_B: IntArray,
        is_longest_B: NDArray[np.bool_],
    ) -> tuple[IntArray, IntArray]:
        """Turn the scores of shorter contexts into those of this level, in place, where the context is known.

        Args:
            level: the counts.
            scores: [B, N].
            rows: rows whose shorter context is known.
            parents: its number, for each of them.
            items_B: the item by which the context is extended; 0 for none.
            is_longest_B: whether the history has no longer context.

        Returns:
            The rows whose context is known, and its number.
        """
        num_items, weight = self.popularity_N.size, self.smoothing.weight
        item = items_B[rows]
        rows, parents, item = rows[item > 0], parents[item > 0], item[item > 0]
        numbers, known = level.find(parents * (num_items + 1) + item)
        rows, numbers = rows[known], numbers[known]
        entries, place = packed_events(level.starts_C1[numbers], level.starts_C1[numbers + 1])
        entry_rows = np.cumsum(place == 0) - 1
        counts: NDArray[Any] = level.counts_M[entries].astype(np.float64)
        if level.continuations_M is not None:
            is_raw = is_longest_B[rows][entry_rows]
            counts[~is_raw] = level.continuations_M[entries[~is_raw]]
        total: NDArray[Any] = np.bincount(entry_rows, weights=counts, minlength=rows.size)
        kept = np.full(rows.size, weight)
        if self.smoothing.method == "interpolated":
            total = total + weight
        elif self.smoothing.method == "additive":
            total = total + weight * num_items
            scores[rows] = 1.0
        else:
            counts = counts - self.smoothing.discount
            kept = self.smoothing.discount * np.bincount(entry_rows, minlength=rows.size)
        scores[rows] *= (kept / total).astype(np.float32)[:, None]
        scores[rows[entry_rows], level.items_M[entries] - 1] += (counts / total[entry_rows]).astype(np.float32)
        return rows, numbers

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all counts as named arrays, to be saved as tensors; `from_arrays` is the inverse."""
        named: dict[str, NDArray[Any]] = {
            "popularity": self.popularity_N,
            "smoothing": np.array([self.smoothing.weight]),
        }
        for j, level in enumerate(self.levels, start=1):
            named |= level.arrays(str(j))
        for s, level in enumerate(self.skips, start=1):
            named |= level.arrays(f"skip{s}")
        return named

    @classmethod
    def from_arrays(cls, named: Mapping[str, NDArray[Any]], smoothing: Smoothing | None = None) -> Self:
        """Rebuild from `arrays`.

        Args:
            named: the arrays.
            smoothing: how they become probabilities; interpolated, with the weight among the arrays, by default.

        Raises:
            ArtefactError: an array is missing or unknown, or its shape or values break a rule.
        """
        orders = [name for name in named if re.fullmatch(r"\d+\.keys", name)]
        skips = [name for name in named if re.fullmatch(r"skip\d+\.keys", name)]
        try:
            popularity, weight = named["popularity"].astype(np.float64), float(named["smoothing"][0])
            levels = [Level.from_arrays(named, str(j), popularity.size) for j in range(1, len(orders) + 1)]
            apart = [Level.from_arrays(named, f"skip{s}", popularity.size) for s in range(1, len(skips) + 1)]
        except (KeyError, IndexError) as error:
            raise ArtefactError(f"transition counts: an array is missing or empty ({error})") from None
        if not (popularity.size and np.isfinite(popularity).all() and (popularity >= 0).all() and weight > 0):
            raise ArtefactError("transition counts: popularity must be finite and 0 or more, smoothing above 0")
        fitted = cls(popularity, tuple(levels), smoothing or Smoothing(weight), tuple(apart))
        if unknown := sorted(named.keys() - fitted.arrays().keys()):
            raise ArtefactError(f"transition counts: unknown array {unknown[0]!r}")
        return fitted


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


def fit_transitions(sequences: Sequences, order: int = 1, smoothing: float | Smoothing = 1.0) -> Transitions:
    """Count which items follow the contexts of 1..`order` items in the training part, by sorting.

    Args:
        sequences: the training part.
        order: the longest context, in items.
        smoothing: how counts become probabilities, or the weight of `interpolated` smoothing.

    Raises:
        ConfigError: `order` or `smoothing` is out of range.
    """
    if not isinstance(smoothing, Smoothing):
        smoothing = Smoothing(float(smoothing))
    if not 1 <= order <= MAX_ORDER:
        raise ConfigError(f"order must be 1..{MAX_ORDER} (got {order})")
    if not (smoothing.weight > 0 and np.isfinite(smoothing.weight)):
        raise ConfigError(f"smoothing must be above 0 and finite (got {smoothing.weight})")
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
        levels.append(Level.count(keys, contexts, items[before + 1], store.num_items))
    if smoothing.method == "kneser-ney":
        levels[:-1] = [level.with_continuations(longer, store.num_items) for level, longer in pairwise(levels)]
    skips = []
    for s in range(2, smoothing.skips + 2):
        after = np.flatnonzero(place >= s)
        keys, contexts = np.unique(items[after - s], return_inverse=True)
        skips.append(Level.count(keys, contexts, items[after], store.num_items))
    return Transitions(fit_popularity(sequences), tuple(levels), smoothing, tuple(skips))
