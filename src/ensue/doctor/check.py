"""A check-up of a log before anything is trained on it: what is odd, how much of it, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ensue.data.arrays import packed_events
from ensue.data.interactions import Interactions, in_words
from ensue.data.prepare import prepare
from ensue.data.split import Cases, Sequences, Split, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.transitions import fit_transitions
from ensue.doctor.findings import LEVELS, Finding, Level, graded
from ensue.doctor.times import of_times
from ensue.errors import DataError
from ensue.evaluation.metrics import gini, ndcg
from ensue.evaluation.significance import Comparison, compare
from ensue.rng import stream

MAX_CASES = 2_000  # cases asked in the test of order
SCORES_AT_ONCE = 8_000_000
FEW = 5
MAX_SUGGESTED = 200  # the length SASRec used on ML-1M; attention's cost grows with the square of it


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All findings of a check-up.

    Attributes:
        findings: in the order of the check.
        suggested_maxlen: sequence length that keeps 95% of the events, but at most 200.
        order: the test of order (real against shuffled histories), None without cases to ask.
    """

    findings: tuple[Finding, ...]
    suggested_maxlen: int
    order: Comparison | None

    @property
    def level(self) -> Level:
        """The worst level found."""
        return max((finding.level for finding in self.findings), key=LEVELS.index)

    def __getitem__(self, name: str) -> Finding:
        return {finding.name: finding for finding in self.findings}[name]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "level": self.level,
            "suggested_maxlen": self.suggested_maxlen,
            "order": None if self.order is None else self.order.as_dict(),
            "findings": [asdict(finding) for finding in self.findings],
        }


def check(source: SequenceStore | Interactions, split_config: SplitConfig | None = None) -> DoctorReport:
    """Look a log or a prepared store over.

    Args:
        source: a store, or a log as read; of a log also its rows and their order are judged.
        split_config: the split whose leakage and cold items are measured; leave-one-out by default.

    Raises:
        DataError: the source has no events, or the split needs what it has not.
    """
    findings: list[Finding] = []
    log = None
    if isinstance(source, Interactions):
        log = source
        store, report = prepare(source)
        findings += [*_of_rows(source), _of_notes(report.notes)]
    else:
        store = source
    if not store.num_events:
        raise DataError("the store has no events")
    split = make_split(store, split_config or SplitConfig())
    findings += [*_of_events(store, log), *of_times(store), *_of_sizes(store), *_of_split(store, split)]
    maxlen = min(maxlen_for(store.lengths, 0.95), MAX_SUGGESTED)
    order = compare_with_shuffled(split)
    findings.append(_of_order_test(order))
    return DoctorReport(tuple(findings), maxlen, order)


def _of_rows(log: Interactions) -> Iterator[Finding]:
    """What only the log as written can tell."""
    dropped = sum(log.dropped.values())
    share = dropped / max(log.rows_in, 1)
    reasons = in_words(log.dropped, log.examples)
    yield Finding(
        "rows",
        graded(share, 0.0, 0.05),
        share,
        f"{dropped:,} of {log.rows_in:,} rows cannot be used" + (f": {reasons}." if reasons else "."),
        "Look at these rows in the source; a wrong column or format is the usual cause." if dropped else "",
    )
    if "time" not in log.columns:
        return
    by_user = log.frame.select("user", "time").sort("user", maintain_order=True)
    user_E, time_E = by_user["user"].to_numpy(), by_user["time"].to_numpy()
    # Compared, not subtracted: the steps of an odd log may be too large for an int64.
    back = (time_E[1:] < time_E[:-1])[user_E[1:] == user_E[:-1]]
    share = float(back.mean()) if back.size else 0.0
    yield Finding(
        "row-order",
        "warn" if share > 0 else "ok",
        share,
        f"{share:.1%} of the steps from one row of a user to the next go back in time.",
        "Nothing to do for prepared data, which is sorted; tools that trust the row order would be wrong."
        if share > 0
        else "",
    )


def _of_notes(notes: tuple[str, ...]) -> Finding:
    """What reading and preparing the log noticed."""
    return Finding(
        "reading",
        "warn" if notes else "ok",
        len(notes),
        "; ".join(notes) + "." if notes else "Nothing is odd about how the log was read.",
        "Check these against the source." if notes else "",
    )


def _of_events(store: SequenceStore, log: Interactions | None) -> Iterator[Finding]:
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
        # A store keeps whole seconds, and the filter compares microseconds.
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
        f"{repeats:.1%} of the events are of an item that the user has elsewhere too.",
        "Evaluate with --no-filter-seen: filter_seen spares a repeated target but hides its rivals from the history, "
        "which flatters the figures."
        if repeats > 0.01
        else "",
    )


def _made(store: SequenceStore, part: str, name: str) -> Any:
    """What `prepare` wrote down of a store's making; None if something else made it."""
    told = store.made.get(part)
    return told.get(name) if isinstance(told, dict) else None


