"""Read times in many forms (seconds, milliseconds, fractions, dates) into exact microseconds."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
import polars as pl

from ensue.data.dates import (
    DAY_S,
    SPREADSHEET_EPOCH_S,
    DateOrder,
    in_zone,
    look_like_month_and_day,
    look_like_spreadsheet_days,
    read_form,
    read_number_dates,
    read_published,
)
from ensue.data.doubt import Answer, Doubt, UnclearLogError
from ensue.errors import DataError

TimeUnit = Literal["auto", "s", "ms", "us", "ns", "day"]

# Microseconds in one unit; nanoseconds are divided instead.
_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1, "day": DAY_S * 1_000_000}
# The size of a number determines its unit: 1e11 s is the year 5138, 1e11 ms is 1973, and so on.
UNIT_BOUNDS: tuple[tuple[float, Literal["s", "ms", "us"]], ...] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_AWARE = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z")
_NAIVE = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")
_LIMIT = float(2**63)
# The largest times of day as numbers: hours, HHMM and HHMMSS.
_LAST_HOUR, _LAST_MINUTE, _LAST_SECOND = 23, 2_359, 235_959
_FIRST_OF_2000 = 946_684_800_000_000
_YEAR_9999 = 250_000_000_000_000_000
# The value that numpy and pandas write for a missing time.
_NOT_A_TIME = -(2**63)


def to_microseconds(
    values: pl.Series,
    unit: TimeUnit = "auto",
    form: str | None = None,
    zone: str | None = None,
    order: DateOrder = "auto",
) -> tuple[pl.Series, str]:
    """Times as int64 microseconds since the epoch.

    Numbers are taken in `unit`. With "auto" one unit is chosen for the whole column by its median, and numbers that
    are all dates (20191230) are read as dates. Texts are numbers, or dates of ISO 8601 or another form that published
    logs use.

    Args:
        values: integers, decimals, floats, texts, dates or datetimes.
        unit: the unit of numbers; "day" counts from 1899-12-30, as spreadsheets do.
        form: the format of texts and numbers, in the directives of strftime.
        zone: the time zone of dates that do not state their own, such as Europe/Paris; default: UTC.
        order: "month" or "day": what comes first in dates such as 01/02/2019; "auto": the order that fits all of them.

    Returns:
        The times, null where a value cannot be read, and the unit that numbers were taken in; for dates "date", with
        ", month first" or ", day first" where some are like 01/02/2019.

    Raises:
        UnclearLogError: the times can be read in more than one way.
    """
    if values.dtype.is_decimal():
        values = values.cast(pl.Int64 if values.dtype.scale == 0 else pl.Float64, strict=False)  # type: ignore[attr-defined]
    if values.dtype.is_temporal():
        return _temporal(values, zone), "date"
    if form is not None:
        whole = _whole(values) if values.dtype.is_float() else None
        values = values if whole is None else whole
        texts = values if values.dtype == pl.String else values.cast(pl.String)
        return read_form(texts.str.strip_chars(), form, zone), "date"
    if values.dtype == pl.String:
        return _texts(values, unit, zone, order)
    if values.dtype.is_numeric():
        return _numbers(values, unit, zone)
    return pl.Series(values.name, [None] * len(values), dtype=pl.Int64), "date"


def add_clock(
    dates: pl.Series,
    clocks: pl.Series,
    form: str | None = None,
    zone: str | None = None,
    order: DateOrder = "auto",
) -> tuple[pl.Series, str]:
    """Dates and times of day, from two columns, as int64 microseconds since the epoch.

    Args:
        dates: as `to_microseconds` reads them, each at the start of its day.
        clocks: texts (10:51, 10:51:09.5, 9:05 AM), times of day, or numbers, by the largest: hours, HHMM, HHMMSS, or
            seconds or milliseconds since midnight.
        form: the format of the dates, or of the dates and the clocks with a blank between them.
        zone: the time zone of the clocks.
        order: as for `to_microseconds`.

    Returns:
        The times, null where one of the two cannot be read, and how the dates were read.
    """
    if clocks.dtype == pl.String and form is not None and ("%H" in form or "%I" in form):
        return to_microseconds(dates.cast(pl.String) + " " + clocks, "auto", form, zone)
    days, unit = to_microseconds(dates, "auto", form, order=order)
    moments = days + _time_of_day(clocks)
    if zone is None:
        return moments, unit
    column = in_zone(pl.col("t").cast(pl.Datetime("us")), zone).dt.epoch("us")
    sound = _where(moments.is_between(-_YEAR_9999, _YEAR_9999), moments)
    return sound.alias("t").to_frame().select(column).to_series(), unit


def _time_of_day(clocks: pl.Series) -> pl.Series:
    """Microseconds since midnight."""
    if clocks.dtype == pl.Time:
        return clocks.to_physical() // 1000
    if clocks.dtype == pl.String:
        numbers = clocks.str.strip_chars().cast(pl.Float64, strict=False)
        if numbers.null_count() > clocks.null_count():
            texts = "2000-01-01 " + clocks.str.strip_chars()
            forms = ("%H:%M:%S%.f", "%H:%M", "%I:%M:%S %p", "%I:%M %p")
            read = [read_form(texts, f"%Y-%m-%d {clock}") for clock in forms]
            return pl.select(pl.coalesce(*read)).to_series() - _FIRST_OF_2000
    else:
        numbers = clocks.cast(pl.Float64, strict=False)
    largest = cast("float", numbers.max() or 0.0)
    seconds = _clock_digits(numbers, largest)
    if seconds is not None:
        return (seconds * 1_000_000).cast(pl.Int64)
    factor = 1_000_000 if largest <= DAY_S else 1_000
    return _where(numbers.is_between(0, DAY_S * 1_000_000 / factor), (numbers * factor).round()).cast(pl.Int64)


def _clock_digits(numbers: pl.Series, largest: float) -> pl.Series | None:
    """Seconds since midnight of hours (0 to 23), HHMM or HHMMSS, by the largest; None for other numbers."""
    low, high = numbers % 100, numbers // 100 % 100
    if largest <= _LAST_HOUR:
        return numbers * 3_600
    if largest <= _LAST_MINUTE and bool((low < 60).all()):
        return (numbers // 100) * 3_600 + low * 60
    if DAY_S < largest <= _LAST_SECOND and bool(((low < 60) & (high < 60)).all()):
        return (numbers // 10_000) * 3_600 + high * 60 + low
    return None


def written(seconds: int) -> str:
    """A time as ISO 8601 in UTC, for any int64; years outside 1..9999 have a sign or more digits.

    >>> written(1_600_000_000)
    '2020-09-13T12:26:40Z'
    """
    return f"{np.datetime64(int(seconds), 's')}Z"


def day(seconds: int) -> str:
    """The date of a time, in the format of `written`."""
    return written(seconds).partition("T")[0]


def parse_seconds(text: str, name: str) -> int:
    """Whole seconds since the epoch from a number or a date: `1600000000`, `2020-09-13`, `2020-09-13T12:26`.

    Args:
        text: the text to parse.
        name: the setting, for messages.

    Raises:
        DataError: it is neither of these, or a number so large that it must be in another unit.

    >>> parse_seconds("2020-09-13T12:26:40Z", "test_from")
    1600000000
    """
    text = text.strip()
    if text.isascii() and text.removeprefix("-").isdigit():
        return check_seconds(int(text[:40]), name)
    moment = _iso(pl.Series([text]), None)[0]
    if moment is None:
        raise DataError(
            f"{name} must be seconds since 1970 or a date such as 2020-09-13 or 2020-09-13T12:26 (got {text!r})"
        )
    return int(moment) // 1_000_000


def check_seconds(seconds: int, name: str) -> int:
    """Check that a number can be seconds since the epoch and return it.

    Raises:
        DataError: it is beyond the year 5138 as seconds.
    """
    unit = unit_of_size(abs(seconds))
    if unit != "s":
        raise DataError(
            f"{name} must be seconds since 1970 (got {seconds}, which by its size is in {UNIT_NAMES[unit]})"
        )
    return seconds


def unit_of_size(size: float) -> Literal["s", "ms", "us", "ns"]:
    """The unit of a time by its size, assuming that it is a present-day time."""
    for bound, unit in UNIT_BOUNDS:
        if size < bound:
            return unit
    return "ns"


def _temporal(values: pl.Series, zone: str | None) -> pl.Series:
    """Convert dates and datetimes by their integers, since polars' own conversions fail beyond their range."""
    if values.dtype == pl.Date:
        times = _scaled(values.to_physical().cast(pl.Int64), DAY_S * 1_000_000)
    elif isinstance(values.dtype, pl.Datetime):
        times = _scaled_unit(values.to_physical(), values.dtype.time_unit)
        if values.dtype.time_zone is not None:
            return times
    else:
        return pl.Series(values.name, [None] * len(values), dtype=pl.Int64)
    if zone is None:
        return times
    times = _where(times.is_between(-_YEAR_9999, _YEAR_9999), times)  # polars supports no zones beyond these years
    column = in_zone(pl.col("t").cast(pl.Datetime("us")), zone).dt.epoch("us")
    return times.alias("t").to_frame().select(column).to_series().alias(values.name)


