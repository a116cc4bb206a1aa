"""Negatives: items that are compared with the target.

A draw depends only on its stream (keyed by seed, epoch and step), never on earlier draws or on the number of workers.
No draw is the target or padding. Drawing among the unseen items needs no rejection: a uniform rank among them is mapped
to an item by a search in the user's sorted items, so a user who has seen almost everything costs the same as any other.

Suffixes: `Q` asked events, `K` negatives, `R` rows of a view, `P` events of all rows, `N` items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ensue.data.arrays import gather_events
from ensue.data.split import Sequences
from ensue.registry import OWN, Registry

if TYPE_CHECKING:
    from ensue.objectives.objective import ObjectiveConfig


class SeenItems:
    """The distinct items of every row of a view, sorted, which draws of unseen items avoid."""

    def __init__(self, sequences: Sequences) -> None:
        self.num_items = sequences.store.num_items
        start_R, stop_R = np.asarray(sequences.start_R), np.asarray(sequences.stop_R)
        rows = np.repeat(np.arange(len(start_R), dtype=np.int64), stop_R - start_R)
        keys = rows * (self.num_items + 1) + sequences.store.items[gather_events(start_R, stop_R)]
        keys = distinct(keys)
        self.items = keys % (self.num_items + 1)
        self.offsets = np.searchsorted(keys // (self.num_items + 1), np.arange(len(start_R) + 1))

    def contains(self, rows_Q: np.ndarray, items_QK: np.ndarray) -> np.ndarray:
        """Whether item [q, k] is among the items of row rows_Q[q]: bool [Q, K]."""
        rows, keys, _ = self._keys(rows_Q)
        wanted = rows[:, None] * (self.num_items + 1) + items_QK
        place = np.searchsorted(keys, wanted)
        inside: np.ndarray = keys[np.minimum(place, len(keys) - 1)] == wanted
        return inside

    def draw_unseen(self, rows_Q: np.ndarray, targets_Q: np.ndarray, uniform_QK: np.ndarray) -> np.ndarray:
        """Draw uniformly, with replacement, among the items a row has not seen.

        Args:
            rows_Q: the row of each asked event.
            targets_Q: the target of each asked event; never drawn. If the row has seen every item, the draw is uniform
                among all items except the target.
            uniform_QK: random numbers in [0, 1), one for each draw.

        Returns:
            int64 [Q, K], in 1..N.
        """
        rows, keys, first = self._keys(rows_Q)
        free = self.num_items - (self.offsets[rows_Q + 1] - self.offsets[rows_Q])[:, None]
        rank = (uniform_QK * np.maximum(free, 1)).astype(np.int64)
        if rank.size > len(first) * self.num_items:
            drawn = self._unseen_by_list(rows, keys, len(first), rank)
        else:
            drawn = self._unseen_by_search(rows, keys, first, rank)
        full = free[:, 0] <= 0
        if full.any():
            others = 1 + (uniform_QK[full] * max(1, self.num_items - 1)).astype(np.int64)
            drawn[full] = np.minimum(others + (others >= targets_Q[full, None]), self.num_items)
        return drawn

    def _unseen_by_search(
        self, rows_Q: np.ndarray, keys: np.ndarray, first_R: np.ndarray, rank_QK: np.ndarray
    ) -> np.ndarray:
        """The unseen item of each rank, by a search among the seen ones; the cost does not depend on the catalogue."""
        # The i-th (from 0) seen item of a row has `item - 1 - i` unseen items before it: non-decreasing in i.
        row, item = np.divmod(keys, self.num_items + 1)
        ladder = row * (self.num_items + 1) + item - 1 - (np.arange(len(keys)) - first_R[row])
        passed = np.searchsorted(ladder, rows_Q[:, None] * (self.num_items + 1) + rank_QK, side="right")
        drawn: np.ndarray = rank_QK + 1 + passed - first_R[rows_Q][:, None]
        return drawn

    def _unseen_by_list(self, rows_Q: np.ndarray, keys: np.ndarray, num_rows: int, rank_QK: np.ndarray) -> np.ndarray:
        """The same, from a list of every row's unseen items; for more draws than the rows have items."""
        is_unseen = np.ones((num_rows, self.num_items + 1), bool)
        is_unseen[:, 0] = False
        is_unseen.ravel()[keys] = False
        count_R = is_unseen.sum(1)
        start_R = np.cumsum(count_R) - count_R
        # A row that has seen everything has no entries, so its ranks point to those of other rows or beyond the end.
        listed = np.append(np.flatnonzero(is_unseen) % (self.num_items + 1), 1).astype(np.int32)
        drawn: np.ndarray = listed.take(start_R[rows_Q][:, None] + rank_QK, mode="clip").astype(np.int64)
        return drawn

    def _keys(self, rows_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Local row of each asked event, sorted keys (local row, item) of those rows, and each row's first key.

        A local row is a run of equal rows. Asked events are ordered by row, so no sorting is needed; a row that occurs
        again later is listed twice.
        """
        is_first = np.diff(rows_Q, prepend=-1) != 0
        runs = rows_Q[is_first]
        start, stop = self.offsets[runs], self.offsets[runs + 1]
        items = self.items[gather_events(start, stop)]
        lengths = stop - start
        keys = np.repeat(np.arange(len(runs)), lengths) * (self.num_items + 1) + items
        return np.cumsum(is_first) - 1, keys, np.cumsum(lengths) - lengths


def distinct(keys: np.ndarray) -> np.ndarray:
    """Sorted distinct values of non-negative integers, by sorting, since these keys are nearly sorted already."""
    ordered = np.sort(keys)
    kept: np.ndarray = ordered[np.diff(ordered, prepend=-1) != 0]
    return kept


class Negatives(Protocol):
    """A distribution over items to draw negatives from."""

    def draw(self, rows_Q: np.ndarray, targets_Q: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [Q, K] negatives of each asked event."""
        ...

    def draw_shared(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [K] distinct negatives for all asked events of a batch."""
        ...

    def log_q(self) -> np.ndarray:
        """float32 [N + 1]: log probability that a draw is the item (index 0 unused)."""
        ...


# Functions from (settings, items of every training row, training events of each item) to the distribution, by name.
NEGATIVES: Registry[Callable[[ObjectiveConfig, SeenItems, np.ndarray], Negatives]] = Registry("negatives", hint=OWN)


class UniformNegatives:
    """Uniform among the items that the user has not seen in the training data."""

    def __init__(self, seen: SeenItems) -> None:
        self.seen = seen

    def draw(self, rows_Q: np.ndarray, targets_Q: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [Q, K]; see `SeenItems.draw_unseen`."""
        return self.seen.draw_unseen(rows_Q, targets_Q, rng.random((len(rows_Q), count)))

    def draw_shared(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [K] distinct items, uniform."""
        return rng.choice(self.seen.num_items, count, replace=False, shuffle=False).astype(np.int64) + 1

    def log_q(self) -> np.ndarray:
        """The same value for every item."""
        return np.full(self.seen.num_items + 1, -np.log(self.seen.num_items), dtype=np.float32)


class PopularityNegatives:
    """In proportion to (training count)^alpha; items without training events have a count of one."""

    def __init__(self, seen: SeenItems, counts_N: np.ndarray, alpha: float) -> None:
        self.seen = seen
        weights = np.maximum(counts_N, 1).astype(np.float64) ** alpha
        self.share_N = weights / weights.sum()
        self.cumulative = np.cumsum(self.share_N)

    def draw(self, rows_Q: np.ndarray, targets_Q: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [Q, K]; seen items are redrawn a few times and finally replaced by uniform draws of unseen items."""
        drawn = self._sample((len(rows_Q), count), rng)
        return _replace_seen(self.seen, rows_Q, targets_Q, drawn, rng, self._sample)

    def draw_shared(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [K] distinct items, drawn one after another by share."""
        return _distinct(self.log_q()[1:], count, rng)

    def log_q(self) -> np.ndarray:
        """The log of each item's share."""
        log_q: np.ndarray = np.concatenate(([0.0], np.log(self.share_N))).astype(np.float32)
        return log_q

    def _sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        places = np.searchsorted(self.cumulative, rng.random(shape) * self.cumulative[-1], side="right")
        items: np.ndarray = np.minimum(places, len(self.cumulative) - 1).astype(np.int64) + 1
        return items


class InBatchNegatives:
    """Targets of other asked events of the batch, and therefore in proportion to popularity; seen ones are replaced."""

    def __init__(self, seen: SeenItems, counts_N: np.ndarray) -> None:
        self.seen = seen
        self.popularity = PopularityNegatives(seen, counts_N, alpha=1.0)

    def draw(self, rows_Q: np.ndarray, targets_Q: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [Q, K]; see `PopularityNegatives.draw`."""

        def others(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
            chosen: np.ndarray = targets_Q[rng.integers(0, len(targets_Q), shape)]
            return chosen

        return _replace_seen(self.seen, rows_Q, targets_Q, others((len(rows_Q), count), rng), rng, others)

    def draw_shared(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [K] distinct items by popularity: the distribution of a batch's targets."""
        return self.popularity.draw_shared(count, rng)

    def log_q(self) -> np.ndarray:
        """The log of the item's popularity, which is its expected share of a batch's targets."""
        return self.popularity.log_q()


class WholeBatchNegatives:
    """All targets of the batch, of which each event leaves out its own, and further draws for all events.

    The further draws are distinct and in proportion to (training count)^alpha. Source: Hidasi & Karatzoglou, CIKM 2018,
    section 3; their code draws with replacement and leaves out an event's own target only where it is the event's own.

    Args:
        seen: the items of every training row.
        counts_N: training events of each item.
        alpha: exponent of the further draws.
        count: number of further draws, 0 or more and fewer than N.
    """

    def __init__(self, seen: SeenItems, counts_N: np.ndarray, alpha: float, count: int) -> None:
        self.count = count
        self.target_share_N = PopularityNegatives(seen, counts_N, 1.0).share_N
        self.further = PopularityNegatives(seen, counts_N, alpha)
        self.further_rate_N = np.exp(log_inclusion(self.further.log_q(), count)[1:].astype(np.float64)) if count else 0

    def draw(self, targets_Q: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """int64 [K] distinct items, ascending, with all targets; at least two, so that each event has a negative."""
        drawn = distinct(targets_Q.astype(np.int64))
        count = max(self.count, 2 if len(drawn) == 1 else 0)
        return np.union1d(drawn, self.further.draw_shared(count, rng)) if count else drawn

    def log_rate(self, items_K: np.ndarray, num_targets: int) -> np.ndarray:
        """float32 [K]: the log probability that each item is drawn for a batch of so many targets."""
        absent_N = (1 - self.target_share_N) ** num_targets * (1 - self.further_rate_N)
        log_rate: np.ndarray = np.log1p(-absent_N[items_K - 1]).astype(np.float32)
        return log_rate


class MixedNegatives:
    """A share of uniform draws, the rest by popularity (Yang et al., WWW 2020)."""

    def __init__(self, uniform: UniformNegatives, popularity: PopularityNegatives, uniform_share: float) -> None:
        self.uniform, self.popularity, self.uniform_share = uniform, popularity, uniform_share

    def draw(self, rows_Q: np.ndarray, targets_Q: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [Q, K]; each cell is uniform with probability `uniform_share`."""
        uniform = self.uniform.draw(rows_Q, targets_Q, count, rng)
        popular = self.popularity.draw(rows_Q, targets_Q, count, rng)
        return np.where(rng.random(uniform.shape) < self.uniform_share, uniform, popular)

    def draw_shared(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [K] distinct items of the mixture."""
        return _distinct(self.log_q()[1:], count, rng)

    def log_q(self) -> np.ndarray:
        """The log of the mixture's probability."""
        share = self.uniform_share
        mixed = share * np.exp(self.uniform.log_q()) + (1 - share) * np.exp(self.popularity.log_q())
        log_q: np.ndarray = np.log(mixed).astype(np.float32)
        return log_q


@NEGATIVES.register("uniform")
def _uniform(config: ObjectiveConfig, seen: SeenItems, counts_N: np.ndarray) -> Negatives:
    return UniformNegatives(seen)


@NEGATIVES.register("popularity")
def _popularity(config: ObjectiveConfig, seen: SeenItems, counts_N: np.ndarray) -> Negatives:
    return PopularityNegatives(seen, counts_N, config.popularity_alpha)


@NEGATIVES.register("in-batch")
def _in_batch(config: ObjectiveConfig, seen: SeenItems, counts_N: np.ndarray) -> Negatives:
    return InBatchNegatives(seen, counts_N)


@NEGATIVES.register("mixed")
def _mixed(config: ObjectiveConfig, seen: SeenItems, counts_N: np.ndarray) -> Negatives:
    popularity = PopularityNegatives(seen, counts_N, config.popularity_alpha)
    return MixedNegatives(UniformNegatives(seen), popularity, config.uniform_share)


def _distinct(log_share_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw without replacement: the items with the `count` largest values of log share + Gumbel noise."""
    keys = log_share_N + rng.gumbel(size=len(log_share_N))
    return np.argpartition(-keys, count - 1)[:count].astype(np.int64) + 1


def log_inclusion(log_q: np.ndarray, count: int) -> np.ndarray:
    """float32 [N + 1]: log probability that an item is among `count` distinct ones, drawn one after another by share.

    The probability is 1 - exp(-t q), with t such that the probabilities sum to `count` (Rosen, Asymptotic Theory for
    Successive Sampling, Ann. Math. Stat. 1972; exact in the limit of many items). The formula for draws with
    replacement, count * q, would give values far above one for items with a large share.

    Args:
        log_q: log share of each item, [N + 1], index 0 unused.
        count: fewer than N.
    """
    share_N = np.exp(log_q[1:].astype(np.float64))
    low, high = 0.0, 1.0
    while -np.expm1(-high * share_N).sum() < count:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if -np.expm1(-middle * share_N).sum() < count else (low, middle)
    log_rate: np.ndarray = np.concatenate(([0.0], np.log(-np.expm1(-high * share_N)))).astype(np.float32)
    return log_rate


class _Sample(Protocol):
    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray: ...


def _replace_seen(
    seen: SeenItems,
    rows_Q: np.ndarray,
    targets_Q: np.ndarray,
    drawn_QK: np.ndarray,
    rng: np.random.Generator,
    sample: _Sample,
    tries: int = 3,
) -> np.ndarray:
    for _ in range(tries):
        bad = seen.contains(rows_Q, drawn_QK) | (drawn_QK == targets_Q[:, None])
        if not bad.any():
            return drawn_QK
        drawn_QK[bad] = sample((int(bad.sum()),), rng)
    bad = seen.contains(rows_Q, drawn_QK) | (drawn_QK == targets_Q[:, None])
    q, _ = np.nonzero(bad)
    if len(q):
        drawn_QK[bad] = seen.draw_unseen(rows_Q[q], targets_Q[q], rng.random((len(q), 1)))[:, 0]
    return drawn_QK
