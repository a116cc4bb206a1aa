"""Times as people write them (seconds, milliseconds, fractions, ISO dates), read into exact microseconds."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

TimeUnit = Literal["auto", "s", "ms", "us", "ns"]

# Microseconds in one unit; nanoseconds are divided instead.
_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}
# The median of a column of numbers tells its unit: 1e11 s is the year 5138, 1e11 ms is 1973, and so on.
_UNIT_BOUNDS: tuple[tuple[float, Literal["s", "ms", "us"]], ...] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
_AWARE = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z")
_NAIVE = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")
_LIMIT = float(2**63)
# What numpy and pandas write for a missing time.
_NOT_A_TIME = -(2**63)


def to_microseconds(values: pl.Series, unit: TimeUnit = "auto") -> tuple[pl.Series, str]:
    """Times as int64 microseconds since the epoch.

    Numbers are taken in `unit`; with "auto" one unit is chosen for the whole column by its median. Texts
    are numbers, ISO 8601 dates or ISO 8601 datetimes; without an offset they are UTC.

    Args:
        values: integers, floats, texts, dates or datetimes.
        unit: the unit of numbers.

    Returns:
        The times, null where a value cannot be read, and the unit that numbers were taken in
        ("date" where there was none).
    """
    if values.dtype.is_temporal():
        return _temporal(values), "date"
    if values.dtype == pl.String:
        return _texts(values, unit)
    if values.dtype.is_numeric():
        return _numbers(values, unit)
    return pl.Series(values.name, [None] * len(values), dtype=pl.Int64), "date"


def written(seconds: int) -> str:
    """A time as ISO 8601 in UTC, for any year an int64 reaches; years beyond 1..9999 have a sign or more digits.

    >>> written(1_600_000_000)
    '2020-09-13T12:26:40Z'
    """
    return f"{np.datetime64(int(seconds), 's')}Z"


def day(seconds: int) -> str:
    """The date of a time, as `written` writes it."""
    return written(seconds).partition("T")[0]


def _temporal(values: pl.Series) -> pl.Series:
    if values.dtype != pl.Date and not isinstance(values.dtype, pl.Datetime):
        return pl.Series(values.name, [None] * len(values), dtype=pl.Int64)
    return values.cast(pl.Datetime("us")).dt.epoch("us")


def _numbers(values: pl.Series, unit: TimeUnit) -> tuple[pl.Series, str]:
    if not values.dtype.is_float():
        values = values.cast(pl.Int64, strict=False)
    values = _where(values != _NOT_A_TIME, values)
    chosen = _guess_unit(values) if unit == "auto" else unit
    if values.dtype.is_float():
        scaled = values / 1000 if chosen == "ns" else values * _PER_UNIT[chosen]
        sound = scaled.is_finite() & (scaled.abs() < _LIMIT)
        return _where(sound, scaled.round().cast(pl.Int64, strict=False)), chosen
    if chosen == "ns":
        return values // 1000, chosen
    factor = _PER_UNIT[chosen]
    limit = (2**63 - 1) // factor
    return _where(values.is_between(-limit, limit), values) * factor, chosen


def _texts(values: pl.Series, unit: TimeUnit) -> tuple[pl.Series, str]:
    whole = values.cast(pl.Int64, strict=False)
    if whole.null_count() == values.null_count():
        return _numbers(whole, unit)
    numbers = values.cast(pl.Float64, strict=False)
    if numbers.null_count() == values.null_count():
        return _numbers(numbers, unit)
    moments = _iso(values)
    if numbers.null_count() == len(values):
        return moments, "date"
    read, chosen = _numbers(whole if whole.null_count() == numbers.null_count() else numbers, unit)
    return pl.select(pl.coalesce(read, moments)).to_series().alias(values.name), chosen


def _iso(values: pl.Series) -> pl.Series:
    text = pl.col("t").str.replace(r"^(\d{4}-\d{2}-\d{2}) ", "${1}T").str.replace(r" ?UTC$", "Z")
    aware = [text.str.to_datetime(form, strict=False, time_unit="us").dt.replace_time_zone(None) for form in _AWARE]
    naive = [text.str.to_datetime(form, strict=False, time_unit="us") for form in _NAIVE]
    date = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    moment = pl.coalesce(*aware, *naive, date).dt.epoch("us")
    return values.alias("t").to_frame().select(moment).to_series().alias(values.name)


def _guess_unit(values: pl.Series) -> Literal["s", "ms", "us", "ns"]:
    size = values.cast(pl.Float64).abs().to_numpy()
    size = size[np.isfinite(size)]
    middle = float(np.median(size)) if size.size else 0.0
    for bound, unit in _UNIT_BOUNDS:
        if middle < bound:
            return unit
    return "ns"


def _where(condition: pl.Series, values: pl.Series) -> pl.Series:
    return pl.select(pl.when(condition).then(values)).to_series().alias(values.name)
