"""Logs that could be read in a wrong way without a word: each is read right, in doubt, refused or noted."""

from __future__ import annotations

import gzip

import polars as pl
import pytest

from ensue.data.doubt import UnclearLogError
from ensue.data.ids import refuse_lists
from ensue.data.interactions import Columns, Interactions, read_interactions
from ensue.data.moments import add_clock, written
from ensue.data.table import Table
from ensue.errors import DataError

START = 1_600_000_000


def log_of(write, times, name="time") -> Interactions:
    rows = "".join(f"u{n % 3},i{n % 5},{time}\n" for n, time in enumerate(times))
    return read_interactions(write(f"user,item,{name}\n{rows}"))


@pytest.mark.parametrize("form", ["{:02d}/01/20", "{}-Jan-20", "{:02d}.01.20"])
def test_years_of_two_digits_are_no_years_of_the_first_century(write, form):
    with pytest.raises(DataError, match="most of the log cannot be used: 100%"):
        log_of(write, [form.format(day) for day in range(1, 20)])


def test_dates_of_both_orders_are_in_doubt(write):
    with pytest.raises(UnclearLogError, match="dates of both orders: '09/14/2020' is month/day/year, '13/09/2020'"):
        log_of(write, ["13/09/2020", "09/14/2020", "05/06/2020"])
    one_wrong = log_of(write, ["13/09/2020"] * 150 + ["09/14/2020"])
    assert (one_wrong.time_unit, one_wrong.dropped) == ("date, day first", {"unreadable time": 1})


@pytest.mark.parametrize(
    ("times", "note"),
    [
        ([0, START, START + 1] * 5, "5 times are within a year of 1970, the first in row 1"),
        ([START, 20200913, START + 1] * 5, "5 times are within a year of 1970, the first in row 2"),
        ([(START + n) * 10**4 for n in range(9)], "all times are between 2477"),
        ([(START + 62_135_596_800 + n) * 10**7 for n in range(9)], "all times are between 1990"),  # ticks of .NET
        ([(START + 11_644_473_600 + n) * 10**6 for n in range(9)], "all times are between 2389"),  # since 1601
    ],
)
def test_times_of_other_decades_are_noted(write, times, note):
    assert log_of(write, times).notes[0].startswith(note)


@pytest.mark.parametrize(
    "times", [[20200101 + n for n in range(20)], [8 * 10**8 + n for n in range(20)], ["2020-01-01"] * 20]
)
def test_a_column_of_times_without_a_usual_name_is_in_doubt(write, times):
    with pytest.raises(UnclearLogError, match="which column is the time"):
        log_of(write, times, name="seen")


def test_numbers_that_are_dates_are_no_users(write):
    rows = "".join(f"202001{n + 1:02d},{n % 3},{n % 5}\n" for n in range(20))
    with pytest.raises(UnclearLogError, match="column 1 holds times"):
        read_interactions(write(rows))


@pytest.mark.parametrize(
    ("clocks", "second"),
    [
        ([0, 9, 23], 9 * 3600),
        ([0, 930, 2359], 34_200),
        (["0000", "0930", "2359"], 34_200),
        ([0, 93_015, 235_959], 34_215),
        ([0, 34_200, 86_399], 34_200),
        ([0, 34_200_000, 86_399_000], 34_200),
        (["00:00", "9:30", "23:59"], 34_200),
    ],
)
def test_times_of_day_of_many_forms(clocks, second):
    times, _ = add_clock(pl.Series(["2020-01-01"] * 3), pl.Series(clocks))
    assert times[1] - times[0] == second * 10**6


