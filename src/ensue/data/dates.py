"""Dates in formats other than ISO 8601, and dates written as numbers: 20191230, 201912302359, spreadsheet days."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal, cast

import numpy as np
import polars as pl

from ensue.data.doubt import Answer, Doubt, UnclearLogError
from ensue.errors import DataError

DateOrder = Literal["auto", "month", "day"]

# Day numbers of spreadsheets count from this second (1899-12-30) on.
SPREADSHEET_EPOCH_S = -2_209_161_600
DAY_S = 86_400
# Spreadsheet days of 2000 to 2049.
_SPREADSHEET_DAYS = (36_526, 54_789)
_SAMPLE = 1_000
_YEAR_1000 = -30_610_224_000_000_000
_CLOCKS = ("", " %H:%M", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p")
_MONTH_FIRST = tuple(product(("%m/%d/%Y", "%m-%d-%Y"), _CLOCKS))
_DAY_FIRST = tuple(product(("%d/%m/%Y", "%d-%m-%Y"), _CLOCKS))
_ONE_ORDER = (
    *product(("%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d %B %Y", "%d %B %Y,", "%d-%B-%Y", "%B %d, %Y"), _CLOCKS),
    *product(("%m %d, %Y", "%A, %d %B %Y"), _CLOCKS),
    *(("%Y%m%dT%H%M%SZ", ""), ("%Y%m%dT%H%M%S", "")),
    *(("%A %B %d %H:%M:%S %z %Y", ""), ("%A, %d %B %Y %H:%M:%S %z", ""), ("%d/%B/%Y:%H:%M:%S %z", "")),
)
_EITHER_ORDER = r"^\d{1,2}[/-]\d{1,2}[/-]\d{4}\b"
# Other texts are not passed to the parser, which accepts years that do not fit into int64. A year has four digits, and
# only fractions of a second and the compact form have more digits in a row.
_POSSIBLE = r"^[^\d]*(\d{1,4}[^\d]+)*(\d{1,4}|\.\d{1,12}|\d{8}T\d{6})[^\d]*([+-]?\d{1,4}[^\d]*){0,3}$"
# Digits of a date written as a number -> its form; and each form in the directives of strftime.
_NUMBER_FORMS = {8: "YYYYMMDD", 10: "YYYYMMDDHH", 12: "YYYYMMDDHHMM", 14: "YYYYMMDDHHMMSS", 17: "YYYYMMDDHHMMSSmmm"}
NUMBER_DIRECTIVES = dict(
    zip(_NUMBER_FORMS.values(), ("%Y%m%d", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%Y%m%d%H%M%S%3f"), strict=True)
)
# Shares of numbers that are dates: above the first they are read as dates, above the second the column is in doubt.
_CERTAIN_SHARE, _DOUBTFUL_SHARE = 0.99, 0.5


@dataclass(frozen=True)
class Form:
    """A format of dates.

    Attributes:
        code: the directives of strftime.
    """

    code: str

    def read(self, texts: pl.Expr, zone: str | None) -> pl.Expr:
        """Microseconds since the epoch; null for texts of other forms."""
        if any(mark in self.code for mark in ("%z", "%:z", "%#z", "%+")):
            moments = texts.str.to_datetime(self.code, strict=False, time_unit="us")
            return moments.dt.replace_time_zone(None).dt.epoch("us")
        if any(mark in self.code for mark in ("%H", "%I", "%T", "%R", "%X", "%c", "%s")):
            return in_zone(texts.str.to_datetime(self.code, strict=False, time_unit="us"), zone).dt.epoch("us")
        return in_zone(texts.str.to_date(self.code, strict=False).cast(pl.Datetime("us")), zone).dt.epoch("us")


def in_zone(moments: pl.Expr, zone: str | None) -> pl.Expr:
    """Wall-clock times of a zone (default: UTC) as UTC. An hour that occurs twice is taken as the first one."""
    if zone is None:
        return moments
    placed = moments.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return placed.dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def read_form(texts: pl.Series, code: str, zone: str | None = None) -> pl.Series:
    """Texts of one stated form as microseconds since the epoch; null for texts of another form.

    Raises:
        DataError: polars does not know the form.
    """
    if "%H" in code and not any(mark in code for mark in ("%M", "%T", "%R")):
        texts, code = texts + " 00", code + " %M"  # polars reads an hour only together with a minute
    try:
        return _read(texts, [Form(code)], zone)
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"time_format {code!r} cannot be used ({reason}); use directives such as %Y and %H") from None


def read_published(texts: pl.Series, zone: str | None = None, order: DateOrder = "auto") -> tuple[pl.Series, DateOrder]:
    """Texts in one of the forms that published logs use, as microseconds since the epoch; null for others.

    Args:
        texts: the column.
        zone: the time zone of dates that do not state their own; by default UTC.
        order: "month" or "day": what comes first in dates such as 01/02/2019; "auto": the order that fits all of them.

    Returns:
        The times, and the order of dates such as 01/02/2019; "auto" if there are none.

    Raises:
        UnclearLogError: day and month can be either way round, and the dates differ.
    """
    texts = pl.select(pl.when(texts.str.contains(_POSSIBLE)).then(texts)).to_series().alias(texts.name)
    sample = texts.drop_nulls().head(10 * _SAMPLE).unique(maintain_order=True).head(_SAMPLE)
    forms = [Form("".join(parts)) for parts in _ONE_ORDER]
    either = texts.filter(texts.str.contains(_EITHER_ORDER).fill_null(False))
    if not len(either):
        order = "auto"
    elif order == "auto":
        order = _order_of(either, zone)
    if order != "auto":
        forms += [Form("".join(parts)) for parts in (_MONTH_FIRST if order == "month" else _DAY_FIRST)]
    used = [form for form in forms if _read(sample, [form], zone).null_count() < len(sample)]
    moments = _read(texts, used, zone)
    # The parser takes a year of two digits for one of the first century.
    return pl.select(pl.when(moments >= _YEAR_1000).then(moments)).to_series().alias(texts.name), order


def _order_of(texts: pl.Series, zone: str | None) -> DateOrder:
    """Month first or day first, whichever fits all dates."""
    month, day = (_read(texts, [Form("".join(parts)) for parts in order], zone) for order in (_MONTH_FIRST, _DAY_FIRST))
    answers = Answer({"date_order": "month"}, "month/day/year"), Answer({"date_order": "day"}, "day/month/year")
    only_month, only_day = month.is_not_null() & day.is_null(), day.is_not_null() & month.is_null()
    fewer, more = sorted((only_month, only_day), key=pl.Series.sum)
    if int(fewer.sum()) > (1 - _CERTAIN_SHARE) * int(more.sum()):
        one, other = texts.filter(only_month)[0], texts.filter(only_day)[0]
        what = f"column {texts.name!r} has dates of both orders: {one!r} is month/day/year, {other!r} day/month/year"
        raise UnclearLogError(Doubt(what, answers, guess=int(more is only_day)))
    if int(more.sum()):
        return "month" if more is only_month else "day"
    differ = texts.filter((month != day).fill_null(False))
    # A twelve-hour clock suggests an American log, with the month first.
    if len(differ) and not bool(differ.str.contains(r"(?i)[ap]m$").all()):
        what = f"column {texts.name!r}: {differ[0]!r} can be month/day/year or day/month/year"
        # In the wrong order, the days of one month become the months of one year.
        raise UnclearLogError(Doubt(what, answers, guess=int(_span(day) < _span(month))))
    return "month"


def _span(times: pl.Series) -> int:
    low, high = cast("int | None", times.min()), cast("int | None", times.max())
    return 0 if low is None or high is None else high - low


def _read(texts: pl.Series, forms: list[Form], zone: str | None) -> pl.Series:
    if not forms:
        return pl.Series(texts.name, [None] * len(texts), dtype=pl.Int64)
    moments = pl.coalesce(*(form.read(pl.col("t"), zone) for form in forms))
    return texts.alias("t").to_frame().select(moments).to_series().alias(texts.name)


def read_number_dates(values: pl.Series) -> tuple[pl.Series, str] | None:
    """Numbers that are dates (20191230, 2019123023, 201912302359, ...) as microseconds; None if they are not.

    They are when at least 99% of them, zeros left out, are dates of 1900 to 2100 with the same number of digits. Where
    only half of them are, that is in doubt.

    Args:
        values: integers.

    Returns:
        The wall-clock times, null where a number is no date, and their form.

    Raises:
        UnclearLogError: some are dates and others are not.
    """
    known = values.filter(values.is_not_null() & (values != 0))
    if not len(known):
        return None
    low, high = (cast("int", bound) for bound in (known.quantile(0.01, "nearest"), known.quantile(0.99, "nearest")))
    low, high = int(low), int(high)
    for digits, form in _NUMBER_FORMS.items():
        scale = 10 ** (digits - 8)
        if not 19_000_101 * scale <= low <= high < 21_010_000 * scale:
            continue
        moments = _civil(values.fill_null(0).to_numpy(), digits)
        moments = pl.select(pl.when(values.is_not_null()).then(moments)).to_series().alias(values.name)
        sound = len(moments) - moments.null_count()
        if sound >= _CERTAIN_SHARE * len(known):
            return moments, form
        if sound < _DOUBTFUL_SHARE * len(known):
            return None
        bad = values.filter(moments.is_null() & values.is_not_null() & (values != 0))
        what = f"column {values.name!r}: {sound:,} of {len(known):,} numbers are dates ({form}), {bad[0]} is none"
        answers = Answer({"time_format": NUMBER_DIRECTIVES[form]}, "dates"), Answer({"time_unit": "s"}, "seconds")
        raise UnclearLogError(Doubt(what, answers))
    return None


def _civil(numbers: np.ndarray, digits: int) -> pl.Series:
    """Numbers such as YYYYMMDDHHMM as microseconds since the epoch; null for numbers that are not dates."""
    rest = numbers.astype(np.int64)
    micros = np.zeros(len(rest), dtype=np.int64)
    sound = np.ones(len(rest), dtype=bool)
    if digits == 17:
        rest, millis = np.divmod(rest, 1000)
        micros += millis * 1000
    for at, bound, seconds in ((14, 60, 1), (12, 60, 60), (10, 24, 3600)):
        if digits >= at:
            rest, part = np.divmod(rest, 100)
            sound &= part < bound
            micros += part * seconds * 1_000_000
    rest, day = np.divmod(rest, 100)
    year, month = np.divmod(rest, 100)
    sound &= (year >= 1900) & (year <= 2100) & (month >= 1) & (month <= 12) & (day >= 1)
    months = np.where(sound, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + np.where(sound, day - 1, 0)
    sound &= days.astype("datetime64[M]") == months
    micros += days.astype(np.int64) * (DAY_S * 1_000_000)
    return pl.select(pl.when(pl.Series(sound)).then(pl.Series(micros))).to_series()


def look_like_spreadsheet_days(values: pl.Series) -> bool:
    """Whether all numbers are spreadsheet day numbers of the years 2000 to 2049."""
    low, high = _SPREADSHEET_DAYS
    known = values.drop_nulls()
    return bool(len(known)) and bool(known.is_between(low, high).all())


def look_like_month_and_day(texts: pl.Series) -> bool:
    """Whether all texts are a month and a day without a year, such as 0829, some of them with a leading zero."""
    known = texts.drop_nulls()
    form = r"^(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$"
    return bool(len(known)) and bool(known.str.contains(form).all()) and bool(known.str.starts_with("0").any())