def _numbers(values: pl.Series, unit: TimeUnit, zone: str | None) -> tuple[pl.Series, str]:
    if not values.dtype.is_float():
        values = values.cast(pl.Int64, strict=False)
    values = _where(values != _NOT_A_TIME, values)
    if unit == "auto":
        whole = _whole(values)
        dates = None if whole is None else read_number_dates(whole)
        if dates is not None:
            moments = in_zone(pl.col("t").cast(pl.Datetime("us")), zone).dt.epoch("us")
            return dates[0].alias("t").to_frame().select(moments).to_series().alias(values.name), dates[1]
        if look_like_spreadsheet_days(values):
            if whole is not None:
                what = f"numbers such as {whole.drop_nulls()[0]} can be the days of a spreadsheet or seconds of 1970"
                answers = (
                    Answer({"time_unit": "day"}, "days of a spreadsheet"),
                    Answer({"time_unit": "s"}, "seconds since 1970"),
                )
                raise UnclearLogError(Doubt(f"column {values.name!r}: {what}", answers))
            unit = "day"
    chosen = _guess_unit(values) if unit == "auto" else unit
    if chosen == "day":
        since = _scaled(values.cast(pl.Float64), DAY_S * 1_000_000)
        return since + SPREADSHEET_EPOCH_S * 1_000_000, chosen
    return _scaled_unit(values, chosen), chosen


