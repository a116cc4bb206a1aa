import json
from collections import defaultdict
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensue.data import prepare as module
from ensue.data.interactions import Columns
from ensue.data.prepare import PrepareConfig, prepare
from ensue.data.store import SequenceStore
from ensue.errors import ArtefactError, ConfigError, DataError

RATINGS = st.sampled_from([None, 1.0, 3.0, 5.0])
ROWS = st.tuples(st.sampled_from("abcd"), st.integers(1, 5), st.integers(0, 6), RATINGS)
LOGS = st.lists(ROWS, min_size=1, max_size=40)
MINIMA = {"min_user_events": st.integers(1, 4), "min_item_events": st.integers(1, 4)}
OTHERS = {
    "duplicates": st.sampled_from(["keep", "first", "last"]),
    "exact_duplicates": st.sampled_from(["keep", "drop"]),
    "min_rating": st.sampled_from([None, 2.0]),
}
CONFIGS = st.one_of(
    st.builds(PrepareConfig, filter=st.sampled_from(["single", "core"]), **MINIMA, **OTHERS),
    st.builds(PrepareConfig, filter=st.just("none"), **OTHERS),
)


def frame_of(rows):
    schema = {"user": pl.String, "item": pl.Int64, "time": pl.Int64, "rating": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def sequences(store):
    """User id -> item ids in order."""
    ids = store.users.decode(range(1, store.num_users + 1))
    rows = np.split(store.items, store.offsets[1:-1])
    return {user: store.item_ids.decode(row) for user, row in zip(ids, rows, strict=True)}


def plainly(rows, config):
    """The same preparation as loops over rows."""
    rows = [(u, i, t, r, n) for n, (u, i, t, r) in enumerate(rows)]
    if config.min_rating is not None:
        rows = [row for row in rows if row[3] is not None and row[3] >= config.min_rating]
    rows.sort(key=lambda row: (row[0], row[2], row[4]))
    steps = [(one[4], two[4]) for one, two in pairwise(rows) if one[0] == two[0] and one[2] != two[2]]
    if steps and sum(two < one for one, two in steps) >= 0.9 * len(steps):  # the log runs backwards
        rows = [(*row[:4], -row[4]) for row in rows]
        rows.sort(key=lambda row: (row[0], row[2], row[4]))
    if config.exact_duplicates == "drop":
        rows = list({row[:3]: row for row in reversed(rows)}.values())[::-1]
        rows.sort(key=lambda row: (row[0], row[2], row[4]))
    if config.duplicates == "last":
        rows = list({row[:2]: row for row in rows}.values())
    elif config.duplicates == "first":
        rows = list({row[:2]: row for row in reversed(rows)}.values())
    rows.sort(key=lambda row: (row[0], row[2], row[4]))
    while config.filter != "none":
        users = [row[0] for row in rows]
        items = [row[1] for row in rows]
        kept = [
            row
            for row in rows
            if users.count(row[0]) >= config.min_user_events and items.count(row[1]) >= config.min_item_events
        ]
        done = len(kept) == len(rows) or config.filter == "single"
        rows = kept
        if done:
            break
    result = defaultdict(list)
    for row in rows:
        result[row[0]].append(row[1])
    return dict(result)


@given(LOGS, CONFIGS)
def test_equals_the_plain_loops_and_every_row_is_accounted_for(rows, config):
    expected = plainly(rows, config)
    if not expected:
        with pytest.raises(DataError, match="no event is left"):
            prepare(frame_of(rows), config=config)
        return
    store, report = prepare(frame_of(rows), config=config)
    assert sequences(store) == expected
    assert report.rows_in == len(rows) == report.interactions + sum(report.dropped.values())
    assert (report.users, report.items) == (store.num_users, store.num_items)
    assert set(store.items.tolist()) == set(range(1, store.num_items + 1))
    store.check()


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), min_size=1),
    st.randoms(use_true_random=False),
)
def test_shuffled_input_equals_sorted_input_when_times_are_unique(pairs, random):
    rows = [(user, item, time, None) for time, (user, item) in enumerate(pairs)]
    shuffled = rows.copy()
    random.shuffle(shuffled)
    assert prepare(frame_of(rows))[0].fingerprint == prepare(frame_of(shuffled))[0].fingerprint


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), min_size=1))
def test_ties_keep_the_file_order(pairs):
    store, report = prepare(frame_of([(user, item, 7, None) for user, item in pairs]))
    for user, items in sequences(store).items():
        assert items == [item for other, item in pairs if other == user]
    tied = sum(count for count in store.lengths if count > 1)
    assert report.tie_share == pytest.approx(tied / len(pairs))


