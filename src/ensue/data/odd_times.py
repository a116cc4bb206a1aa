"""Times that do not match the rest of a log: in another unit, or far away."""

from __future__ import annotations

import numpy as np
import polars as pl

from ensue.data.doubt import Answer, Doubt, UnclearLogError
from ensue.data.moments import UNIT_BOUNDS, UNIT_NAMES, written

_MICROS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_UNITS = ("s", "ms", "us", "ns")
_YEAR_US = 365.25 * 86_400e6
# Times are far from the rest when they lie this many spans of its middle 98% away, and at least this many years.
_FAR_SPANS, _FAR_YEARS = 10, 20
_EARLY_1995_US, _EARLY_2100_US = 788_918_400e6, 4_102_444_800e6


def in_another_unit(times_us: np.ndarray, unit: str) -> tuple[int, str] | None:
    """The first time that would be close to the others in another unit.

    Args:
        times_us: microseconds, all of them read in `unit`.
        unit: "s", "ms", "us" or "ns".

    Returns:
        Its place, and the name of its unit; None without one.
    """
    if unit not in _UNITS or not len(times_us):
        return None
    bounds = [bound * _MICROS[unit] for bound, _ in UNIT_BOUNDS]
    edges = float(times_us.min()), float(times_us.max())
    own = np.digitize(np.abs(edges), bounds)
    if own[0] == own[1] and (edges[0] > 0 or own[0] == 0):
        return None
    size = np.abs(times_us.astype(np.float64))
    kinds = np.digitize(size, bounds)
    main = kinds == _UNITS.index(unit)
    if not main.any():
        return None
    low, high = float(times_us[main].min()), float(times_us[main].max())
    slack = max(high - low, _YEAR_US)
    factor = np.array([_MICROS[each] / _MICROS[unit] for each in _UNITS])
    fits = ~main & (np.abs(times_us * factor[kinds] - (low + high) / 2) <= (high - low) / 2 + slack)
    if not fits.any():
        return None
    place = int(np.flatnonzero(fits)[0])
    return place, UNIT_NAMES[_UNITS[kinds[place]]]


def far_away(times_us: np.ndarray) -> np.ndarray:
    """The places of times far from the rest: 20 years and 10 times the span of the middle 98% of them."""
    if len(times_us) < 3:
        return np.zeros(0, dtype=np.int64)
    # If there are few times, the first and the last are left out.
    edge = max(1, round(0.01 * (len(times_us) - 1)))
    ordered = np.partition(times_us, (edge, len(times_us) - 1 - edge))
    low, high = float(ordered[edge]), float(ordered[-1 - edge])
    slack = max(_FAR_SPANS * (high - low), _FAR_YEARS * _YEAR_US)
    if times_us.min() >= low - slack and times_us.max() <= high + slack:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero((times_us < low - slack) | (times_us > high + slack))


def _is_late(times_us: np.ndarray) -> bool:
    return float(np.median(times_us)) > _FAR_YEARS * _YEAR_US


def time_notes(frame: pl.DataFrame, unit: str, values: pl.Series | None, where: str) -> list[str]:
    """Notes on unusual times of a log.

    Args:
        frame: the log: `time`, in microseconds, and `row`, the row of each in the source, from 0.
        unit: the unit in which they were read.
        values: the times as written, if their unit was determined by their size; None if it was named.
        where: name of the log for messages.

    Raises:
        UnclearLogError: the times are in two units.
    """
    times_us, rows = frame["time"].to_numpy(), frame["row"].to_numpy()
    if values is not None and (other := in_another_unit(times_us, unit)) is not None:
        place, name = other
        what = (
            f"times in two units: {values.to_list()[place]} in row {rows[place] + 1:,} is in {name} by its size, most "
            f"others are in {UNIT_NAMES[unit]}; convert them to one, or name the unit of all"
        )
        answer = Answer({"time_unit": unit}, f"all times are in {UNIT_NAMES[unit]}, however large")
        raise UnclearLogError(Doubt(what, (answer,), guess=None, where=where))
    notes = []
    far = far_away(times_us)
    if len(far):
        shown = written(int(times_us[far[0]]) // 1_000_000)
        notes.append(
            f"{len(far):,} times are far from the rest, the first in row {rows[far[0]] + 1:,}: {shown}; check these "
            "rows in the source"
        )
    elif unit in _UNITS and len(early := np.flatnonzero(np.abs(times_us) < _YEAR_US)) and _is_late(times_us):
        notes.append(
            f"{len(early):,} times are within a year of 1970, the first in row {rows[early[0]] + 1:,}, and most others "
            f"decades later: they may stand for missing times, or be dates written as numbers; check these rows"
        )
    if unit in _UNITS and (times_us.min() > _EARLY_2100_US or (_YEAR_US < times_us.max() < _EARLY_1995_US)):
        first, last = (written(int(edge) // 1_000_000) for edge in (times_us.min(), times_us.max()))
        notes.append(
            f"all times are between {first} and {last}: if that is wrong, name their unit or form (--time-unit, "
            "--time-format)"
        )
    if unit == "s" and times_us.min() > -_YEAR_US and times_us.max() < _YEAR_US:
        notes.append(
            "all times are within a year of 1970: if they are not seconds since then, name their unit or form "
            "(--time-unit, --time-format); if they only number the events, their order is correct"
        )
    return notes
