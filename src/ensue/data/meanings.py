"""The meaning of each column of a log, from the user's settings, usual names and values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, permutations

import polars as pl

from ensue.data.dates import read_number_dates
from ensue.data.doubt import SHOWN_ROWS, Answer, Doubt, UnclearLogError
from ensue.data.moments import to_microseconds, written
from ensue.data.table import MissingColumnError, Table
from ensue.errors import DataError, nearest

NONE = "-"
MEANINGS = ("user", "item", "time", "rating")

# Usual column names, in order of preference, as written by `plain_name`.
_USUAL = {
    "user": ("user", "userid", "reviewerid", "visitorid", "customerid", "uid", "sessionid", "session"),
    "item": ("item", "itemid", "movieid", "productid", "parentasin", "asin", "trackid", "songid", "bookid", "iid"),
    "time": (
        *("time", "timestamp", "unixtimestamp", "unixreviewtime", "datetime", "eventtime", "eventtimestamp", "ts"),
        *("timestampms", "timems", "createdat", "dateadded", "reviewdate", "purchasedate", "orderdate"),
        *("invoicedate", "eventdate", "tdat", "date"),
    ),
    "rating": ("rating", "score", "overall", "stars"),
}
USUAL_USER, USUAL_ITEM, USUAL_TIME = _USUAL["user"], _USUAL["item"], _USUAL["time"]
SESSIONS = ("sessionid", "session", "visitid")
_TYPED_NAME = re.compile(r":(token|float|int|integer|long|str|string|double|date|datetime|timestamp)(_seq)?$", re.I)
# How pandas and others call the index of a table.
_UNNAMED = re.compile(r"(unnamed: ?0(\.\d+)?|__index_level_0__|index|column0|)", re.IGNORECASE)
_SAMPLE_ROWS = 1_000
_NUMBER_LIKE = (pl.String, pl.Int32, pl.Int64, pl.UInt32, pl.UInt64, pl.Float64)
# Most columns offered for one meaning, if its column is in doubt.
_OFFERED = 4
# Seconds of 1995-01-01 and 2040-01-01: numbers between them are unlikely to be ids.
_EPOCH_S = (788_918_400, 2_208_988_800)
USUAL_NAME = "a usual name"
_PRODUCT = r"^(B0[0-9A-Z]{8}|\d{9}[\dX]|(?i:item|i|product|prod|p|movie|track|song|book|article|sku)[_-]?\d+)$"
_PERSON = r"^(A[0-9A-Z]{9,20}|(?i:user|usr|u|customer|cust|visitor|session|sess)[_-]?\d+)$"
# Rows from which a first column that increases from row to row can be recognised as their numbers.
_LEAST_NUMBERED = 10


@dataclass(frozen=True)
class Choice:
    """The column chosen for a meaning.

    Attributes:
        column: the column's name.
        why: the reason, as text.
        note: a remark for the report; "" for none.
    """

    column: str
    why: str
    note: str = ""


def plain_name(name: str) -> str:
    """A column name as in the tables of usual names: in lower case, without blanks, "_", "-" and RecBole's types."""
    return re.sub(r"[\s_-]", "", _TYPED_NAME.sub("", name.lower()))


def choose_columns(table: Table, said: Mapping[str, str | None]) -> dict[str, Choice]:
    """Meaning -> column, for the user, the item, and, if present, the time and the rating.

    Args:
        table: the log.
        said: meaning -> the column's name, "-" for none, None if not given.

    Raises:
        DataError: a column does not exist, or has two meanings.
        UnclearLogError: the user, the item or the time must be named.
    """
    chosen = {
        meaning: Choice(present(table, name, meaning), "named")
        for meaning, name in said.items()
        if name is not None and not (name == NONE and meaning in ("time", "rating"))
    }
    open_meanings = [meaning for meaning in MEANINGS if said[meaning] is None and meaning not in table.meanings]
    guessed = _by_place(table, chosen, open_meanings) if table.positional else _by_name(table, open_meanings)
    chosen |= guessed
    chosen |= {
        meaning: Choice(column, f"the shape is {table.shape}")
        for meaning, column in table.meanings.items()
        if said[meaning] is None and column != NONE
    }
    unknown = [meaning for meaning in ("user", "item") if meaning not in chosen]
    if unknown:
        raise _unclear_ids(table, unknown, {choice.column for choice in chosen.values()})
    if "time" not in chosen and said["time"] is None and "time" not in table.meanings:
        # The column of the rating may also contain times, unless it was named.
        sure = {choice.column for meaning, choice in chosen.items() if meaning != "rating" or choice.why == "named"}
        _refuse_unnamed_time(table, sure)
    if not table.positional:
        _refuse_contradicted(table, chosen)
    for one, other in combinations([meaning for meaning in MEANINGS[:3] if meaning in chosen], 2):
        if chosen[one].column == chosen[other].column:
            raise DataError(f"{table.where}: column {chosen[one].column!r} cannot be both the {one} and the {other}")
    return chosen


