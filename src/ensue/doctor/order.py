"""The test of order: a Markov chain on the real sequences against one on the same sequences shuffled.

Suffixes: `R` rows of a view, `P` events of all rows, `B` cases.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ensue.data.arrays import packed_events
from ensue.data.split import Cases, Sequences, Split
from ensue.data.transitions import fit_transitions
from ensue.doctor.findings import Finding
from ensue.evaluation.metrics import ndcg
from ensue.evaluation.significance import Comparison, by_user, compare
from ensue.rng import stream

MAX_CASES = 2_000  # cases in the test of order
SCORES_AT_ONCE = 8_000_000


def compare_with_shuffled(split: Split, seed: int = 0) -> Comparison | None:
    """Test whether order matters: compare a first-order chain on the real sequences with one on shuffled sequences.

    Both are fitted on the training part and evaluated on validation targets (NDCG@10 over all items not in the
    history). The second sees the events of every sequence and every history in random order, so it can still learn
    which items occur together.

    Returns:
        The comparison (real - shuffled), paired by user, over up to 2,000 cases; None with fewer than two users.
    """
    rng = stream(seed, "compare_with_shuffled")
    cases = split.validation.packed
    if not len(cases) or not len(split.train):
        return None
    chosen = np.sort(rng.choice(len(cases), min(MAX_CASES, len(cases)), replace=False))
    sample = cases.take(chosen)
    mixed = _shuffle_rows(split.train, rng)
    if len(np.unique(sample.users_B)) < 2:
        return None
    real_B, mixed_B = _chain_ndcg(split.train, sample, None), _chain_ndcg(mixed, sample, rng)
    return compare(by_user(real_B, sample.users_B), by_user(mixed_B, sample.users_B))


def _shuffle_rows(sequences: Sequences, rng: np.random.Generator) -> Sequences:
    """The same sequences, each in a random order."""
    events = sequences.events_P
    items = np.array(sequences.store.items)
    items[events] = items[events][_mixed_within(sequences.lengths_R, rng)]
    store = replace(sequences.store, items=items, folder=None, recorded=None)
    return Sequences(store, sequences.users_R, sequences.start_R, sequences.stop_R)


def _mixed_within(lengths_R: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A permutation of packed events that keeps every event in its row."""
    row = np.repeat(np.arange(len(lengths_R)), lengths_R)
    return np.asarray(np.lexsort((rng.random(row.size), row)))


def _chain_ndcg(train: Sequences, cases: Cases, rng: np.random.Generator | None) -> NDArray[np.float64]:
    """NDCG@10 of a first-order chain for each case, [B]; histories are shuffled if `rng` is given."""
    chain = fit_transitions(train)
    num_items = cases.store.num_items
    step = max(1, SCORES_AT_ONCE // num_items)
    values = []
    for b in range(0, len(cases), step):
        start, stop = cases.start_B[b : b + step], cases.stop_B[b : b + step]
        events, place = packed_events(start, stop)
        items = cases.store.items[events]
        seen = items if rng is None else items[_mixed_within(stop - start, rng)]
        scores = chain.score(seen, stop - start)
        row = np.arange(len(start))
        target = cases.target_items_B[b : b + step] - 1
        own = scores[row, target][:, None]
        scores[np.cumsum(place == 0) - 1, items - 1] = -1.0
        scores[row, target] = own[:, 0]
        better, equal = (scores > own).sum(axis=1), (scores == own).sum(axis=1) - 1
        values.append(ndcg(better, equal, num_items, 10))
    return np.concatenate(values)


def of_order(comparison: Comparison | None) -> Finding:
    """Whether order matters, by the test of order; `comparison` is None if there were too few users."""
    if comparison is None:
        text = "There are too few users with validation cases to test whether order matters."
        return Finding("order", "warn", None, text)
    matters = comparison.effect.low > 0
    return Finding(
        "order",
        "ok" if matters else "warn",
        comparison.effect.estimate,
        f"A first-order chain scores NDCG@10 {comparison.mean_a:.4f} on the real order and {comparison.mean_b:.4f} "
        f"on a shuffled one: difference {comparison.effect} over {comparison.num_cases:,} users, "
        f"p = {comparison.p:.2g}.",
        "" if matters else "Order has no measurable effect: compare any sequential model with popularity first.",
    )
