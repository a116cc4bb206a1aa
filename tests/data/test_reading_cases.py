"""Logs as people have them: each was once read wrongly without a word."""

import bz2
import lzma
import zlib
from decimal import Decimal

import polars as pl
import pytest

from ensue.data.doubt import UnclearLogError
from ensue.data.interactions import Columns, read_interactions
from ensue.data.moments import to_microseconds, written
from ensue.data.prepare import prepare
from ensue.errors import ConfigError, DataError


def items(path, **columns):
    return read_interactions(path, Columns(**columns)).frame["item"].to_list()


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("20191230", "2019-12-30T00:00:00Z"),
        ("2019123023", "2019-12-30T23:00:00Z"),
        ("201912302359", "2019-12-30T23:59:00Z"),
        ("20191230235958", "2019-12-30T23:59:58Z"),
        ("43770.5", "2019-11-01T12:00:00Z"),
        ("11/13/2019 9:05:58 AM", "2019-11-13T09:05:58Z"),
        ("13.11.2019 9:05", "2019-11-13T09:05:00Z"),
        ("Tue Apr 03 18:00:09 +0000 2012", "2012-04-03T18:00:09Z"),
        ("04 May 2009, 23:08", "2009-05-04T23:08:00Z"),
        ("Nov 5, 2011", "2011-11-05T00:00:00Z"),
        ("03/Apr/2012:18:00:09 +0200", "2012-04-03T16:00:09Z"),
        (" 1570015111", "2019-10-02T11:18:31Z"),
        (Decimal("1570015111.9"), "2019-10-02T11:18:31Z"),
    ],
)
def test_times_of_many_forms(value, moment):
    assert written(to_microseconds(pl.Series("t", [value]))[0][0] // 1_000_000) == moment


@pytest.mark.parametrize("values", [["0831", "0901"], ["01/02/2019", "02/03/2019"], [43770, 43771]])
def test_times_that_can_be_read_two_ways_are_refused(values):
    with pytest.raises(UnclearLogError):
        to_microseconds(pl.Series("t", values))


def test_dates_beyond_the_range_are_unreadable():
    for values in (["99999-01-01"], ["+200000-12-31"]):
        assert to_microseconds(pl.Series("t", values))[0].to_list() == [None]


def test_a_form_a_zone_and_a_clock_can_be_named(write):
    path = write("user,item,date,hour\n1,5,31/12/2019,10:00\n1,6,31/12/2019,09:30\n")
    store = prepare(path, columns=Columns(time="date", clock="hour", time_format="%d/%m/%Y", time_zone="Europe/Paris"))[
        0
    ]
    assert [written(time) for time in store.times] == ["2019-12-31T08:30:00Z", "2019-12-31T09:00:00Z"]
    with pytest.raises(ConfigError, match="unknown time_zone 'Mars'"):
        Columns(time_zone="Mars")


def test_rows_are_chosen_by_value(write):
    path = write("user,item,event,price\n1,5,buy,3\n1,6,view,9\n1,7,buy,12\n1,8,buy,\n")
    assert items(path, where="event == 'buy' and price > 5") == [7]
    assert items(path, where="event in ('view', 'cart')") == [6]
    assert read_interactions(path, Columns(where="price <= 9")).dropped == {"not price <= 9": 2}


def test_columns_are_recognised_by_their_values(write):
    rows = "".join(f"{n // 3},2014-04-07T10:51:0{n}.277Z,21{n % 3}\n" for n in range(1, 7))
    with pytest.raises(UnclearLogError, match="column 2 holds times") as caught:
        read_interactions(write(rows))
    assert caught.value.flags == "--user 1 --item 3 --time 2"
    amazon = write("B00YQ6X8EO,A2SUAM1J3GNN3B,5,1570015111\n0001713353,A3BUAM1J3GNN3C,4,1570015112\n")
    assert read_interactions(amazon).columns["item"] == "1"
    with pytest.raises(UnclearLogError, match="which column is the time") as caught:
        read_interactions(write("user,item,seen\n1,5,2019-10-03\n"))
    assert caught.value.flags == "--time seen"
    assert read_interactions(write("user_id:token\titem_id:token\ttimestamp:float\n7,2,1\n".replace(",", "\t"))).columns
    with pytest.raises(UnclearLogError) as caught:
        read_interactions(write("sessionId,userId,itemId\n1,NA,5\n2,NA,6\n3,7,8\n"))
    assert caught.value.flags == "--user sessionId"


def test_repeated_headers_and_dropped_rows_decide_nothing(write):
    log = read_interactions(write("user,item,time\n1,5,10\nuser,item,time\n2,6,11\nTotal,2,\n"))
    assert log.frame["user"].to_list() == [1, 2]
    assert log.dropped == {"repeated header": 1, "missing time": 1}


def test_lists_blanks_and_other_units_are_reported(write):
    lists = write('user,item\n1,"[5, 6]"\n2,"[7]"\n')
    assert items(lists) == [5, 6, 7]
    with pytest.raises(DataError, match="contains lists"):
        items(lists, format="csv")
    assert items(write("user, item, time\n1, 5, 10\n")) == [5]
    assert (
        "differ from another id only in surrounding blanks"
        in read_interactions(write("user,item\n1,a\n1, a\n")).notes[0]
    )
    with pytest.raises(DataError, match="times in two units: 1600000001000 in row 2 is in milliseconds"):
        read_interactions(write("user,item,time\n1,1,1600000000\n1,2,1600000001000\n1,3,1600000002\n"))


def test_ties_of_a_log_that_runs_backwards_are_turned():
    log = pl.DataFrame({"user": [1] * 6, "item": list("abcdef"), "time": [1, 1, 1, 2, 2, 3]})
    forwards, backwards = prepare(log), prepare(log.reverse())
    assert forwards[0].fingerprint == backwards[0].fingerprint
    assert "from the newest event to the oldest" in backwards[1].notes[-1].replace("the source, so it runs ", "")


@pytest.mark.parametrize("pack", [zlib.compress, bz2.compress, lzma.compress])
def test_packed_files_are_read_within_a_bound(write, monkeypatch, pack):
    path = write(pack(b'user,item\n"1",5\n"2",6\n'))
    assert items(path) == [5, 6]
    monkeypatch.setattr("ensue.data.unpacking.memory", lambda: 20)
    with pytest.raises(DataError, match="unpacks to more than"):
        read_interactions(path)


def test_encodings_and_files_of_other_programs(write):
    latin = write("user,item\n1,Élan\n".encode("latin-1"))
    assert items(latin, encoding="latin-1") == ["Élan"]
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        assert items(write("user,item\n1,5\n1,日本\n".encode(encoding))) == ["5", "日本"]
    with pytest.raises(DataError, match="is a binary file of unknown kind, or text in another encoding"):
        read_interactions(write(b"\x05\x00\x07\x00" * 9))
    assert items(write(b'\xef\xbb\xbf{"user":1,"item":5}\n', "log.jsonl")) == [5]
    with pytest.raises(DataError, match="SQLite database"):
        read_interactions(write(b"SQLite format 3\x00..."))
    with pytest.raises(DataError, match=r"\\x1b\[31mred"):
        read_interactions(write("\x1b[31mred,x\na,2\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"user":"true","item":1}\n{"user":true,"item":2}\n', "line 2: 'user' is no text"),
        ('{"user":"\\ud83d","item":1}\n', "half a surrogate pair"),
        ('{"user":1,"item":1}\n{"user":NaN,"item":2}\n', "line 2 is not JSON"),
    ],
)
def test_ids_of_json_lines_that_would_change_are_refused(write, text, message):
    with pytest.raises(DataError, match=message):
        read_interactions(write(text, "log.jsonl"))


def test_the_settings_of_a_log_read_a_newer_one_alike(write):
    """Each newer log alone would be read in another way."""
    old = write("user,item,time\n1,5,31/01/2019\n1,6,01/02/2019\n")
    new = write("user,item,time\n1,5,02/03/2019 10:00 AM\n", "new.csv")
    assert written(prepare(new)[0].times[0]).startswith("2019-02-03")
    alike = Columns.parse(dict(prepare(old)[0].made["columns"]))
    assert (alike.date_order, alike.separator, alike.header, alike.shape) == ("day", ",", True, "none")
    assert written(prepare(new, columns=alike)[0].times[0]).startswith("2019-03-02")

    dates = Columns.parse(dict(prepare(write("user,item,time\n1,5,20191230\n"))[0].made["columns"]))
    assert written(prepare(pl.DataFrame({"user": [1], "item": [5], "time": [20191231.0]}), columns=dates)[0].times[0])
    assert dates.time_format == "%Y%m%d"

    plain = Columns.parse(dict(prepare(write("a 5 3\nb 6 4\n", "log.txt"))[0].made["columns"]))
    ragged = write("x 5 1\ny 6 2\nz 7 3\n", "ragged.txt")
    assert items(write("1 5 6 7\n2 5\n3 6 8\n4 9\n", "lines.txt")) == [5, 6, 7, 5, 6, 8, 9]
    assert read_interactions(ragged, plain).columns["time"] == "3"

    rated = Columns.parse(dict(prepare(write("1::31::5::978300760\n", "ratings.dat"))[0].made["columns"]))
    assert rated.shape == "movielens-dat"
    with pytest.raises(DataError, match="does not have the shape movielens-dat"):
        read_interactions(write("user,item\n1,5\n"), rated)


def test_a_shape_can_be_stated_and_turned_off(write):
    lists = write('user_id,item_id\n1,"[5, 6]"\n2,"[6]"\n')
    assert items(lists) == [5, 6, 6]
    with pytest.raises(DataError, match="contains lists"):
        items(lists, shape="none")
    assert items(lists, shape="sequences") == [5, 6, 6]
    with pytest.raises(ConfigError, match="did you mean 'movielens'"):
        Columns(shape="movielense")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,time\n2019-10-03,5,1\n2019-10-04,6,2\n", "'user' has the name of the user, and holds dates"),
        ("item,user\n2019-10-03 10:00,5\n2019-10-03 10:01,6\n", "'item' has the name of the item, and holds dates"),
        (
            "userId,movieId,rating,timestamp\n1,2,1112486027,3.5\n1,3,1112484676,3\n",
            "'rating' has the name of the rating",
        ),
        ("user,item,score\n1,2,1600000000\n1,3,1600000100\n", "These hold times: score"),
        ("1 5 0.5\n1 6 0.7\n2 6 0.1\n", "column 3 holds small fractions"),
        ("user,item,time\nu,1,20190229\nu,2,20190301\nu,3,20190302\n", "2 of 3 numbers are dates"),
    ],
)
def test_values_that_contradict_names_and_places_are_in_doubt(write, text, message):
    with pytest.raises(UnclearLogError, match=message):
        read_interactions(write(text, "log.csv" if "," in text else "log.txt"))


