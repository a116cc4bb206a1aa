"""Rows chosen by value: and, or, not, parentheses, missing values, exact numbers."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest

from ensue.data.interactions import Columns, read_interactions
from ensue.data.where import parse_where
from ensue.errors import ConfigError, DataError

LOG = pl.DataFrame(
    {
        "user": ["u"] * 6,
        "item": [1, 2, 3, 4, 5, 6],
        "event": ["buy", "view", "buy", "cart", None, "not"],
        "price": ["3", "9", " 12", None, "20", "free"],
        "big": [9007199254740992, 9007199254740993, 1, 2, 3, 4],
        "long": [1234567890123456789, 1234567890123456790, 1, 2, 3, 4],
        "text": ["18446744073709551615", "18446744073709551614", "1", "2", "3", "4"],
        "not": [0, 1, 0, 1, 0, 1],
    }
)


def kept(where: str) -> list[int]:
    return read_interactions(LOG, Columns(where=where)).frame["item"].to_list()


@pytest.mark.parametrize(
    ("where", "items"),
    [
        ("event == 'buy' or price > 8", [1, 2, 3, 5]),
        ("event == 'buy' and price > 8 or event == 'cart'", [3, 4]),
        ("event == 'buy' and (price > 8 or event == 'cart')", [3]),
        ("(event=='buy'OR event=='view')AND(price<=9)", [1, 2]),
        ("not (event == 'buy' or event == 'cart')", [2, 6]),
        ("not event in ('buy', 'cart')", [2, 6]),
        ("event not in ('buy', 'cart')", [2, 6]),
        ("not not event = 'buy'", [1, 3]),
        ("not price > 8", [1]),  # a missing price satisfies neither a condition nor its negation
        ("not price > 8 or event == 'not'", [1, 6]),
        ("price in (9, '12', ' 12')", [2, 3]),
        ("price not in (9, 'free')", [1, 3, 5]),
        ("big == 9007199254740993", [2]),
        ("big not in (9007199254740993, 1)", [1, 4, 5, 6]),
        ("long == 1234567890123456789", [1]),
        ("text in (18446744073709551614, 4)", [2, 6]),
        ("text >= 18446744073709551615", [1]),
        ("not == 1 and `not` in (1)", [2, 4, 6]),
    ],
)
def test_conditions_are_combined_as_in_sql(where, items):
    assert kept(where) == items


def test_the_dropped_rows_name_the_whole_condition():
    where = "event == 'buy' or event == 'view'"
    assert read_interactions(LOG, Columns(where=where)).dropped == {f"not ({where})": 3}


@pytest.mark.parametrize(
    "where",
    ["event buy", "event == 'buy' or", "(event == 'buy'", "event == 'buy')", "event == 'buy' xor price > 1",
     "or event == 'buy'", "price > 5x", "price > 5.5.5", "not", "()", "event == buy", "price > 5 and", "event in ()"],
)  # fmt: skip
def test_what_cannot_be_read_is_shown(where):
    with pytest.raises(ConfigError, match=r"where: (cannot read ['\"].|the text ends too early)"):
        parse_where(where)


@pytest.mark.parametrize("where", ["", " ", "(event == 'buy'", "event == 'buy' and "])
def test_a_text_that_ends_too_early_is_said_to(where):
    with pytest.raises(ConfigError, match="where: the text ends too early: write column"):
        parse_where(where)


def test_conditions_nested_too_deeply_are_refused():
    assert kept("(" * 40 + "event == 'cart'" + ")" * 40) == [4]
    with pytest.raises(ConfigError, match="more than 50 parentheses"):
        parse_where("(" * 20_000 + "event == 'cart'" + ")" * 20_000)
    with pytest.raises(ConfigError, match="more than 50 parentheses"):
        parse_where("not " * 20_000 + "event == 'cart'")


def test_columns_of_dates_are_compared_with_dates():
    times = [datetime(2020, 1, 1), datetime(2020, 1, 1, 12), datetime(2021, 1, 1)]
    log = pl.DataFrame({"user": ["a"] * 3, "item": [1, 2, 3], "time": times, "day": [time.date() for time in times]})

    def kept(where: str) -> list[int]:
        return read_interactions(log, Columns(where=where)).frame["item"].to_list()

    assert kept("time == '2020-01-01'") == kept("time <= '2020-01-01T00:00'") == [1]
    assert kept("time > '2020-01-01 11:00' and day in ('2020-01-01', '2021-01-01')") == [2, 3]
    for value in ("5", "'soon'"):
        with pytest.raises(DataError, match="where: column 'time' contains dates: write one such as"):
            kept(f"time > {value}")


def test_columns_of_other_types_are_refused_in_one_line():
    log = pl.DataFrame(
        {"user": ["a"], "item": [1], "for": [timedelta(1)], "kind": pl.Series(["x"], dtype=pl.Categorical)}
    )
    with pytest.raises(DataError, match="where: column 'for' contains Duration"):
        read_interactions(log, Columns(where="for == 'x'"))
    with pytest.raises(DataError, match="where: column 'kind' contains Categorical"):
        read_interactions(log, Columns(where="kind > 5"))
    with pytest.raises(DataError, match="no column 'evnt' for the condition: did you mean 'event'"):
        kept("price > 3 or evnt == 'buy'")
