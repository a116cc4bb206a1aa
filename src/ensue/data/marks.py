"""Parts of a split that are given by a feature of the events.

Suffix: `E` events.
"""

from __future__ import annotations

import numpy as np

from ensue.data.session_order import event_feature, session_order
from ensue.data.store import SequenceStore
from ensue.errors import DataError

_MEANING = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2}


def event_parts(store: SequenceStore, name: str) -> np.ndarray:
    """int8 [E]: 0 train, 1 validation, 2 test, by the value of a feature.

    Raises:
        DataError: there is no such feature, an event has no value of it, or it has other values.
    """
    codes_E = event_feature(store, name)
    if name not in store.feature_values:
        raise DataError(f"feature {name!r} must contain the words train, validation and test (got numbers)")
    values = [str(value) for value in store.feature_values[name].ids.to_list()]
    if unknown := [value for value in values if value not in _MEANING]:
        raise DataError(f"feature {name!r} must be train, validation or test (got {unknown[0]!r})")
    if (codes_E == 0).any():
        raise DataError(f"feature {name!r} is missing for {int((codes_E == 0).sum())} events")
    part_E: np.ndarray = np.array([0, *(_MEANING[value] for value in values)], dtype=np.int8)[codes_E]
    return part_E


def ordered_parts(store: SequenceStore, name: str) -> tuple[np.ndarray, np.ndarray]:
    """int64 [U] each: the index after each user's last training event, and after the last one that is not a test event.

    Raises:
        DataError: an event of a user is in an earlier part than the event before it.
    """
    part_E = event_parts(store, name)
    user_E = np.repeat(np.arange(store.num_users), store.lengths)
    falls = np.flatnonzero((part_E[1:] < part_E[:-1]) & (user_E[1:] == user_E[:-1]))
    if len(falls):
        users = np.unique(user_E[falls])
        words = ("training", "validation", "test")
        raise DataError(
            f"feature {name!r}: {len(users):,} of {store.num_users:,} users have parts out of order, such as "
            f"{store.users.decode([int(users[0]) + 1])[0]!r} with a {words[part_E[falls[0] + 1]]} event after a "
            f"{words[part_E[falls[0]]]} event, but a history must end before its target. Split by time, or ignore the "
            "times (--time -) to keep the order of the files"
        )
    stops = []
    for last in (0, 1):
        before = np.concatenate([[0], np.cumsum(part_E <= last)])
        stops.append(store.offsets[:-1] + before[store.offsets[1:]] - before[store.offsets[:-1]])
    return stops[0], stops[1]


def session_parts(
    store: SequenceStore, name: str, order_feature: str | None, validation_fraction: float, last: bool
) -> np.ndarray:
    """int8 [U]: 0 train, 1 validation, 2 test, by the value of a feature of the events.

    Args:
        store: its rows are sessions.
        name: the feature.
        order_feature: the event feature that orders sessions if none is marked for validation.
        validation_fraction: the share of training sessions, the last ones, that then become validation sessions.
        last: the last event of a session, instead of its first, gives its time.

    Raises:
        DataError: a session is in two parts.
    """
    part_E = event_parts(store, name)
    filled = np.flatnonzero(store.lengths)
    part = np.zeros(store.num_users, dtype=np.int8)
    part[filled] = part_E[store.offsets[filled]]
    mixed = np.flatnonzero(part_E != np.repeat(part, store.lengths))
    if len(mixed):
        session = store.users.decode([int(np.searchsorted(store.offsets, mixed[0], side="right"))])[0]
        raise DataError(
            f"session {session!r} is in two parts of the split: feature {name!r} differs within it (to divide the "
            "events of users, use the split 'predefined')"
        )
    if not (part == 1).any():
        train = filled[np.argsort(session_order(store, order_feature, last=last), kind="stable")]
        train = train[part[train] == 0]
        part[train[len(train) - round(validation_fraction * len(train)) :]] = 1
    return part