def _refuse_contradicted(table: Table, chosen: Mapping[str, Choice]) -> None:
    """Check the columns that were not named: users and items must not be dates, and ratings must not be times.

    Raises:
        UnclearLogError: the values of a column contradict its name.
    """
    guessed = {meaning: choice.column for meaning, choice in chosen.items() if choice.why != "named"}
    frame = sample(table, [guessed[meaning] for meaning in ("user", "item", "rating", "time") if meaning in guessed])
    for meaning in ("user", "item"):
        if meaning in guessed and dates_in(frame[guessed[meaning]]):
            name = guessed[meaning]
            others = [other for other in table.names if other != name and other not in guessed.values()][:_OFFERED]
            answers = [Answer({meaning: other}, f"{other} is the {meaning}") for other in (*others, name)]
            what = f"column {name!r} has the name of the {meaning}, and holds dates (such as {_example(frame[name])})"
            raise UnclearLogError(Doubt(what, tuple(answers), where=table.where))
    if {"time", "rating"} <= guessed.keys():
        time, rating = guessed["time"], guessed["rating"]
        if _is_time(frame[rating]) and not _is_time(frame[time]):
            what = (
                f"column {rating!r} has the name of the rating, and holds times (such as {_example(frame[rating])}), "
                f"and {time!r} holds none (such as {_example(frame[time])})"
            )
            answers = [
                Answer({"time": rating, "rating": time}, f"{rating} is the time"),
                Answer({"time": time, "rating": rating}, "the names are right"),
            ]
            raise UnclearLogError(Doubt(what, tuple(answers), where=table.where))


def present(table: Table, name: str, meaning: str) -> str:
    """The column with this name; RecBole's types (`:token`) may be omitted.

    Raises:
        MissingColumnError: there is no such column.
    """
    if name in table.names:
        return name
    bare = [column for column in table.names if _TYPED_NAME.sub("", column) == name]
    if len(bare) != 1:
        raise MissingColumnError(f"{table.where}: no column {name!r} for the {meaning}: {nearest(name, table.names)}")
    return bare[0]


def usual_column(names: list[str], usual: tuple[str, ...]) -> str | None:
    """The column with the first of the usual names that occurs."""
    plain = {plain_name(name): name for name in reversed(names)}
    return next((plain[name] for name in usual if name in plain), None)


def sample(table: Table, columns: list[str]) -> pl.DataFrame:
    """Some columns of the first rows."""
    try:
        return table.rows.select(columns).head(_SAMPLE_ROWS).collect()
    except (pl.exceptions.PolarsError, OSError):
        return pl.DataFrame({name: [] for name in columns})  # reading the whole file reports the fault


def with_rows(error: UnclearLogError, table: Table) -> UnclearLogError:
    """A copy of the error whose doubt has the first rows of the log, unless it already has rows."""
    if error.doubt.rows:
        return error
    frame = sample(table, table.names).head(SHOWN_ROWS)
    rows = tuple(zip(*(texts_of(column) for column in frame.get_columns()), strict=True))
    return error.at(names=tuple(table.names), rows=rows)