@pytest.mark.parametrize("name", ["min_user_events", "min_item_events"])
def test_a_minimum_without_a_filter_is_a_contradiction(name):
    with pytest.raises(ConfigError, match=rf"^{name} 2 and filter 'none', .* contradict each other$"):
        PrepareConfig(filter="none", **{name: 2})
    assert PrepareConfig(filter="none", **{name: 1}) == PrepareConfig(filter="none")


def test_single_counts_once_on_the_unfiltered_log():
    rows = [("a", 1, 0, None), ("a", 2, 1, None), ("b", 1, 0, None)]
    store, _ = prepare(frame_of(rows), config=PrepareConfig(min_user_events=2, min_item_events=2))
    assert sequences(store) == {"a": [1]}  # user a keeps one event: the count was taken before


def test_milliseconds_order_events_of_one_second():
    log = pl.DataFrame({"user": [1, 1], "item": [1, 2], "time": [1_500_000_000_900, 1_500_000_000_100]})
    store, report = prepare(log)
    assert sequences(store) == {1: [2, 1]}
    assert store.times.tolist() == [1_500_000_000] * 2
    assert (report.tie_share, report.time_unit) == (0.0, "ms")


def test_times_before_the_epoch_are_rounded_down():
    log = pl.DataFrame({"user": [1, 1], "item": [1, 2], "time": [-0.5, 0.5]})
    assert prepare(log)[0].times.tolist() == [-1, 0]


def test_the_report_names_the_first_and_the_last_time():
    log = pl.DataFrame({"user": [2, 1, 1], "item": [1, 2, 3], "time": [20240115, 20240301, 20231231]})
    report = prepare(log)[1]
    assert (report.first, report.last) == ("2023-12-31T00:00:00Z", "2024-03-01T00:00:00Z")
    said = prepare(log, columns=Columns(time_unit="s"))[1]
    assert (said.first, said.last) == ("1970-08-23T03:47:11Z", "1970-08-23T06:18:21Z")
    dated = prepare(log.with_columns(time=pl.Series(["2024-01-15", "2024-03-01T10:00Z", "2023-12-31"])))[1]
    assert (dated.first, dated.last) == ("2023-12-31T00:00:00Z", "2024-03-01T10:00:00Z")
    untimed = prepare(log.drop("time"))[1]
    assert (untimed.first, untimed.last) == (None, None)


def test_a_log_without_a_readable_time_shows_one():
    log = pl.DataFrame({"user": [1, 1], "item": [1, 2], "time": ["in January", "in May"]})
    with pytest.raises(DataError, match=r"100% of 2 rows are dropped \(2 unreadable time \(such as 'in January'\)\)"):
        prepare(log)
    with pytest.raises(DataError, match=r"no event is left \(2 unreadable time \(such as 'in January'\)\)"):
        prepare(log, columns=Columns(max_dropped=1))


def test_without_times_the_rows_are_the_order():
    store, report = prepare(pl.DataFrame({"user": [2, 1, 2], "item": [9, 8, 7]}))
    assert sequences(store) == {1: [8], 2: [9, 7]}
    assert store.times is None
    assert report.tie_share is None


