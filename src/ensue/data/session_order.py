"""The order of the sessions of a store, and the events of sessions that can be predicted.

Suffixes: `S` sessions that have events, `U` all sessions, `E` events, `N` items.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ensue.data.store import SequenceStore
from ensue.errors import DataError, nearest


def session_order(store: SequenceStore, feature: str | None, numbers: bool = False, last: bool = False) -> np.ndarray:
    """The values that order the sessions that have events, [S].

    Args:
        store: its rows are sessions.
        feature: the event feature whose value in a session's first event is used; without one, that event's time, or,
            in a store without times, the session's number.
        last: whether to use the session's last event instead of its first.
        numbers: whether the values will be compared with a number, so that texts are an error.

    Returns:
        int64 or float64: the values of a numeric feature, even if the store has codes for them; for a feature of texts,
        the codes, which have the order of the texts.

    Raises:
        DataError: there is no such feature, a session's first event has no value, or the values are texts but numbers
            are needed.
    """
    filled = np.flatnonzero(store.lengths)
    first_S = store.offsets[filled + 1] - 1 if last else store.offsets[filled]
    if feature is None:
        return filled + 1 if store.times is None else np.asarray(store.times[first_S])
    value_S, values = event_feature(store, feature)[first_S], store.feature_values.get(feature)
    missing = np.flatnonzero(~np.isfinite(value_S) if values is None else value_S == 0)
    if len(missing):
        session = store.users.decode([int(filled[missing[0]]) + 1])[0]
        which = "last" if last else "first"
        raise DataError(
            f"feature {feature!r} is missing in the {which} event of {len(missing)} sessions, such as {session!r}"
        )
    if values is None:
        return np.asarray(value_S, dtype=np.float64 if value_S.dtype.kind == "f" else np.int64)
    if values.is_integer:
        return np.asarray(values.ids.to_numpy()[value_S - 1])
    if numbers:
        raise DataError(
            f"feature {feature!r} contains texts, such as {values.ids[0]!r}, but test_from is a number: set shares "
            "instead (validation_fraction, test_fraction)"
        )
    return np.asarray(value_S, dtype=np.int64)


def event_feature(store: SequenceStore, name: str) -> np.ndarray:
    """A feature of the events, [E].

    Raises:
        DataError: there is no feature of this name.
    """
    if name not in store.features:
        raise DataError(f"the store has no event feature {name!r}: {nearest(name, store.features)}")
    return store.features[name]


def is_known(store: SequenceStore, trains_U: np.ndarray, known: np.ndarray) -> np.ndarray:
    """bool [E]: whether an event belongs to a training session or has an item that occurs in training.

    Args:
        store: its rows are sessions.
        trains_U: [U] whether a session is used for training.
        known: the item numbers that occur in training.
    """
    known_N = np.zeros(store.num_items + 1, dtype=bool)
    known_N[known] = True
    kept_E: np.ndarray = known_N[store.items] | np.repeat(trains_U, store.lengths)
    return kept_E


def kept_events(store: SequenceStore, kept_E: np.ndarray) -> SequenceStore:
    """A copy of the store with some of its events."""
    return replace(
        store,
        offsets=np.concatenate(([0], np.cumsum(kept_E)))[store.offsets],
        items=store.items[kept_E],
        times=None if store.times is None else store.times[kept_E],
        features={name: array[kept_E] for name, array in store.features.items()},
        is_target=None if store.is_target is None else store.is_target[kept_E],
        inputs=None if store.inputs is None else store.inputs.keep(kept_E),
        folder=None,
        recorded=None,
    )
