"""How a text file is written can be stated: separators, lines to skip, comments, decimal commas, encodings."""

import gzip

import pytest

from ensue.data.interactions import Columns, read_interactions
from ensue.data.prepare import prepare
from ensue.errors import ConfigError, DataError


def rows(path, **columns):
    return read_interactions(path, Columns(**columns)).frame.select("user", "item").rows()


@pytest.mark.parametrize("separator", ["^", ";", "\\t", "\t", " ", "||", "§"])
def test_a_separator_is_named(write, separator):
    mark = separator.replace("\\t", "\t")
    path = write(f"user{mark}item\n1{mark}5\n2{mark}6\n")
    assert rows(path, separator=separator, header=True) == [(1, 5), (2, 6)]


def test_settings_of_separators_and_comments_are_checked():
    with pytest.raises(ConfigError, match="separator ';' and format 'tsv'"):
        Columns(separator=";", format="tsv")
    with pytest.raises(ConfigError, match="must not contain a quote or a line end"):
        Columns(separator='"')
    with pytest.raises(ConfigError, match="skip"):
        Columns(skip=-1)


TEXT = 'Report of "today\n\n# all, of it, here\nuser,item,time\n1,5,10\n#1,6,11\n2,6,12\n'


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda text: b"\xef\xbb\xbf" + text])
def test_lines_are_skipped_and_comments_left_out(write, pack):
    path = write(pack(TEXT.encode()))
    log = read_interactions(path, Columns(skip=1, comment="#"))
    assert (log.rows_in, log.frame["item"].to_list()) == (2, [5, 6])
    assert log.settings["skip"] == 1
    assert prepare(path, columns=Columns.parse(log.settings))[0].num_events == 2


def test_messages_count_the_lines_of_the_file(write):
    path = write(TEXT + "3,7\n4,8\n5\n")
    with pytest.raises(DataError, match="the first is line 8: '3,7'"):
        read_interactions(path, Columns(skip=1, comment="#"))
    path = write(TEXT.replace("2,6,12", '2,"6,12'))
    with pytest.raises(DataError, match="line 7 opens a quote"):
        read_interactions(path, Columns(skip=1, comment="#"))


def test_other_forms_skip_lines_too(write):
    assert rows(write("x y\n% c\n1 5\n2 6\n", "log.txt"), skip=1, comment="%", format="space") == [(1, 5), (2, 6)]
    json = write('// made today\n{"user":1,"item":5}\n// {"user":1,"item":6}\n{"user":"x"\n', "log.jsonl")
    with pytest.raises(DataError, match="line 4 is not JSON"):
        rows(json, comment="//")
    assert rows(write('# c\n{"user":1,"item":5}\n', "log.jsonl"), comment="#") == [(1, 5)]
    tsv = "# c\nuser_id:token\titem_id:token\n1\t5\n"
    assert rows(write(tsv, "log.inter"), comment="#") == [(1, 5)]


def test_decimal_commas_are_points_in_numbers_and_stay_in_ids(write):
    path = write("user;item;rating;time;price\n1,5;5;3,5;43770,5;1,25\n1,5;6;4;43771,25;\n")
    log = read_interactions(path, Columns(features=("price",), where="price > 1"))
    assert log.frame.select("user", "item", "rating", "price").rows() == [("1,5", 5, 3.5, 1.25)]
    assert log.notes[1] == "column 'rating' has decimal commas: '3,5' is read as 3.5"
    assert log.frame["time"][0] == 1_572_609_600 * 10**6
    words = write("user\titem\tkind\n1\t5\ta,b\n1\t6\t1,2\n", "log.tsv")
    assert read_interactions(words, Columns(features=("kind",))).frame["kind"].to_list() == ["a,b", "1,2"]
