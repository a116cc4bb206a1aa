"""Findings about the times of a log: their span, their unit, ties, and orders that do not look like times.

Suffix: `E` events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ensue.data.moments import day
from ensue.data.store import SequenceStore
from ensue.doctor.findings import Finding, graded

# The start of 1995, and the limits of the years with four digits; in seconds since 1970.
EARLIEST = 788_918_400
YEAR_1, YEAR_9999 = -62_135_596_800, 253_402_300_799
DAY = 86_400
FAR = 100  # factor from the median; units differ by a factor of 1,000


def of_times(store: SequenceStore) -> Iterator[Finding]:
    """The times, ties, and orders that do not look like times."""
    user_E = np.repeat(np.arange(store.num_users), store.lengths)
    same = np.diff(user_E) == 0
    moves = np.diff(store.items)[same]
    moves = moves[moves != 0]
    rising = float((moves > 0).mean()) if moves.size else 0.5
    sorted_ids = moves.size >= 100 and not 0.1 <= rising <= 0.9
    yield Finding(
        "id-order",
        "problem" if sorted_ids else "ok",
        rising,
        f"{rising:.0%} of the steps within users lead to a larger item id.",
        "The events look sorted by item id instead of time: find the original order." if sorted_ids else "",
    )
    if store.times is None:
        yield Finding(
            "times",
            "warn",
            None,
            "The log has no times; the order of its rows is used as the order of events.",
            "If the log has a column of times, name it; the global-time split and time-aware models need it.",
        )
        return
    yield _span(store.times)
    yield _units(store.times)
    yield _future(store.times, int(time.time()))
    tied = same & (np.diff(store.times) == 0)
    share = float((np.append(tied, False) | np.append(False, tied)).mean())
    yield Finding(
        "ties",
        graded(share, 0.05, 0.8),
        share,
        f"{share:.1%} of the events share their second with another event of the same user.",
        "They keep the order of the log's rows, which affects next-item scores: keep the rows as they were recorded."
        if share > 0.05
        else "",
    )


def _span(times_E: NDArray[np.int64]) -> Finding:
    """The first and the last event."""
    first, last = int(times_E.min()), int(times_E.max())
    beyond = [str(time) for time in (first, last) if not YEAR_1 <= time <= YEAR_9999]
    odd = bool(beyond) or first < EARLIEST or first == last
    text = f"The events run from {day(first)} to {day(last)}"
    return Finding(
        "times",
        "problem" if odd else "ok",
        (last - first) / DAY,
        text + (f"; outside the years 1 to 9999: {' and '.join(beyond)} seconds since 1970." if beyond else "."),
        "Check the unit of the times (seconds, milliseconds), and whether missing times are 0." if odd else "",
    )


def _future(times_E: NDArray[np.int64], now: int) -> Finding:
    """Events later than a day from now."""
    late_E = times_E[times_E > now + DAY]
    return Finding(
        "future-times",
        "warn" if late_E.size else "ok",
        late_E.size / times_E.size,
        f"{late_E.size:,} of {times_E.size:,} events are in the future"
        + (f", the last on {day(int(late_E.max()))}." if late_E.size else "."),
        "Check the unit and the time zone of the times, and remove events that have not happened."
        if late_E.size
        else "",
    )


def _units(times_E: NDArray[np.int64]) -> Finding:
    """Events whose times differ by orders of magnitude from the others: another unit, or missing times."""
    middle = float(np.median(times_E))
    if middle < EARLIEST:
        return Finding("time-units", "ok", None, "Most times are before 1995, so mixed units cannot be detected.")
    near, wide = middle / FAR, middle * FAR
    far_E = times_E[(times_E > wide) | (times_E < -wide) | ((times_E > -near) & (times_E < near))]
    if not far_E.size:
        return Finding("time-units", "ok", 0.0, f"All times are close to their median, {day(int(middle))}.")
    example = int(far_E[np.argmax(np.abs(far_E))])
    return Finding(
        "time-units",
        "problem",
        far_E.size / times_E.size,
        f"{far_E.size:,} of {times_E.size:,} times differ from their median ({day(int(middle))}) by a factor above "
        f"{FAR}, such as {example} seconds since 1970 ({day(example)}).",
        "Seconds and milliseconds may be mixed, or missing times may be 0: correct or remove these rows in the source.",
    )
