"""Events of one kind as the only targets, such as purchases, while events of other kinds are inputs.

Suffixes: `E` events of the store, `U` users, `F` users with two or more targets.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ensue.data.store import SequenceStore
from ensue.errors import DataError, nearest


def with_targets(store: SequenceStore, feature: str, value: str) -> SequenceStore:
    """The same data, in which only events with a value of a feature may be targets.

    Args:
        store: the data.
        feature: the feature of events.
        value: the value, as text.

    Raises:
        DataError: there is no such feature, or no event has the value.
    """
    if feature not in store.features:
        raise DataError(
            f"target_event: the data has no event feature {feature!r}: {nearest(feature, store.features)}; "
            f"ensue prepare --features {feature} keeps it, and without --target-event every event is a target"
        )
    stored_E = store.features[feature]
    coded = store.feature_values.get(feature)
    known = [str(each) for each in (np.unique(stored_E).tolist() if coded is None else coded.ids.to_list())]
    if value not in known:
        raise DataError(f"target_event: no event has {feature} = {value!r}: {nearest(value, known)}")
    wanted = np.unique(stored_E)[known.index(value)] if coded is None else known.index(value) + 1
    return replace(store, is_target=np.asarray(stored_E == wanted), recorded=store.fingerprint)


def last_two_targets(store: SequenceStore) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The users with two or more targets after their first event, and the last but one and the last of each.

    Returns:
        users, 0-based, and two arrays of event numbers: int64 [F] each.
    """
    start, stop = store.offsets[:-1], store.offsets[1:]
    if store.is_target is None:
        users = np.flatnonzero(store.lengths >= 3)
        return users, stop[users] - 2, stop[users] - 1
    last = last_targets(store.is_target, stop)
    # The last target before the last one; of a user without targets it is not read.
    before = last_targets(store.is_target, np.maximum(last, 0))
    users = np.flatnonzero((last >= start) & (before > start))
    return users, before[users], last[users]


def last_targets(is_target_E: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """The last target before each event number, int64; -1 for none."""
    number_E = np.where(is_target_E, np.arange(len(is_target_E)), -1)
    latest = np.append(-1, np.maximum.accumulate(number_E)) if len(number_E) else np.array([-1])
    result: np.ndarray = latest[stop]
    return result
