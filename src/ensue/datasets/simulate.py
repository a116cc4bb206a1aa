"""A simulated book club, with readers, series and changing tastes, whose best possible score is known.

Every reader follows two or three series at a time. The next book is drawn from a mixture of two distributions over the
unread books:

1. threads: choose one of the last few books (`lags`, newest first) and read a book that follows it: mostly the next
   volume of its series, sometimes one of three related books;
2. taste: a hidden state, one of `num_tastes`, prefers a few categories, and popular books within them.

Gaps between events are hours (the same sitting) or days. Within a sitting the threads have most of the weight; after
days the taste has most of it, and the taste may change every day. Therefore order over several steps and time both
matter, and a first-order Markov chain captures only a part. The hidden taste has few states, so its posterior given a
history can be computed exactly (the forward filter of a hidden Markov model), and from it the true probability of every
next book. On average, no ranking based on the history can be better.

Suffixes: `N` books, `Z` tastes, `B` readers or histories, `P` events of all histories, `R` some of the rows, `J` lags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from ensue.config import Config
from ensue.data.arrays import FloatArray, IntArray
from ensue.data.store import SequenceStore
from ensue.datasets.words import CATEGORIES, FIRST_WORDS, SECOND_WORDS
from ensue.errors import DataError
from ensue.rng import stream

DAY = 86_400
START = 1_672_531_200  # 1 January 2023, UTC
NEXT_VOLUME = 0.7  # probability that the next volume follows a book; its related books share the rest
NUM_RELATED = 3
FIRST_VOLUME = 6.0  # ratio of the probabilities that taste chooses a series' first volume and a later one
THREAD_SHARE = np.array([0.85, 0.45])  # weight of the threads within a sitting, and after days
SAME_SITTING = 0.6  # probability that the next event is in the same sitting
STAY_PER_DAY = 0.985  # probability that the taste stays the same for a day
NEW_DAY = 0.12  # parameter of the geometric number of days of a gap
CHUNK = 512  # histories filtered at once


class SimulateConfig(Config):
    """The size of the simulated world and the seed.

    Attributes:
        num_users: number of readers.
        num_items: number of books.
        num_tastes: number of states of the hidden taste.
        min_length: minimum number of events per reader.
        max_length: maximum number of events per reader.
        lags: weights of continuing from the last book, the one before it, and so on.
        seed: seed of the world and the log.
    """

    num_users: int = Field(default=2_000, ge=1)
    num_items: int = Field(default=360, ge=60, le=2_000)
    num_tastes: int = Field(default=8, ge=1, le=64)
    min_length: int = Field(default=15, ge=3)
    max_length: int = Field(default=60, ge=3)
    lags: tuple[float, ...] = Field(default=(0.15, 0.45, 0.25, 0.15), min_length=1, max_length=8)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.min_length <= self.max_length < self.num_items:
            raise ValueError(
                f"min_length <= max_length < num_items must hold, since no book is read twice (got {self.min_length}, "
                f"{self.max_length}, {self.num_items})"
            )
        if min(self.lags) < 0 or sum(self.lags) <= 0:
            raise ValueError(f"lags must be 0 or more, and at least one above 0 (got {self.lags})")
        return self


@dataclass(frozen=True, eq=False)
class Simulation:
    """The world (`items`, `follow_NN`, `taste_ZN`) and a log drawn from it (`interactions`).

    Attributes:
        config: its configuration.
        items: one row per book: id (1..N), title, category.
        interactions: user, item, timestamp (seconds since the epoch), in time order.
        follow_NN: row i is the distribution of the books that follow book i + 1 in a thread.
        taste_ZN: row z is the distribution of the books chosen by taste z.
    """

    config: SimulateConfig
    items: pl.DataFrame
    interactions: pl.DataFrame
    follow_NN: FloatArray
    taste_ZN: FloatArray

    def best_scores(
        self, items_P: ArrayLike, lengths_B: ArrayLike, times_P: ArrayLike, item_ids: ArrayLike | None = None
    ) -> FloatArray:
        """The true probability of each next book given a history and its times, [B, N].

        Only the history is used: the taste is marginalised with its exact posterior, and so are the kind and length of
        the next gap. Books already read have probability 0.

        Args:
            items_P: *complete* histories, packed, each oldest first, from the reader's first event on.
            lengths_B: their lengths; 0 is allowed.
            times_P: seconds since the epoch.
            item_ids: the book ids of item numbers 1, 2, ..., for `items_P` and the columns (a store's `item_ids.ids`);
                by default an item number is the book id.

        Raises:
            DataError: the lengths of the arrays do not match, or an item is not in the catalogue.
        """
        items, times = np.asarray(items_P, dtype=np.int64), np.asarray(times_P, dtype=np.int64)
        lengths = np.asarray(lengths_B, dtype=np.int64)
        books = np.arange(1, self.config.num_items + 1) if item_ids is None else np.asarray(item_ids, dtype=np.int64)
        if items.shape != times.shape or items.size != int(lengths.sum()):
            raise DataError(
                f"items, times and the sum of the lengths must agree (got {items.size} items, {times.size} times, "
                f"lengths that add up to {int(lengths.sum())})"
            )
        if items.size and not 1 <= items.min() <= items.max() <= books.size:
            raise DataError(f"item numbers must be 1..{books.size} (got {items.min()}..{items.max()})")
        if books.size and not 1 <= books.min() <= books.max() <= self.config.num_items:
            raise DataError(f"book ids must be 1..{self.config.num_items} (got {books.min()}..{books.max()})")
        stops = np.cumsum(lengths)
        scores = [
            self._filter(
                books[items - 1] - 1,
                times,
                stops[b : b + CHUNK] - lengths[b : b + CHUNK],
                stops[b : b + CHUNK],
            )
            for b in range(0, lengths.size, CHUNK)
        ]
        return np.concatenate([np.zeros((0, books.size)), *(part[:, books - 1] for part in scores)])

    def _filter(self, books_P: IntArray, times_P: IntArray, start_B: IntArray, stop_B: IntArray) -> FloatArray:
        """Filter the taste along each history, then mix over the kinds of the next gap: [B, N]."""
        state = _State.begin(self, len(start_B))
        taste_BZ = np.full((len(start_B), self.config.num_tastes), 1 / self.config.num_tastes)
        for t in range(int((stop_B - start_B).max(initial=0))):
            rows = np.flatnonzero(stop_B - start_B > t)
            event = start_B[rows] + t
            days = _days(times_P[event] - times_P[event - 1]) if t else np.ones(len(rows), dtype=np.int64)
            taste = _drift(taste_BZ[rows], np.power(STAY_PER_DAY, days))
            threads, share = state.threads(rows), state.thread_share(rows, days > 0)
            each = (share * threads[np.arange(len(rows)), books_P[event]])[:, None]
            taste *= (each + (1 - share)[:, None] * self.taste_ZN[:, books_P[event]].T) / state.unread(
                rows, threads, share
            )
            taste_BZ[rows] = taste / taste.sum(axis=1, keepdims=True)
            state.read(rows, books_P[event])
        everyone = np.arange(len(start_B))
        stay_long = NEW_DAY * STAY_PER_DAY / (1 - (1 - NEW_DAY) * STAY_PER_DAY)  # the mean over the geometric gap
        scores = np.zeros_like(state.unread_BN)
        threads = state.threads(everyone)
        for later, chance, stay in ((False, SAME_SITTING, 1.0), (True, 1 - SAME_SITTING, stay_long)):
            share = state.thread_share(everyone, np.full(len(start_B), later))
            weight = _drift(taste_BZ, np.full(len(start_B), stay)) / state.unread(everyone, threads, share)
            mixed = (share * weight.sum(axis=1))[:, None] * threads + (1 - share)[:, None] * (weight @ self.taste_ZN)
            scores += chance * mixed
        return np.asarray(scores * state.unread_BN)


@dataclass(eq=False)
class _State:
    """The state of a batch of readers: their last books (newest first, -1 for none) and unread books."""

    world: Simulation
    last_BJ: IntArray
    unread_BN: FloatArray
    lag_J: FloatArray

    @classmethod
    def begin(cls, world: Simulation, number: int) -> Self:
        lag = np.array(world.config.lags) / sum(world.config.lags)
        unread = np.ones((number, world.config.num_items))
        return cls(world, np.full((number, len(lag)), -1, dtype=np.int64), unread, lag)

    def threads(self, rows: IntArray) -> FloatArray:
        """The threads' distribution over all books, without the lags beyond the first event: [R, N]."""
        last = self.last_BJ[rows]
        weight = np.where(last >= 0, self.lag_J, 0.0)
        weight /= np.maximum(weight.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        mixed = np.zeros((len(rows), self.unread_BN.shape[1]))
        for j in range(len(self.lag_J)):
            mixed += weight[:, j, None] * self.world.follow_NN[last[:, j]]
        return mixed

    def thread_share(self, rows: IntArray, later: NDArray[np.bool_]) -> FloatArray:
        """The weight of the threads in the mixture, [R]; 0 for a first event."""
        return np.where(self.last_BJ[rows, 0] >= 0, THREAD_SHARE[later.astype(np.int64)], 0.0)

    def unread(self, rows: IntArray, threads: FloatArray, share: FloatArray) -> FloatArray:
        """The mixture's mass on unread books for each taste, the divisor of the probabilities: [R, Z]."""
        mask = self.unread_BN[rows]
        by_taste = mask @ self.world.taste_ZN.T
        return np.asarray((share * (threads * mask).sum(axis=1))[:, None] + (1 - share)[:, None] * by_taste)

    def read(self, rows: IntArray, books: IntArray) -> None:
        self.last_BJ[rows] = np.concatenate([books[:, None], self.last_BJ[rows, :-1]], axis=1)
        self.unread_BN[rows, books] = 0.0


def _days(gap_B: IntArray) -> IntArray:
    """The days of gaps in seconds, rounded; 0 is the same sitting."""
    return (gap_B + DAY // 2) // DAY


def _drift(taste_BZ: FloatArray, stay_B: FloatArray) -> FloatArray:
    """The distribution of the taste after a gap; with probability 1 - stay it is drawn uniformly."""
    stay = stay_B[:, None]
    return np.asarray(stay * taste_BZ + (1 - stay) * taste_BZ.sum(axis=1, keepdims=True) / taste_BZ.shape[1])


def simulate(config: SimulateConfig | None = None) -> Simulation:
    """Build the world and draw the log; the same configuration gives the same bytes."""
    config = config or SimulateConfig()
    items, follow = _catalogue(config)
    empty = pl.DataFrame()
    world = Simulation(config, items, empty, follow, _tastes(config, items))
    return Simulation(config, items, _draw(world), world.follow_NN, world.taste_ZN)


def _catalogue(config: SimulateConfig) -> tuple[pl.DataFrame, FloatArray]:
    """The titles and categories, and the distribution of the books that follow each book."""
    rng = stream(config.seed, "simulate/catalogue")
    names = list(CATEGORIES)
    size = np.diff(np.linspace(0, config.num_items, len(names) + 1).astype(np.int64))
    titles: list[str] = []
    categories: list[str] = []
    follow = np.zeros((config.num_items, config.num_items))
    for name, number in zip(names, size, strict=True):
        first = len(titles)
        pairs = [(a, b) for a in FIRST_WORDS[name] for b in SECOND_WORDS[name]]
        for pair in rng.permutation(len(pairs)):
            volumes = min(int(rng.integers(4, 7)), first + int(number) - len(titles))
            titles += [f"{' '.join(pairs[pair])}, book {volume}" for volume in range(1, volumes + 1)]
        categories += [name] * int(number)
        block = np.arange(first, first + number)
        follow[block, np.roll(block, -1)] += NEXT_VOLUME
    for book in range(config.num_items):
        others = np.flatnonzero(follow[book] == 0)
        related = rng.choice(others[others != book], NUM_RELATED, replace=False)
        follow[book, related] = (1 - NEXT_VOLUME) / NUM_RELATED
    frame = pl.DataFrame({"id": np.arange(1, config.num_items + 1), "title": titles, "category": categories})
    return frame, follow


def _tastes(config: SimulateConfig, items: pl.DataFrame) -> FloatArray:
    """Each taste's distribution: three preferred categories, Zipf-like popularity, first volumes more likely."""
    rng = stream(config.seed, "simulate/tastes")
    names, code = np.unique(items["category"].to_numpy(), return_inverse=True)
    popularity = 1.0 / (1.0 + rng.permuted(np.arange(config.num_items)) / 20)
    popularity *= np.where(items["title"].str.ends_with("book 1").to_numpy(), FIRST_VOLUME, 1.0)
    tastes = np.zeros((config.num_tastes, config.num_items))
    for taste in tastes:
        weight = np.full(len(names), 0.1 / len(names))
        weight[rng.choice(len(names), 3, replace=False)] += (0.45, 0.3, 0.15)
        taste[:] = popularity * weight[code]
    return np.asarray(tastes / tastes.sum(axis=1, keepdims=True))


def _draw(world: Simulation) -> pl.DataFrame:
    """The log; every step draws the next event of all readers."""
    config, rng = world.config, stream(world.config.seed, "simulate/log")
    lengths = rng.integers(config.min_length, config.max_length + 1, size=config.num_users)
    state = _State.begin(world, config.num_users)
    taste = rng.integers(config.num_tastes, size=config.num_users)
    time = START + rng.integers(300 * DAY, size=config.num_users)
    events: list[tuple[IntArray, IntArray, IntArray]] = []
    for t in range(config.max_length):
        rows = np.flatnonzero(lengths > t)
        later = (rng.random(len(rows)) >= SAME_SITTING) & (t > 0)
        days = np.where(later, rng.geometric(NEW_DAY, size=len(rows)), 0)
        hours = np.where(
            later,
            rng.integers(-3 * 3600, 3 * 3600, size=len(rows)),
            rng.integers(1200, 6 * 3600, size=len(rows)),
        )
        time[rows] += days * DAY + hours
        changes = rng.random(len(rows)) >= STAY_PER_DAY**days
        taste[rows] = np.where(changes, rng.integers(config.num_tastes, size=len(rows)), taste[rows])
        share = state.thread_share(rows, later)[:, None]
        chance = (share * state.threads(rows) + (1 - share) * world.taste_ZN[taste[rows]]) * state.unread_BN[rows]
        reach = chance.cumsum(axis=1)
        book = (reach <= rng.random((len(rows), 1)) * reach[:, -1:]).sum(axis=1)
        state.read(rows, book)
        events.append((rows + 1, book + 1, time[rows].copy()))
    user, item, timestamp = (np.concatenate(column) for column in zip(*events, strict=True))
    return pl.DataFrame({"user": user, "item": item, "timestamp": timestamp}).sort("timestamp", "user")


def ordered_sequences(num_users: int = 200, num_items: int = 40, length: int = 12, seed: int = 0) -> SequenceStore:
    """Sequences in which each item determines the next (one fixed cycle), which every model must learn.

    Args:
        num_users: number of sequences, each with a random first item.
        num_items: length of the cycle; above `length`, so that no item repeats.
        length: number of events in each sequence.
        seed: seed of the cycle and the first items.

    Raises:
        DataError: `length` is out of range.
    """
    if not 2 <= length < num_items:
        raise DataError(f"length must be 2 or more and below num_items {num_items} (got {length})")
    rng = stream(seed, "ordered_sequences")
    cycle = rng.permutation(num_items) + 1
    place = rng.integers(num_items, size=(num_users, 1)) + np.arange(length)
    items = cycle[place % num_items].reshape(-1)
    offsets = np.arange(num_users + 1, dtype=np.int64) * length
    times = np.tile(START + DAY * np.arange(length, dtype=np.int64), num_users)
    return SequenceStore.from_arrays(offsets=offsets, items=items.astype(np.int32), times=times)


def shuffled(store: SequenceStore, seed: int = 0) -> SequenceStore:
    """A store with the same items and lengths, permuted over all users, so that only popularity can be learned.

    Shuffling within each user would preserve which items occur together, and that predicts the target.
    """
    order = stream(seed, "shuffled").permutation(store.num_events)
    return SequenceStore.from_arrays(
        offsets=store.offsets,
        items=store.items[order],
        times=store.times,
        users=store.users,
        item_ids=store.item_ids,
    )