def test_dates_beside_times_of_day_are_joined_or_in_doubt(write):
    log = read_interactions(write("user,item,date,time\n1,5,2020-01-01,10:30:15\n1,6,2020-01-02,9:00\n"))
    assert written(log.frame["time"][0] // 10**6) == "2020-01-01T10:30:15Z"
    assert (log.columns["time"], log.settings["clock"]) == ("date", "time")
    with pytest.raises(UnclearLogError) as caught:
        read_interactions(write("user,item,date,time\n1,5,2020-01-01,1030\n1,6,2020-01-02,0900\n"))
    assert caught.value.flags == "--time date --clock time"
    with pytest.raises(UnclearLogError, match="may hold times of day"):
        read_interactions(write("user,item,date,day,time\n1,5,2020-01-01,2020-01-02,10:30\n"))


def test_a_time_by_name_beside_one_by_values_is_in_doubt(write):
    with pytest.raises(UnclearLogError) as caught:
        read_interactions(write("user,item,time,timestamp\n1,2,5,1600000000\n1,3,4,1600000001\n"))
    assert caught.value.flags == "--time timestamp"
    assert read_interactions(write("user,item,time,seen\n1,2,5,1600000000\n1,3,4,1600000001\n")).time_unit == "s"


def test_an_array_of_json_objects_is_read_as_written(write):
    text = (
        '[{"user": 9007199254740993, "item": "a",\n "time": 5}, {"user": 9007199254740992, "item": "b}]", "time": 6}]'
    )
    for content in (text, "\ufeff" + text, gzip.compress(text.encode())):
        log = read_interactions(write(content, "log.json"))
        assert log.frame.select("user", "item").rows() == [(9007199254740993, "a"), (9007199254740992, "b}]")]
    for cut in (text[:-30], text[:-1], text + "x"):
        with pytest.raises(DataError, match=r"line [23] is not JSON"):
            read_interactions(write(cut, "log.json"))
    with pytest.raises(DataError, match="line 2: 'user' is a number"):
        read_interactions(write('[{"user":"7","item":1},{"user":7,"item":2}]', "log.json"))


def test_names_in_another_order_within_a_log_are_refused(write):
    text = "user,item,time\n1,5,1600000000\nItem,User,time\n5,2,1600000001\nitem,time,user\n5,1600000002,3\n"
    with pytest.raises(DataError, match="row 2 names the columns in another order than the first line"):
        read_interactions(write(text))


@pytest.mark.parametrize("mark", [";", "|", " ", ","])
def test_lists_of_one_length_are_told_from_composite_ids(mark):
    table = Table(pl.LazyFrame(), [], "log.csv")
    lists = pl.Series([f"i{n % 5}{mark}i{(n + 1) % 5}" for n in range(20)])
    with pytest.raises(DataError, match="contains lists"):
        refuse_lists(lists, "item", table)
    refuse_lists(pl.Series([f"shop{n % 2}{mark}i{n % 5}" for n in range(20)]), "item", table)


def test_blanks_after_every_separator_are_no_part_of_a_field(write):
    rows = "".join(f"u{n % 3}, i{n % 5}, {START + n}\n" for n in range(20))
    for head in ("user,item,time\n", ""):
        log = read_interactions(write(head + rows))
        assert log.frame["item"][0] == "i0"
    assert read_interactions(write("user,item\nu, a\nu,b\n")).frame["item"].to_list() == [" a", "b"]


def test_odd_ids_are_noted(write):
    short = read_interactions(write("user,item\nu,1.23457E+12\nu,1.23458E+12\n")).notes
    assert short[0].startswith("2 item ids, such as '1.23457E+12', are numbers shortened by a spreadsheet")
    assert read_interactions(write("user,item\nu,a\n ,b\n")).notes[0].startswith("1 events have a blank as their user")
    unknown = read_interactions(write("user,item\n-1,a\n2,b\n-1,c\n")).notes[0]
    assert unknown.endswith('(--where "COLUMN != -1")')


def test_features_and_conditions_need_no_types_of_recbole(write):
    path = write("user_id:token\titem_id:token\tkind:token\nu\ta\tbuy\nu\tb\tview\n", "log.inter")
    assert read_interactions(path, Columns(where="kind == 'buy'")).frame["item"].to_list() == ["a"]