def maxlen_for(lengths_U: NDArray[np.int64], coverage: float) -> int:
    """The smallest round `maxlen` whose last events of each user are at least `coverage` of all events.

    Round is a multiple of 10 up to 100, of 50 up to 500, then of 100.
    """
    counts = np.bincount(lengths_U)
    longer = counts[::-1].cumsum()[::-1][1:]  # users with at least 1, 2, ... events
    kept = longer.cumsum()
    exact = int(np.searchsorted(kept, coverage * kept[-1])) + 1
    unit = 10 if exact <= 100 else 50 if exact <= 500 else 100
    return -(-exact // unit) * unit


def _of_sizes(store: SequenceStore) -> Iterator[Finding]:
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
        f"{median:g}, mean {lengths.mean():.1f}; maxlen {maxlen} keeps {kept:.1%} of the events (90% take "
        f"{maxlen_for(lengths, 0.9)}, 95% take {maxlen_for(lengths, 0.95)}).",
        f"Train with maxlen = {maxlen}.",
    )
    few = float((lengths < FEW).mean())
    yield Finding(
        "short-users",
        graded(few, 0.2),
        few,
        f"{few:.1%} of the users have fewer than {FEW} events, {float((lengths < 3).mean()):.1%} fewer than 3.",
        f"Consider min_user_events = {FEW}, as most papers do; say so beside the results." if few > 0.2 else "",
    )
    counts = np.bincount(store.items, minlength=store.num_items + 1)[1:]
    rare = float((counts < FEW).mean())
    yield Finding(
        "rare-items",
        graded(rare, 0.3),
        rare,
        f"{rare:.1%} of {store.num_items:,} items have fewer than {FEW} events.",
        f"Little can be learnt about them; consider min_item_events = {FEW}." if rare > 0.3 else "",
    )
    top = max(1, round(store.num_items / 100))
    share = float(np.sort(counts)[-top:].sum() / store.num_events)
    yield Finding(
        "concentration",
        graded(share, 0.5),
        share,
        f"The most popular 1% of the items have {share:.1%} of the events (Gini {gini(counts):.2f}).",
        "Popularity will score high: always report it beside the model." if share > 0.5 else "",
    )


def _of_split(store: SequenceStore, split: Split) -> Iterator[Finding]:
    """What there is to train on, cold targets and leakage."""
    lengths = split.train.lengths_R
    trainable = int((lengths >= 2).sum())
    yield Finding(
        "training",
        "ok" if trainable else "problem",
        trainable,
        f"The split {split.name!r} leaves {lengths.sum():,} events for training; {trainable:,} of {store.num_users:,} "
        "users have two of them or more.",
        "" if trainable else "No model of sequences can be trained: a longer log, or another split, is due.",
    )
    trained = np.zeros(store.num_items + 1, dtype=bool)
    trained[split.train.items_P] = True
    cold = float((~trained[split.test.target_items_B]).mean()) if len(split.test) else 0.0
    yield Finding(
        "cold-items",
        graded(cold, 0.01, 0.1) if len(split.test) else "problem",
        cold if len(split.test) else None,
        f"{cold:.1%} of {len(split.test):,} test targets are items that never occur in training."
        if len(split.test)
        else f"The split {split.name!r} leaves no test case.",
        "No model of ids can predict these: they bound the best score." if cold > 0.01 else "",
    )
    if store.times is None or not len(split.test):
        lacking = "times" if store.times is None else "a test case"
        yield Finding("leakage", "warn", None, f"{split.leakage} Without {lacking} it cannot be measured.")
        return
    train_times = np.sort(store.times[split.train.events_P])
    before = np.searchsorted(train_times, store.times[split.test.target_B], side="right")
    later = float(1 - (before / max(train_times.size, 1)).mean())
    yield Finding(
        "leakage",
        graded(later, 0.01),
        later,
        f"Split {split.name!r}: a test event precedes {later:.1%} of the training events on average. {split.leakage}",
        'Confirm the conclusions with split = "global-time".' if later > 0.01 else "",
    )


def compare_with_shuffled(split: Split, seed: int = 0) -> Comparison | None:
    """Does order matter? A first-order chain on the real sequences against one on them shuffled.

    Both are fitted on the training part and asked for validation targets (NDCG@10 over all items not in the
    history); the second sees the events of every sequence and of every history in a random order, so it still
    knows what occurs together.

    Returns:
        The paired comparison (real - shuffled) over up to 2,000 cases; None with fewer than two cases.
    """
    rng = stream(seed, "compare_with_shuffled")
    cases = split.validation
    if len(cases) < 2 or not len(split.train):
        return None
    chosen = np.sort(rng.choice(len(cases), min(MAX_CASES, len(cases)), replace=False))
    asked = cases.take(chosen)
    mixed = _shuffle_rows(split.train, rng)
    return compare(_chain_ndcg(split.train, asked, None), _chain_ndcg(mixed, asked, rng))


def _shuffle_rows(sequences: Sequences, rng: np.random.Generator) -> Sequences:
    """The same sequences, each in a random order."""
    events = sequences.events_P
    items = np.array(sequences.store.items)
    items[events] = items[events][_mixed_within(sequences.lengths_R, rng)]
    store = replace(sequences.store, items=items, folder=None, recorded=None)
    return Sequences(store, sequences.users_R, sequences.start_R, sequences.stop_R)


def _mixed_within(lengths_R: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A permutation of packed rows that keeps every place in its row."""
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


def _of_order_test(found: Comparison | None) -> Finding:
    if found is None:
        return Finding("order", "warn", None, "Too few validation cases to tell whether order matters.")
    matters = found.effect.low > 0
    return Finding(
        "order",
        "ok" if matters else "warn",
        found.effect.estimate,
        f"A first-order chain scores NDCG@10 {found.mean_a:.4f} on the real order and {found.mean_b:.4f} "
        f"on a shuffled one: difference {found.effect} over {found.num_cases:,} validation cases, "
        f"p = {found.p:.2g}.",
        "" if matters else "Order shows no effect here: compare any sequential model with popularity first.",
    )