def texts_of(values: pl.Series) -> list[str]:
    """Values as text, missing ones empty; dates by their moments, since Python's dates end in the year 9999."""
    if values.dtype.is_temporal():
        moments = to_microseconds(values)[0]
        return ["" if moment is None else written(moment // 1_000_000) for moment in moments]
    return ["" if value is None else str(value) for value in values.to_list()]


def dates_in(values: pl.Series) -> bool:
    """Whether a column contains dates, as a date type, as texts, or as numbers such as 20191230."""
    if values.dtype == pl.Date or isinstance(values.dtype, pl.Datetime):
        return True
    if _number_dates_in(values):
        return True
    if values.dtype != pl.String:
        return False
    texts = values.drop_nulls().str.strip_chars()
    texts = texts.filter((texts != "") & texts.cast(pl.Float64, strict=False).is_null())
    if not len(texts) or len(texts) < 0.9 * len(values):
        return False
    try:
        return to_microseconds(texts)[0].null_count() <= 0.1 * len(texts)
    except UnclearLogError:  # dates with day and month in either order
        return True


def _number_dates_in(values: pl.Series) -> bool:
    numbers = values.cast(pl.Int64, strict=False) if values.dtype in _NUMBER_LIKE[:-1] else pl.Series([])
    if not len(numbers) or numbers.null_count():
        return False
    try:
        return read_number_dates(numbers) is not None
    except UnclearLogError:  # some of them are dates
        return False


def epochs_in(values: pl.Series) -> bool:
    """Whether a column contains numbers that are times of 1995 to 2040, in seconds or finer units."""
    numbers = values.cast(pl.Float64, strict=False).drop_nulls() if values.dtype in _NUMBER_LIKE else pl.Series([])
    if len(numbers) < 0.9 * max(len(values), 1):
        return False
    low, high = _EPOCH_S
    return any(bool(numbers.is_between(low * unit, high * unit).all()) for unit in (1, 1e3, 1e6, 1e9))


def _small_fractions(values: pl.Series) -> bool:
    """Whether a column contains numbers below 1,000, some of them with a fraction."""
    numbers = values.cast(pl.Float64, strict=False).drop_nulls() if values.dtype in _NUMBER_LIKE else pl.Series([])
    return len(numbers) > 0 and bool((numbers.abs() < 1_000).all()) and bool((numbers != numbers.round()).any())


def _example(values: pl.Series) -> str:
    first = values.drop_nulls().head(1)
    return texts_of(first)[0] if first.dtype.is_temporal() else repr(first[0])


def _unclear_ids(table: Table, unknown: list[str], taken: set[str]) -> DataError:
    """The error for ids without a column of a usual name, with the possible columns as answers."""
    what = f"which column is the {unknown[0]}? Columns: {', '.join(table.names)}"
    others = [name for name in table.names if name not in taken]
    frame = sample(table, others)
    likely = [name for name in others if _may_be_ids(frame[name]) and not _UNNAMED.fullmatch(name)]
    chosen = permutations((likely if len(likely) >= len(unknown) else others)[:_OFFERED], len(unknown))
    answers = [
        Answer(
            dict(zip(unknown, columns, strict=True)),
            ", ".join(f"{name} is the {meaning}" for name, meaning in zip(columns, unknown, strict=True)),
        )
        for columns in chosen
    ][: 2 * _OFFERED]
    if not answers:
        return DataError(f"{table.where}: {what}")
    return UnclearLogError(Doubt(what, tuple(answers), where=table.where))


def _may_be_ids(values: pl.Series) -> bool:
    is_text = values.dtype in (pl.String, pl.Categorical, pl.Enum)
    return (is_text or values.dtype.is_integer()) and not _is_time(values)


def _is_time(values: pl.Series) -> bool:
    return dates_in(values) or epochs_in(values)


def _by_name(table: Table, meanings: list[str]) -> dict[str, Choice]:
    chosen = {}
    for meaning in meanings:
        name = usual_column(table.names, _USUAL[meaning])
        if name is not None:
            chosen[meaning] = Choice(name, USUAL_NAME)
    return chosen


def _by_place(table: Table, said: Mapping[str, Choice], meanings: list[str]) -> dict[str, Choice]:
    """The meanings of the columns of a file without names, except for those that are given."""
    if len(table.names) < 2:
        raise DataError(f"{table.where}: has one column, but a log needs at least a user and an item")
    index = _column_of_index(table, said)
    frame = sample(table, [name for name in table.names if name != index])
    names, count = frame.columns, frame.width
    dated = [name for name in names if dates_in(frame[name])]
    timed = dated + [name for name in names if count > 2 and name not in dated and epochs_in(frame[name])]
    places = {"user": names[0], "item": names[1], **{meaning: choice.column for meaning, choice in said.items()}}
    if count == 3 and table.spaced:
        places["time"] = names[2]
    elif count == 4:
        places |= {"rating": names[2], "time": names[3]}
    if "time" in meanings:
        places = _with_time_by_values(table, frame, places, meanings, dated, timed)
    why, note = "its place, in a file without names", ""
    if frame.height and {"user", "item"} <= set(meanings) and _swapped(frame):
        places |= {"user": names[1], "item": names[0]}
        why = "its values are product codes; those of the other column are user codes"
    if index:
        note = f"column {index} numbers the rows and is not read: if these are ids, name the columns (--user {index})"
    taken = {choice.column for choice in said.values()}
    return {
        meaning: Choice(place, why, note)
        for meaning, place in places.items()
        if meaning in meanings and place not in taken
    }


def _column_of_index(table: Table, said: Mapping[str, Choice]) -> str:
    """The first of at least three columns without names, if it numbers the rows beside a column of times; "" if not.

    Raises:
        UnclearLogError: it increases too, but with gaps, as the index of a filtered table does, or without times.
    """
    first, *others = table.names
    if len(others) < 2 or first in {choice.column for choice in said.values()}:
        return ""
    values = sample(table, [first])[first]
    numbers = values.str.strip_chars().cast(pl.Int64, strict=False) if values.dtype == pl.String else values
    steps = numbers.diff().drop_nulls()
    if len(steps) + 1 < max(len(numbers), _LEAST_NUMBERED) or not bool((steps > 0).all()):
        return ""
    if "user" in said or _is_time(values):
        return ""
    is_counted = numbers[0] in (0, 1) and bool((steps == 1).all())
    if is_counted and ("time" in said or any(_is_time(column) for column in sample(table, others).get_columns())):
        return first
    what = f"column {first} increases from row to row ({', '.join(map(str, numbers.head(3)))}, ...), as row numbers do"
    item = {} if "item" in said else {"item": others[1]}
    answers = (
        Answer({"user": others[0], **item}, f"it numbers the rows, and {others[0]} is the user"),
        Answer({"user": first}, "it is the user, and no user has two events in the first rows"),
    )
    raise UnclearLogError(Doubt(what, answers, where=table.where))


def _with_time_by_values(
    table: Table,
    frame: pl.DataFrame,
    places: dict[str, str],
    meanings: list[str],
    dated: list[str],
    timed: list[str],
) -> dict[str, str]:
    """The places, with the time in the column whose values are times; refused if that contradicts the others."""
    usual = places.get("time")
    wrong = [name for name in dated if name in (places["user"], places["item"])]
    if usual in timed and not wrong:
        return places
    if len(timed) == 1 and timed[0] not in (places["user"], places["item"]):
        rest = [name for name in frame.columns[2:] if name != timed[0]]
        return {**places, "time": timed[0], **({"rating": rest[0]} if "rating" in places else {})}
    if timed:
        raise _unclear_places(table, frame, meanings, timed)
    if usual is not None and _small_fractions(frame[usual]):
        answers = [Answer({"time": NONE, "rating": usual}, f"column {usual} is a rating; the order of rows counts")]
        answers.append(Answer({"time": usual}, f"column {usual} is the time"))
        what = f"column {usual} holds small fractions (such as {_example(frame[usual])}), which are hardly times"
        raise UnclearLogError(Doubt(what, tuple(answers), where=table.where))
    if usual is None and len(frame.columns) > 2:
        answers = [Answer({"time": NONE}, "no column: the order of rows is the order of events")]
        answers += [Answer({"time": name}, f"column {name} is the time") for name in frame.columns[2 : 2 + _OFFERED]]
        what = f"{len(frame.columns)} columns without names; say which is the time ('-' for none)"
        raise UnclearLogError(Doubt(what, tuple(answers), where=table.where))
    return places


def _unclear_places(table: Table, frame: pl.DataFrame, meanings: list[str], timed: list[str]) -> UnclearLogError:
    """The error for columns of times in the usual places of users or items."""
    answers = []
    for time in timed[:2]:
        rest = [name for name in frame.columns if name not in timed] or [name for name in frame.columns if name != time]
        for pair in list(permutations(rest[:_OFFERED], min(2, len(rest))))[: 2 * _OFFERED]:
            settings = {"user": pair[0], "item": pair[-1], "time": time}
            settings = {meaning: column for meaning, column in settings.items() if meaning in meanings}
            text = ", ".join(f"{column} is the {meaning}" for meaning, column in settings.items())
            answers.append(Answer(settings, text))
    what = (
        f"column {timed[0]} holds times (such as {_example(frame[timed[0]])}), so the columns are not user, item, ... "
        "in this order: say which is which"
    )
    return UnclearLogError(Doubt(what, tuple(answers[: 2 * _OFFERED]), where=table.where))


def _swapped(frame: pl.DataFrame) -> bool:
    """Whether the first column contains product codes and the second user codes, as in Amazon's later files."""
    first, second = (frame[name].drop_nulls() for name in frame.columns[:2])
    if first.dtype != pl.String or second.dtype != pl.String or not len(first) or not len(second):
        return False
    return bool(first.str.contains(_PRODUCT).all()) and bool(second.str.contains(_PERSON).all())


def _refuse_unnamed_time(table: Table, taken: set[str]) -> None:
    """Without a usual name for the time, columns whose values are times must be named or declined."""
    others = [name for name in table.names if name not in taken]
    if not others or table.positional:
        return
    frame = sample(table, others)
    timed = [name for name in others if _is_time(frame[name])]
    if timed:
        shown = ", ".join(f"{name} (such as {_example(frame[name])})" for name in timed[:_OFFERED])
        answers = [Answer({"time": name}, f"{name} is the time") for name in timed[:_OFFERED]]
        answers.append(Answer({"time": NONE}, "no column: the order of rows is the order of events"))
        what = f"which column is the time? These hold times: {shown}; or --time - for the order of rows"
        raise UnclearLogError(Doubt(what, tuple(answers), where=table.where))
