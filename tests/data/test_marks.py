"""The split that the data states: a feature of the events, or three files."""

import polars as pl
import pytest

from ensue.data.interactions import Columns
from ensue.data.prepare import prepare
from ensue.data.split import SplitConfig, make_split
from ensue.errors import DataError

MARKS = ["train", "train", "validation", "test", "test", "train", "train", "test"]
LOG = pl.DataFrame(
    {"user": ["a"] * 5 + ["b"] * 3, "item": range(1, 9), "time": range(8), "split": MARKS, "fold": MARKS}
)


def histories(cases):
    items = cases.store.items
    return [
        (items[a:b].tolist(), int(items[t]))
        for a, b, t in zip(cases.start_B, cases.stop_B, cases.target_B, strict=True)
    ]


@pytest.mark.parametrize("feature", ["split", "fold"])
def test_marked_events_train_or_are_asked_for_after_those_before_them(feature):
    store = prepare(LOG, columns=Columns(features=(feature,)))[0]
    name = None if feature == "split" else feature
    split = make_split(store, SplitConfig(split="predefined", split_feature=name))
    assert split.train.items_P.tolist() == [1, 2, 6, 7]
    assert histories(split.validation) == [([1, 2], 3)]
    assert histories(split.test) == [([1, 2, 3], 4), ([1, 2, 3, 4], 5), ([6, 7], 8)]
    last = make_split(store, SplitConfig(split="predefined", split_feature=name, targets="last"))
    assert [target for _, target in histories(last.test)] == [5, 8]


def test_three_files_are_a_split(tmp_path):
    for name, mark in (("x.test.csv", "test"), ("x.train.csv", "train"), ("x.valid.csv", "validation")):
        LOG.filter(pl.col("split") == mark).select("user", "item", "time").write_csv(tmp_path / name)
    split = make_split(prepare(tmp_path)[0], SplitConfig(split="predefined"))
    assert histories(split.test) == [([1, 2, 3], 4), ([1, 2, 3, 4], 5), ([6, 7], 8)]


def test_parts_out_of_order_and_other_words_are_refused():
    columns = Columns(features=("split",))
    turned = LOG.with_columns(time=pl.when(pl.col("user") == "b").then(-pl.col("time")).otherwise("time"))
    store = prepare(turned, columns=columns)[0]
    with pytest.raises(DataError, match="1 of 2 users have parts out of order, such as 'b' with a training event"):
        make_split(store, SplitConfig(split="predefined"))
    other = prepare(LOG.with_columns(split=pl.lit("dev")), columns=columns)[0]
    with pytest.raises(DataError, match=r"must be train, validation or test \(got 'dev'"):
        make_split(other, SplitConfig(split="predefined"))
    with pytest.raises(DataError, match="split"):
        make_split(prepare(LOG)[0], SplitConfig(split="predefined"))