def test_features_follow_their_events():
    log = pl.DataFrame(
        {
            "user": [1, 1, 1],
            "item": [1, 2, 3],
            "time": [3, 2, 1],
            "event": ["buy", None, "view"],
            "price": [1.5, None, 2.5],
            "day": pl.Series([1, 2, 3], dtype=pl.UInt8),
            "gap": [1, None, 3],
        }
    )
    store, _ = prepare(log, columns=Columns(features=("event", "price", "day", "gap")))
    assert store.features["event"].tolist() == [2, 0, 1]
    assert store.feature_values["event"].ids.to_list() == ["buy", "view"]
    assert np.array_equal(store.features["price"], [2.5, np.nan, 1.5], equal_nan=True)
    assert store.features["day"].dtype == np.int16
    assert store.feature_values["gap"].decode(store.features["gap"][[0, 2]]) == [3, 1]
    dated = log.with_columns(pl.date(2020, 1, 1).alias("when"))
    with pytest.raises(DataError, match=r"feature 'when' must contain numbers or strings \(got Date\)"):
        prepare(dated, columns=Columns(features=("when",)))


def test_item_descriptions_are_laid_out_by_number(tmp_path):
    path = tmp_path / "movies.csv"
    path.write_text('movieId,title,genres,year\n30,"C, the film",x|y,2000\n10,A,z,\n10,again,q,\n99,none,q,1\n')
    log = pl.DataFrame({"user": [1, 1, 1], "item": [30, 20, 10]})
    store, report = prepare(log, items=path)
    assert store.titles == [None, "A", None, "C, the film"]
    assert store.categories == [None, "z", None, "x|y"]
    assert store.item_table.columns == ["id", "title", "category", "year"]
    assert report.items_described == 2
    with pytest.raises(DataError, match="none of the ids"):
        prepare(log, items=pl.DataFrame({"item_id": [5], "title": ["x"]}))
    with pytest.raises(DataError, match="which column is the item's id"):
        prepare(log, items=pl.DataFrame({"what": [5], "title": ["x"]}))


def test_settings_that_need_a_missing_column_are_refused():
    log = pl.DataFrame({"user": [1], "item": [1]})
    with pytest.raises(ConfigError, match="min_rating needs a rating column"):
        prepare(log, config=PrepareConfig(min_rating=3))
    with pytest.raises(ConfigError, match="needs times"):
        prepare(log, config=PrepareConfig(exact_duplicates="drop"))


def test_the_folder_is_a_mapped_store_that_records_how_it_was_made(tmp_path):
    stages = []
    log = frame_of([("a", 1, 0, None), ("", 1, 1, None), ("b", 2, 1, None)])
    store, report = prepare(log, tmp_path / "deep" / "store", progress=stages.append)
    assert stages == ["read", "filter", "write"]
    assert store.folder == tmp_path / "deep" / "store"
    store.verify()
    assert store.made["report"] == json.loads(json.dumps(report.as_dict()))
    assert report.dropped == {"missing user": 1}
    assert prepare(log)[0].fingerprint == store.fingerprint
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["store"]


def test_only_a_store_is_replaced_and_only_on_request(tmp_path):
    log, other = frame_of([("a", 1, 0, None)]), frame_of([("a", 2, 0, None)])
    out = tmp_path / "out"
    out.mkdir()
    first = prepare(log, out)[0].fingerprint
    with pytest.raises(ArtefactError, match="already contains a store"):
        prepare(other, out)
    assert SequenceStore.open(out).fingerprint == first
    assert prepare(other, out, overwrite=True)[0].fingerprint != first
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("x")
    with pytest.raises(ArtefactError, match="not an ensue store"):
        prepare(log, foreign, overwrite=True)
    assert (foreign / "thesis.txt").read_text() == "x"


def test_a_store_with_a_foreign_file_is_not_replaced(tmp_path):
    log, out = frame_of([("a", 1, 0, None)]), tmp_path / "out"
    prepare(log, out)
    (out / "thesis.txt").write_text("x")
    with pytest.raises(ArtefactError, match=r"contains 'thesis\.txt', which is not a file of the store"):
        prepare(log, out, overwrite=True)
    assert (out / "thesis.txt").read_text() == "x"
    (out / "thesis.txt").unlink()
    prepare(log, out, overwrite=True)


def test_a_failure_while_writing_leaves_the_old_store(tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = prepare(frame_of([("a", 1, 0, None)]), out)[0].fingerprint

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("ensue.data.store.write_manifest", full)
    with pytest.raises(OSError, match="disk full"):
        module.prepare(frame_of([("b", 2, 0, None)]), out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert SequenceStore.open(out).fingerprint == first