def _scaled_unit(values: pl.Series, unit: str) -> pl.Series:
    """Numbers of a unit as microseconds; null outside the range of int64."""
    if unit != "ns":
        return _scaled(values, _PER_UNIT[unit])
    if values.dtype.is_float():
        return _scaled(values / 1000, 1)
    return values // 1000


def _scaled(values: pl.Series, factor: int) -> pl.Series:
    if values.dtype.is_float():
        scaled = values * factor
        sound = scaled.is_finite() & (scaled.abs() < _LIMIT)
        return _where(sound, scaled.round().cast(pl.Int64, strict=False))
    limit = (2**63 - 1) // factor
    return _where(values.is_between(-limit, limit), values) * factor


def _whole(values: pl.Series) -> pl.Series | None:
    """The numbers as integers, if all of them are (integers with missing values may be stored as floats)."""
    if not values.dtype.is_float():
        return values
    finite = values.filter(values.is_finite().fill_null(False))
    if not len(finite) or not bool((finite == finite.round()).all()) or bool((finite.abs() >= _LIMIT).any()):
        return None
    return values.cast(pl.Int64, strict=False)


def _texts(values: pl.Series, unit: TimeUnit, zone: str | None, order: DateOrder) -> tuple[pl.Series, str]:
    whole = values.cast(pl.Int64, strict=False)
    if whole.null_count() != values.null_count():
        # Blanks around a number or a date are ignored.
        values = values.str.strip_chars()
        whole = values.cast(pl.Int64, strict=False)
    if unit == "auto" and look_like_month_and_day(values):
        what = (
            f"column {values.name!r}: {values.drop_nulls()[0]!r} looks like a month and a day without a year: add the "
            "year, or say that these are numbers of a unit"
        )
        answers = (
            Answer({"time_unit": "s"}, "numbers, whose order counts"),
            Answer({"time": "-"}, "no times: the order of rows is the order of events"),
        )
        raise UnclearLogError(Doubt(what, answers))
    if whole.null_count() == values.null_count():
        return _numbers(whole, unit, zone)
    numbers = values.cast(pl.Float64, strict=False)
    if numbers.null_count() == values.null_count():
        return _numbers(numbers, unit, zone)
    moments = _iso(values, zone)
    unread = moments.is_null() & numbers.is_null() & values.is_not_null() & (values != "")
    date = "date"
    if unread.any():
        other, order = read_published(_where(unread, values), zone, order)
        date = "date" if order == "auto" else f"date, {order} first"
        moments = pl.select(pl.coalesce(moments, other)).to_series().alias(values.name)
    if numbers.null_count() == len(values):
        return moments, date
    read, chosen = _numbers(whole if whole.null_count() == numbers.null_count() else numbers, unit, zone)
    return pl.select(pl.coalesce(read, moments)).to_series().alias(values.name), chosen


def _iso(values: pl.Series, zone: str | None) -> pl.Series:
    text = pl.col("t").str.replace(r"^(\d{4}-\d{2}-\d{2}) ", "${1}T").str.replace(r" ?UTC$", "Z")
    aware = [text.str.to_datetime(form, strict=False, time_unit="us").dt.replace_time_zone(None) for form in _AWARE]
    naive = [text.str.to_datetime(form, strict=False, time_unit="us") for form in _NAIVE]
    date = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    moment = pl.coalesce(*aware, *(in_zone(local, zone) for local in (*naive, date))).dt.epoch("us")
    # The parser accepts years of more digits, which are outside the range of polars.
    dated = _where(values.str.contains(r"^\d{4}-"), values)
    return dated.alias("t").to_frame().select(moment).to_series().alias(values.name)


def _guess_unit(values: pl.Series) -> Literal["s", "ms", "us", "ns"]:
    size = values.cast(pl.Float64).abs().to_numpy()
    size = size[np.isfinite(size)]
    return unit_of_size(float(np.median(size)) if size.size else 0.0)


def _where(condition: pl.Series, values: pl.Series) -> pl.Series:
    return pl.select(pl.when(condition).then(values)).to_series().alias(values.name)