@pytest.mark.parametrize("time", ["0", "-1", "9999999999", "20200913"])
def test_one_time_far_from_a_few_others_is_noted(write, time):
    log = read_interactions(write(f"user,item,time\n1,1,1600000000\n1,2,1600000001\n1,3,{time}\n"))
    assert "1 times are far from the rest, the first in row 3" in log.notes[0]


def test_a_large_log_in_doubt_is_refused_after_its_beginning(write, monkeypatch):
    monkeypatch.setattr("ensue.data.logs._BEGINNING", 200)
    rows = "".join(f"{n % 9},{n},2019-10-03\n" for n in range(100))
    path = write("user,item,seen\n" + rows)
    monkeypatch.setattr("ensue.data.interactions._Sifted", None)
    with pytest.raises(UnclearLogError, match="which column is the time"):
        read_interactions(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_large_log_is_read_whole(write, monkeypatch, encoding):
    monkeypatch.setattr("ensue.data.logs._BEGINNING", 201)
    path = write(
        ("user,item,time\n" + "".join(f"é{n % 9},{n},{1600000000 + n}\n" for n in range(100))).encode(encoding)
    )
    log = read_interactions(path)
    assert (log.rows_in, log.frame.height) == (100, 100)


@pytest.mark.parametrize("again", ["User,Item", " user,item", "\ufeffuser,item ", '"user","item"'])
def test_a_header_met_again_in_another_writing_is_dropped(write, again):
    log = read_interactions(write(f"user,item\n1,5\n{again}\n2,6\n"))
    assert (log.frame["user"].to_list(), log.dropped) == ([1, 2], {"repeated header": 1})


def test_quotes_after_a_blank_enclose_fields(write):
    log = read_interactions(write('"user", "item", "time"\n"1", "a ""b""", "10"\n"1", "c", "11"\n'))
    assert log.frame["item"].to_list() == ['a "b"', "c"]


@pytest.mark.parametrize("cell", ["5;6;7", '"5,6"', "5|7"])
def test_lists_without_brackets_are_refused_unless_named(write, cell):
    path = write(f"user,item\n1,{cell}\n2,5\n")
    with pytest.raises(DataError, match="column 'item' contains lists"):
        read_interactions(path)
    assert items(path, item="item") == [cell.strip('"'), "5"]


@pytest.mark.parametrize(
    "rows", ["1,[5],10\n2,[7],11\n1,[4],9", '1,"[4, 5]","[9, 10]"\n2,[7],[11]', '1,"(5,)",10\n1,(4),9\n2,(7),11']
)
def test_times_beside_lists_are_read(write, rows):
    store = prepare(write(f"user,item,time\n{rows}\n"))[0]
    assert (store.item_ids.decode(store.items), store.times.tolist()) == ([4, 5, 7], [9, 10, 11])


def test_named_lists_of_any_mark_and_typed_names_are_read(write):
    assert items(write("user,items\n1,5|6\n2,5\n")) == [5, 6, 5]
    assert items(write("user_id:int,item_id:int,timestamp:long\n1,2,1600000000\n")) == [2]
    with pytest.raises(UnclearLogError, match="which column is the user"):
        read_interactions(write("user,session,item\nguest,s1,5\nguest,s1,6\nu7,s2,5\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GIF89a,,,,\n", "is a picture"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "is a web page"),
        (b"log.csv".ljust(257, b"\0") + b"ustar" + b"\0" * 250, "is a tar archive"),
        (b"<?xml version='1.0'?>\n<a/>", "is an XML file"),
    ],
)
def test_files_that_are_no_logs_are_named(write, content, message):
    for name, packed in (("log.csv", content), ("log.csv.bz2", bz2.compress(content))):
        with pytest.raises(DataError, match=message):
            read_interactions(write(packed, name))


def test_utf32_and_invisible_characters_are_seen(write):
    assert items(write("user,item\ncafé,5\n".encode("utf-32"))) == [5]
    log = read_interactions(write("user,item\n1,5\n\ufeff1,6\n2,7\u200b\n2,7\n"))
    assert [note[:20] for note in log.notes] == ["1 user ids differ fr", "1 item ids differ fr"]
