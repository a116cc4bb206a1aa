"""The order of events by user and time, several times as fast as a sort of two columns.

Suffix: `E` events.
"""

from __future__ import annotations

import numpy as np


def stable_order(user_E: np.ndarray, time_E: np.ndarray | None = None) -> np.ndarray:
    """The places of the events by user, then by time, then by place.

    Args:
        user_E: numbers of users, from 0 to 2**31 - 1.
        time_E: times; None for the order of places within a user.

    Returns:
        int64 [E].
    """
    count = len(user_E)
    by_time = None
    if time_E is not None and not bool((time_E[1:] >= time_E[:-1]).all()):
        by_time = np.argsort(time_E, kind="stable")
        user_E = user_E[by_time]
    # User and place form one number. All numbers differ, so any sort of them is a stable sort of the events.
    bits = count.bit_length()
    key = user_E.astype(np.int64)
    key <<= bits
    key |= np.arange(count)
    key.sort()
    key &= (1 << bits) - 1
    return key if by_time is None else by_time[key]
