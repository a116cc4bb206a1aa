"""A first column that numbers the rows, such as the index of pandas, is not taken for users."""

from __future__ import annotations

import pandas as pd
import pytest

from ensue.data.doubt import UnclearLogError
from ensue.data.interactions import Columns, read_interactions

USERS, ITEMS = [7, 8, 9] * 6, [5, 6] * 9
TIMES = [1_600_000_000 + second for second in range(18)]
LOG = pd.DataFrame({"user": USERS, "item": ITEMS, "time": TIMES})


def flags(path) -> str:
    with pytest.raises(UnclearLogError) as caught:
        read_interactions(path)
    return caught.value.flags


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_row_numbers_without_a_name_are_not_users(write, first, separator):
    log = LOG.assign(rating=4.5)[["user", "item", "rating", "time"]]
    log.index += first
    for frame in (log, log.drop(columns="rating")):
        read = read_interactions(write(frame.to_csv(header=False, sep=separator), "log.txt"))
        assert (read.frame["user"].to_list(), read.frame["item"].to_list()) == (USERS, ITEMS)
        assert read.frame["time"][1] == TIMES[1] * 10**6
        assert read.notes[0].startswith("column 1 numbers the rows and is not read")
    assert read.settings["user"] == "2"


def test_row_numbers_with_a_name_of_the_program_are_not_offered(write):
    for name in ("", "Unnamed: 0", "index"):
        assert flags(write(LOG.set_axis(["a", "b", "c"], axis=1).to_csv(index_label=name))) == "--user a --item b"
    assert read_interactions(write(LOG.to_csv())).columns["user"] == "user"


def test_numbers_that_may_be_rows_or_users_are_in_doubt(write):
    filtered = write(LOG[LOG["user"] != 8].to_csv(header=False))
    assert flags(filtered) == "--user 2 --item 3"
    assert read_interactions(filtered, Columns(user="1")).frame["user"].to_list()[:3] == [0, 2, 3]
    assert flags(write(LOG.drop(columns="time").to_csv(header=False))) == "--user 2 --item 3"


def test_a_first_line_of_column_numbers_is_no_event(write):
    numbered = LOG.set_axis([0, 1, 2], axis=1)
    assert flags(write(numbered.to_csv())) == "--user 0 --item 1"
    plain = write(numbered.to_csv(index=False))
    assert flags(plain) == "--header"
    named = Columns(header=True, user="0", item="1", time="2")
    assert read_interactions(plain, named).frame["user"].to_list() == USERS
    assert read_interactions(plain, Columns(header=False, time="3")).rows_in == 19


def test_users_in_order_are_users(write):
    for text in ("".join(f"{n // 2},{n % 5},{TIMES[n]}\n" for n in range(18)), "0,5,1600000001\n1,6,1600000002\n"):
        read = read_interactions(write(text))
        assert (read.columns["user"], read.notes) == ("1", ())
