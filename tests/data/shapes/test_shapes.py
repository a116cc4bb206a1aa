"""Every shape: an invented sample in the published form, read without a flag."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from shape_samples import DIGINETICA, MIND, SAMPLES, TRIVAGO

from ensue.data.interactions import Columns
from ensue.data.prepare import prepare
from ensue.data.shape import SHAPES
from ensue.data.store import SequenceStore
from ensue.errors import DataError


def histories(store):
    rows = zip(store.users.ids, store.offsets, store.offsets[1:], strict=False)
    return {user: store.item_ids.decode(store.items[start:stop]) for user, start, stop in rows}


@pytest.mark.parametrize(("name", "text", "shape", "expected"), SAMPLES, ids=[sample[0] for sample in SAMPLES])
def test_a_published_shape_is_read_without_a_flag(tmp_path, name, text, shape, expected):
    path = tmp_path / Path(name).name
    path.write_text(text, encoding="utf-8")
    store, report = prepare(path)
    assert report.shape.split(":")[0] == shape
    assert histories(store) == expected
    assert report.rows_in == report.interactions + sum(report.dropped.values())


def test_every_registered_shape_has_a_sample():
    assert set(SHAPES) == {shape for _, _, shape, _ in SAMPLES} - {""} | {"mind-impressions"}


def test_impressions_of_mind_are_read_if_stated(tmp_path):
    path = tmp_path / "behaviors.tsv"
    path.write_text(MIND + "4\tU2\t11/13/2019 1:05:58 AM\tN1\tN7 N8-1\n5\tU2\t11/13/2019 2:05:58 AM\tN1\t\n")
    store, report = prepare(path, columns=Columns(shape="mind-impressions", features=("clicked",)))
    assert report.shape.startswith("mind-impressions: ")
    assert histories(store) == {"U1": ["N5", "N3", "N4"], "U2": ["N1", "N2", "N7", "N8"]}
    # N7 is written as in the test file, which does not say what was clicked.
    assert store.feature_values["clicked"].ids.to_list() == [0, 1]
    assert store.features["clicked"].tolist() == [2, 1, 2, 2, 1, 0, 2]
    assert store.times[:3].tolist() == [1573459558, 1573506358, 1573506358]
    clicks = prepare(path, columns=Columns(shape="mind-impressions", where="clicked == 1"))[0]
    assert histories(clicks) == {"U1": ["N5", "N4"], "U2": ["N1", "N8"]}
    path.write_text("user,item,time\na,x,1\n")
    with pytest.raises(DataError, match=r"does not have the shape mind-impressions"):
        prepare(path, columns=Columns(shape="mind-impressions"))


# File of a sample -> the column of its kinds of events, their values in the order of the store, and one of them.
KINDS = {
    "sessions.jsonl": ("type", ["clicks", "carts", "clicks"], "clicks"),
    "yoochoose-clicks.dat": ("4", ["S", "0", "0"], "S"),
    "events.csv": ("event", ["transaction", "view"], "view"),
    "train.csv": ("action_type", ["clickout item", "interaction item image"], "clickout item"),
    "user_log_format1.csv": ("action_type", [2, 0], 2),
    "ijcai2016_taobao.csv": ("act_ID", [1, 0], 1),
    "tianchi_2014002_rec_tmall_log.csv": ("action", ["cart", "click"], "cart"),
    "(sample)sam_tianchi_2014002_rec_tmall_log.csv": ("action", ["cart", "click"], "cart"),
    "tianchi_2014002_rec_tmall_log_partc.txt": ("3", ["alipay", "click", "collect"], "alipay"),
    "tianchi_mobile_recommend_train_user.csv": ("behavior_type", [4, 1], 4),
    "UserBehavior.csv": ("4", ["buy", "pv", "fav"], "buy"),
    "log_standard_4_22_to_5_08_pure.csv": ("is_click", [0, 1], 1),
    "out.signed": ("3", [1, -1], -1),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_events_are_kept_or_chosen(tmp_path, name):
    column, kinds, one = KINDS[name]
    path = tmp_path / name
    path.write_text(next(text for file, text, _, _ in SAMPLES if file == name))
    prepare(path, columns=Columns(features=(column,)))[0].save(tmp_path / "store")
    store = SequenceStore.open(tmp_path / "store")
    codes, words = store.features[column], store.feature_values.get(column)
    assert (codes.tolist() if words is None else words.decode(codes)) == kinds
    chosen = prepare(path, columns=Columns(where=f"{column} == {one!r}"))[0]
    assert chosen.num_events == kinds.count(one)
    assert set(chosen.item_ids.ids) == {
        item for item, kind in zip(store.item_ids.decode(store.items), kinds, strict=True) if kind == one
    }


@pytest.mark.parametrize(
    "text",
    [
        "user,item,time\na,x,1\nb,y,2\n",
        "1 10 5\n2 20 6\n3 30 7\n",
        "a b\nc d\n",
        "user,item\na,b\nc,d,e,f\n",
        "user,item,note\na,x,[hello]\nb,y,plain\n",
        "1,2,3,4\n5,6,7,8\n",
    ],
)
def test_other_logs_are_of_no_shape(tmp_path, text):
    from ensue.data.logs import open_log
    from ensue.data.table import Reading

    path = tmp_path / "log.txt"
    path.write_text(text)
    assert open_log(path, Reading()).shape == ""


def test_lists_of_parquet_and_frames_are_read(tmp_path):
    frame = pl.DataFrame({"user_id": ["a", "b"], "item_seq": [[3, 1], [2]], "time_seq": [[20, 10], [5]]})
    frame.write_parquet(tmp_path / "lists.parquet")
    for source in (tmp_path / "lists.parquet", frame):
        store, report = prepare(source)
        assert report.shape.startswith("sequences: a list of items in item_seq, times in time_seq")
        assert histories(store) == {"a": [1, 3], "b": [2]}


def test_a_column_that_the_user_names_comes_before_the_shape(tmp_path):
    path = tmp_path / "views.csv"
    path.write_text(DIGINETICA)
    assert "NA" in histories(prepare(path, columns=Columns(user="userId"))[0])


def test_dropped_rows_are_counted_by_the_reasons_of_the_shape(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(TRIVAGO)
    assert prepare(path)[1].dropped == {"missing item": 1}
    path.write_text("1:\n14,3,2005-09-06\n15,3,2005-09-06\n15,5\n")
    assert prepare(path)[1].dropped == {"malformed row": 1}


SEPARATED = [sample for sample in SAMPLES if not sample[0].endswith(("json", "jsonl")) and sample[0] != "sequences.txt"]


@pytest.mark.parametrize(("name", "text", "shape", "expected"), SEPARATED, ids=[sample[0] for sample in SEPARATED])
@pytest.mark.parametrize("kind", ["a field more", "a field less", "one word", "blank"])
def test_a_row_of_another_number_of_fields_does_not_change_the_shape(tmp_path, name, text, shape, expected, kind):
    lines = text.rstrip("\n").split("\n")
    lines += [lines[-1]] * (9 - len(lines))
    mark = next(mark for mark in ("::", "\t", ";", ",", " ") if mark in lines[-1])
    fields = lines[-1].split(mark)
    odd = {"a field more": [*fields, "9"], "a field less": fields[:-1], "one word": ["x"], "blank": []}[kind]
    path = tmp_path / Path(name).name
    path.write_text("\n".join([*lines[:-1], mark.join(odd), lines[-1]]) + "\n", encoding="utf-8")
    report = prepare(path)[1]
    assert report.shape.split(":")[0] == shape
    assert report.dropped.get("malformed row", 0) == (kind != "blank")
    assert report.rows_in == report.interactions + sum(report.dropped.values())


def test_the_line_of_an_unusable_row_is_named_only_where_lines_are_rows(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("1:\n14,3,2005-09-06\n15\n16\n17\n")
    with pytest.raises(DataError, match=r"the first is row 2\."):
        prepare(path)
