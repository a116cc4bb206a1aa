"""Findings about a split: training sequences, targets without training events, leakage.

Suffixes: `R` rows of a view, `P` events of all rows, `B` cases.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ensue.data.split import Split
from ensue.data.store import SequenceStore
from ensue.doctor.findings import Finding, graded, warned


def of_split(store: SequenceStore, split: Split) -> Iterator[Finding]:
    """Training sequences, cold targets and leakage."""
    lengths = split.train.lengths_R
    trainable = int((lengths >= 2).sum())
    yield Finding(
        "training",
        "ok" if trainable else "problem",
        trainable,
        f"The split {split.name!r} leaves {lengths.sum():,} events for training; {trainable:,} of {store.num_users:,} "
        "users have 2 or more of them.",
        "" if trainable else "No sequential model can be trained: use a longer log or another split.",
    )
    yield _cold(store, split)
    if store.times is None or not len(split.test):
        lacking = "times" if store.times is None else "a test case"
        yield Finding("leakage", "warn", None, f"{split.leakage} Without {lacking} it cannot be measured.")
        return
    train_times = np.sort(store.times[split.train.events_P])
    before = np.searchsorted(train_times, store.times[split.test.target_B], side="right")
    later = float(1 - (before / max(train_times.size, 1)).mean())
    yield warned(
        "leakage",
        later,
        0.01,
        f"Split {split.name!r}: a test event precedes {later:.1%} of the training events on average. {split.leakage}",
        'Confirm the conclusions with split = "global-time".',
    )


def _cold(store: SequenceStore, split: Split) -> Finding:
    """Targets of the test and validation parts whose items never occur in training."""
    if not len(split.test):
        return Finding("cold-items", "problem", None, f"The split {split.name!r} leaves no test case.")
    trained = np.zeros(store.num_items + 1, dtype=bool)
    trained[split.train.items_P] = True
    cold = float((~trained[split.test.target_items_B]).mean())
    text = f"{cold:.1%} of {len(split.test):,} test targets"
    if len(split.validation):
        share = float((~trained[split.validation.target_items_B]).mean())
        text += f" and {share:.1%} of {len(split.validation):,} validation targets"
    return Finding(
        "cold-items",
        graded(cold, 0.01, 0.1),
        cold,
        f"{text} are items that never occur in training.",
        "No model of item ids can predict these, so they limit the best possible score." if cold > 0.01 else "",
    )
