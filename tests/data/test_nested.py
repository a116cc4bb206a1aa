"""Sequences as lists: what is read, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from ensue.data.nested import frame_of_lists
from ensue.errors import ConfigError, DataError
from ensue.reading import read


@pytest.mark.parametrize(
    ("lists", "items"),
    [
        ([[1, 2], [], [2, 1, 2]], [1, 2, 2, 1, 2]),
        (((3, 1), ("4",) * 0), [3, 1]),
        ([["b", "a"], ["a"]], ["b", "a", "a"]),
        ([np.array([5, 7]), [5]], [5, 7, 5]),
        (np.array([[1, 2], [3, 4]]), [1, 2, 3, 4]),
        ([np.array(["x", "y"])], ["x", "y"]),
        ([pl.Series([1, 2]), (item for item in (3,))], [1, 2, 3]),
        ([[2**63 - 1, -(2**63)]], [2**63 - 1, -(2**63)]),
    ],
)
def test_lists_become_events_in_their_order(lists: Any, items: list[Any]) -> None:
    assert frame_of_lists(lists)["item"].to_list() == items


def test_the_user_of_a_list_is_its_place() -> None:
    store = read([[7, 8, 7], [], [8]])
    assert store.users.decode([1, 2]) == [0, 2]
    assert store.items.tolist() == [1, 2, 1, 2]
    assert store.item_ids.decode([1, 2]) == [7, 8]
    assert store.times is None


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([1, 2, 3], r"\[\[1, 2, 3\], \[1, 4\]\], but entry 0 is 1"),
        ([[1], "ab"], "entry 1 is 'ab'"),
        ([{"user": 1}], "entry 0 is {'user': 1}"),
        ([{1, 2}], "entry 0 is {1, 2}"),
        ([None], "entry 0 is None"),
        ([[1], [2, 1.5]], "list 1 has 1.5 at place 1"),
        ([[1, None]], "list 0 has None at place 1"),
        ([[True]], "list 0 has True at place 0"),
        ([[[1]]], r"list 0 has \[1\] at place 0"),
        ([[1], ["1"]], "the first is 1 and list 1 has '1'"),
        ([["a"], [1]], "the first is 'a' and list 1 has 1"),
        ([[2**63]], "64 bits"),
        ([["a", ""]], "empty string"),
        ([], "no events: 0 lists"),
        ([[], []], "no events: 2 lists"),
    ],
)
def test_other_lists_are_refused(lists: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        frame_of_lists(lists)


def test_lists_have_filters_but_no_columns() -> None:
    assert read([[1, 2], [2]], min_item_events=2).num_items == 1
    with pytest.raises(ConfigError, match="leave out user"):
        read([[1, 2]], user="userId")
