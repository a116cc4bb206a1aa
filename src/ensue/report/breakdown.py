"""The cases of an evaluation by properties of the user, the target and the time.

Suffixes: `B` cases, `E` events, `U` users, `R` rows of the training part, `N` items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from ensue.data.arrays import FloatArray
from ensue.data.split import Cases, Sequences
from ensue.errors import counted
from ensue.evaluation.significance import bootstrap_interval, by_user

COUNTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000)
HOUR, DAY = 3_600, 86_400
AGES = (0, 60, HOUR, DAY, 7 * DAY, 30 * DAY, 365 * DAY)
AGE_NAMES = (
    "under 1 minute",
    "1 to 60 minutes",
    "1 to 24 hours",
    "1 to 7 days",
    "7 to 30 days",
    "30 to 365 days",
    "longer",
)
CATEGORIES = 12
PERIODS = 12


@dataclass(frozen=True)
class Slice:
    """Some of the cases.

    Attributes:
        name: what they have in common.
        rows_B: their numbers.
    """

    name: str
    rows_B: np.ndarray


@dataclass(frozen=True)
class Breakdown:
    """The cases divided by one property.

    Attributes:
        title: the property.
        note: what it means, in one sentence.
        slices: in order, none empty.
    """

    title: str
    note: str
    slices: list[Slice]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval over users; without one if there is a single user."""

    mean: float
    low: float | None
    high: float | None


def estimate(values_B: FloatArray, users_B: np.ndarray, rows_B: np.ndarray) -> Estimate:
    """The mean of a metric over some cases."""
    values_U = by_user(values_B[rows_B], users_B[rows_B])
    if len(values_U) < 2:
        return Estimate(float(values_U.mean()), None, None)
    interval = bootstrap_interval(values_U)
    return Estimate(interval.estimate, interval.low, interval.high)


def breakdowns(cases: Cases, train: Sequences, trained_N: np.ndarray) -> list[Breakdown]:
    """All breakdowns that the data allows.

    Args:
        cases: the evaluated cases.
        train: the training part.
        trained_N: training events of each item.
    """
    store = cases.store
    target_B = cases.target_items_B.astype(np.int64)
    events_U = np.bincount(train.users_R, train.lengths_R, minlength=store.num_users)
    activity_B, popularity_B = events_U[cases.users_B].astype(np.int64), trained_N[target_B - 1]
    cold = np.where(popularity_B == 0, 1, 0) + np.where(activity_B == 0, 2, 0)
    names = ("known user, known item", "known user, cold item", "cold user, known item", "cold user, cold item")
    result = [
        Breakdown("Length of the history", "Events before the target.", _counts(cases.stop_B - cases.start_B)),
        Breakdown("Popularity of the item", "Training events of the target.", _counts(popularity_B)),
        Breakdown("Activity of the user", "Training events of the user.", _counts(activity_B)),
        Breakdown("Cold users and items", "Cold: without a training event.", _named(cold, names)),
    ]
    if store.times is not None:
        age_B = store.times[cases.target_B] - store.times[cases.stop_B - 1]
        edge_B = np.searchsorted(AGES, age_B, side="right") - 1
        result.insert(3, Breakdown("Recency", "Time from the newest event of the history.", _named(edge_B, AGE_NAMES)))
    if store.categories is not None:
        result.append(
            Breakdown("Category of the item", "From the item table.", _categories(store.categories, target_B))
        )
    return result


def periods(cases: Cases) -> list[tuple[str, Slice]]:
    """The cases in order of their targets' times, in periods of about equal numbers; [] without times.

    Returns:
        The last day of each period, and its cases.
    """
    if cases.store.times is None:
        return []
    times_B = np.asarray(cases.store.times[cases.target_B])
    parts = np.array_split(np.argsort(times_B, kind="stable"), min(PERIODS, max(1, len(times_B) // 10)))
    result = []
    for rows_B in parts:
        first, last = (_day(int(times_B[rows_B[place]])) for place in (0, -1))
        result.append((last, Slice(first if first == last else f"{first} to {last}", rows_B)))
    return result


def _day(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _counts(values_B: np.ndarray) -> list[Slice]:
    last = len(COUNTS) - 1
    names = [
        f"{low:,} or more" if place == last else f"{low:,}" if high == low + 1 else f"{low:,} to {high - 1:,}"
        for place, (low, high) in enumerate(zip(COUNTS, (*COUNTS[1:], 0), strict=True))
    ]
    return _named(np.searchsorted(COUNTS, values_B, side="right") - 1, names)


def _named(number_B: np.ndarray, names: Sequence[str]) -> list[Slice]:
    slices = [Slice(name, np.flatnonzero(number_B == number)) for number, name in enumerate(names)]
    return [each for each in slices if len(each.rows_B)]


def _categories(categories: Sequence[str | None], target_B: np.ndarray) -> list[Slice]:
    """The most frequent categories of targets, and all others together."""
    own_B = np.array([categories[number] or "unknown" for number in target_B], dtype=object)
    names, counts = np.unique(own_B.astype(str), return_counts=True)
    top = [str(name) for name in names[np.argsort(-counts, kind="stable")][:CATEGORIES]]
    slices = [Slice(name, np.flatnonzero(own_B == name)) for name in top]
    rest = np.flatnonzero(~np.isin(own_B.astype(str), top))
    return [*slices, Slice(counted(len(names) - len(top), "other"), rest)] if len(rest) else slices
