"""A date and a time of day in two columns: recognised by their values."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from ensue.data.doubt import Answer, Doubt, UnclearLogError
from ensue.data.meanings import USUAL_NAME, USUAL_TIME, Choice, dates_in, epochs_in, plain_name, sample
from ensue.data.table import Table

_CLOCK = r"(?i)^\s*\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[ap]m)?\s*$"
# The limits of the largest time of day as a number, HHMM or HHMMSS; smaller numbers may be numbers of events.
_FIRST, _LAST = 100, 235_959


def with_clock(table: Table, chosen: Mapping[str, Choice]) -> dict[str, Choice]:
    """The chosen columns; if the time, by its name, has only times of day, with the column of dates beside it.

    Raises:
        UnclearLogError: there are several columns of dates, or the times of day are numbers.
    """
    time = chosen.get("time")
    if time is None or time.why != USUAL_NAME:
        return dict(chosen)
    values = sample(table, [time.column])[time.column].drop_nulls()
    if not len(values) or dates_in(values) or epochs_in(values):
        return dict(chosen)
    is_clock = values.dtype == pl.Time or (values.dtype == pl.String and bool(values.str.contains(_CLOCK).all()))
    numbers = values.cast(pl.Int64, strict=False) if values.dtype == pl.String or values.dtype.is_integer() else None
    is_number = numbers is not None and _are_digits(numbers)
    taken = {choice.column for choice in chosen.values()}
    others = sample(table, [name for name in table.names if name not in taken])
    dates = [column.name for column in others if dates_in(column)] if is_clock or is_number else []
    if is_clock and len(dates) == 1:
        day = Choice(dates[0], f"its dates, beside the times of day in {time.column!r}")
        return {**chosen, "time": day, "clock": Choice(time.column, "its values are times of day")}
    if not dates:
        _refuse_other_times(table, time.column, others)
        return dict(chosen)
    answers = [Answer({"time": name, "clock": time.column}, f"{name} is the date of {time.column}") for name in dates]
    if is_number:
        answers.append(Answer({"time": dates[0]}, f"{dates[0]} is the time, and {time.column} is something else"))
        answers.append(Answer({"time": time.column}, f"{time.column} is the time"))
    example = values.head(1).cast(pl.String)[0]
    what = f"column {time.column!r} may hold times of day (such as {example}), and {', '.join(dates)} dates"
    raise UnclearLogError(Doubt(what, tuple(answers), where=table.where))


def _refuse_other_times(table: Table, name: str, others: pl.DataFrame) -> None:
    """Refuse a column of another usual name for the time that contains times, while the chosen one does not."""
    usual = [column for column in others if plain_name(column.name) in USUAL_TIME]
    timed = [column.name for column in usual if dates_in(column) or epochs_in(column)]
    if timed:
        answers = [Answer({"time": other}, f"{other} is the time") for other in (*timed, name)]
        what = f"column {name!r} has the name of the time and holds none, while {timed[0]!r} does"
        raise UnclearLogError(Doubt(what, tuple(answers), where=table.where))


def _are_digits(numbers: pl.Series) -> bool:
    """Whether integers may be times of day, such as 930 or 93000: the last two digits are below 60."""
    sound = numbers.is_between(0, _LAST) & (numbers % 100 < 60)
    return bool(sound.fill_null(False).all()) and bool((numbers >= _FIRST).any())
