"""Findings about events: duplicates, repeats, lengths, rare users and items, concentration.

Suffixes: `U` users, `E` events.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ensue.data.interactions import Interactions
from ensue.data.store import SequenceStore
from ensue.doctor.findings import Finding, graded, warned
from ensue.evaluation.metrics import gini

FEW = 5
MAX_SUGGESTED = 200  # SASRec's length for ML-1M; the cost of attention grows with its square


def of_events(store: SequenceStore, log: Interactions | None) -> Iterator[Finding]:
    """Duplicates and repeats."""
    user_E = np.repeat(np.arange(store.num_users), store.lengths)
    pairs = pl.DataFrame({"user": user_E, "item": store.items})
    repeats = 1 - pairs.n_unique() / store.num_events
    what, advice = "repeat the user, item and time of another", 'Prepare with exact_duplicates = "drop".'
    if store.times is None:
        again = (np.diff(store.items) == 0) & (np.diff(user_E) == 0)
        exact = float(again.sum() / store.num_events)
        what, advice = "repeat the event just before them", "If these are double clicks, remove them first."
    elif log is not None:
        exact = 1 - log.frame.select("user", "item", "time").n_unique() / store.num_events
    elif _made(store, "config", "exact_duplicates") == "drop" or _made(store, "report", "tie_share") == 0:
        exact = 0.0
    else:
        # A store has whole seconds, but the filter compares microseconds.
        exact = 1 - pairs.with_columns(time=pl.Series(store.times)).n_unique() / store.num_events
        what = "repeat the user, item and second of another"
        advice = 'Prepare with exact_duplicates = "drop", which drops those of the same time to the microsecond.'
    yield Finding(
        "duplicates",
        graded(exact, 0.0, 0.05),
        exact,
        f"{exact:.2%} of the events {what}.",
        advice if exact > 0 else "",
    )
    yield Finding(
        "repeats",
        graded(repeats, 0.01),
        repeats,
        f"{repeats:.1%} of the events repeat an item of the same user.",
        "Evaluate with --no-filter-seen: filter_seen keeps a repeated target but hides the other items of the history, "
        "which makes the figures too high."
        if repeats > 0.01
        else "",
    )


def _made(store: SequenceStore, part: str, name: str) -> Any:
    """A value that `prepare` recorded in the store; None if something else created the store."""
    record = store.made.get(part)
    return record.get(name) if isinstance(record, dict) else None


def maxlen_for(lengths_U: NDArray[np.int64], coverage: float) -> int:
    """The smallest round `maxlen` such that the users' last `maxlen` events are at least `coverage` of all events.

    Round means a multiple of 10 up to 100, of 50 up to 500, and of 100 beyond.
    """
    counts = np.bincount(lengths_U)
    longer = counts[::-1].cumsum()[::-1][1:]  # users with at least 1, 2, ... events
    kept = longer.cumsum()
    exact = int(np.searchsorted(kept, coverage * kept[-1])) + 1
    unit = 10 if exact <= 100 else 50 if exact <= 500 else 100
    return -(-exact // unit) * unit


def of_sizes(store: SequenceStore) -> Iterator[Finding]:
    """Lengths, rare users and items, concentration."""
    lengths = store.lengths
    median = float(np.median(lengths))
    maxlen = min(maxlen_for(lengths, 0.95), MAX_SUGGESTED)
    kept = float(np.minimum(lengths, maxlen).sum() / store.num_events)
    yield Finding(
        "lengths",
        graded(-median, -FEW),
        median,
        f"{store.num_users:,} users have {int(lengths.min())} to {int(lengths.max()):,} events, median "
        f"{median:g}, mean {lengths.mean():.1f}; maxlen {maxlen} keeps {kept:.1%} of the events (90% need "
        f"{maxlen_for(lengths, 0.9)}, 95% need {maxlen_for(lengths, 0.95)}).",
        f"Train with maxlen = {maxlen}.",
    )
    few = float((lengths < FEW).mean())
    yield warned(
        "short-users",
        few,
        0.2,
        f"{few:.1%} of the users have fewer than {FEW} events, {float((lengths < 3).mean()):.1%} fewer than 3.",
        f"Consider min_user_events = {FEW}, as in most papers, and report it with the results.",
    )
    counts = np.bincount(store.items, minlength=store.num_items + 1)[1:]
    rare = float((counts < FEW).mean())
    yield warned(
        "rare-items",
        rare,
        0.3,
        f"{rare:.1%} of {store.num_items:,} items have fewer than {FEW} events.",
        f"Little can be learned about them; consider min_item_events = {FEW}.",
    )
    top = max(1, round(store.num_items / 100))
    share = float(np.sort(counts)[-top:].sum() / store.num_events)
    yield warned(
        "concentration",
        share,
        0.5,
        f"The most popular 1% of the items have {share:.1%} of the events (Gini {gini(counts):.2f}).",
        "The popularity model will score high: always report it as a baseline.",
    )
