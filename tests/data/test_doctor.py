from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensue.data.doctor import DoctorReport, check, compare_with_shuffled, maxlen_for
from ensue.data.interactions import read_interactions
from ensue.data.simulate import SimulateConfig, ordered_sequences, shuffled, simulate
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.errors import DataError

DAY = 86_400
DATA = Path(os.environ.get("ENSUE_DATA", Path(__file__).parents[2] / "../shared/data"))


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return simulate(SimulateConfig(num_users=300)).interactions


def store_of(rows: list[list[int]], times: list[list[int]] | None = None) -> SequenceStore:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    flat = None if times is None else np.concatenate([np.array(t, dtype=np.int64) for t in times]) * DAY + 10**9
    return SequenceStore.from_arrays(offsets=offsets, items=np.concatenate([np.array(r) for r in rows]), times=flat)


def test_a_sound_log_has_nothing_but_the_leakage_of_its_split(frame: pl.DataFrame) -> None:
    report = check(read_interactions(frame))
    assert [finding.name for finding in report.findings if finding.level != "ok"] == ["leakage"]
    assert report["order"].value > 0.05
    assert report.suggested_maxlen == 50
    with_time = check(read_interactions(frame), SplitConfig(split="global-time"))
    assert with_time["leakage"].level == "ok"
    assert with_time["leakage"].value == 0


def test_rows_that_cannot_be_used(frame: pl.DataFrame) -> None:
    broken = frame.with_columns(pl.when(pl.int_range(pl.len()) % 10 == 0).then(None).otherwise("item").alias("item"))
    finding = check(read_interactions(broken))["rows"]
    assert (finding.level, round(finding.value, 3)) == ("problem", 0.1)
    assert "missing item" in finding.text
    assert check(read_interactions(frame))["rows"].level == "ok"


def test_rows_out_of_order(frame: pl.DataFrame) -> None:
    report = check(read_interactions(frame.reverse()))
    assert report["row-order"].level == "warn"
    assert report["row-order"].value == 1.0
    again = check(read_interactions(frame))
    assert again["row-order"].value == 0.0
    assert report["order"] == again["order"]


def test_duplicates_and_repeats() -> None:
    rows, times = [[1, 1, 2, 3, 1], [2, 3, 1, 3, 2]], [[0, 0, 1, 2, 3], [0, 1, 2, 3, 4]]
    timed = check(store_of(rows, times))
    assert timed["duplicates"].value == pytest.approx(1 / 10)
    assert timed["repeats"].value == pytest.approx(4 / 10)
    assert "filter_seen spares a repeated target" in timed["repeats"].advice
    untimed = check(store_of([[1, 1, 2, 2], [2, 1, 2, 1]]))
    assert untimed["duplicates"].value == pytest.approx(2 / 8)
    assert check(store_of([[1, 2, 3]], [[0, 1, 2]]))["duplicates"].level == "ok"


def test_ties_count_every_event_that_shares_its_time() -> None:
    report = check(store_of([[1, 2, 3, 4], [1, 2, 3, 4]], [[0, 0, 0, 1], [1, 2, 2, 5]]))
    assert report["ties"].value == pytest.approx(5 / 8)
    assert report["ties"].level == "warn"


def test_no_times_is_said() -> None:
    report = check(store_of([[1, 2, 3, 4], [4, 3, 2, 1]]))
    assert report["times"].level == report["leakage"].level == "warn"
    assert report["leakage"].value is None
    with pytest.raises(KeyError):
        report["ties"]
    with pytest.raises(DataError, match="needs times"):
        check(store_of([[1, 2, 3]]), SplitConfig(split="global-time"))


def test_times_of_a_wrong_unit_are_a_problem() -> None:
    store = SequenceStore.from_arrays(offsets=np.array([0, 3]), items=np.array([1, 2, 3]), times=np.array([1, 2, 3]))
    assert check(store)["times"].level == "problem"
    assert check(store).level == "problem"


def test_sorted_ids_are_a_problem() -> None:
    rng = np.random.default_rng(0)
    rows = [list(rng.choice(50, 8, replace=False) + 1) for _ in range(40)]
    assert check(store_of(rows))["id-order"].level == "ok"
    found = check(store_of([sorted(row) for row in rows]))["id-order"]
    assert (found.level, found.value) == ("problem", 1.0)


def test_cold_targets_and_leakage_by_hand() -> None:
    # targets are the last events: item 9 never trains; training events are the first two of each row
    rows, times = [[1, 2, 3, 9], [1, 2, 3, 1]], [[0, 1, 2, 3], [0, 10, 11, 12]]
    report = check(store_of(rows, times))
    assert report["cold-items"].value == 0.5
    assert report["cold-items"].level == "problem"
    assert report["leakage"].value == pytest.approx((1 / 4 + 0) / 2)
    assert "Training events of some users" in report["leakage"].text


def test_short_users_rare_items_concentration() -> None:
    rows = [[1, 2, 3, 4, 5, 6]] + [[1, 2]] * 4
    report = check(store_of(rows))
    assert report["short-users"].value == pytest.approx(4 / 5)
    assert report["rare-items"].value == pytest.approx(4 / 6)
    assert report["concentration"].value == pytest.approx(5 / 14)
    assert report["lengths"].level == "warn"
    assert report["lengths"].value == 2


@given(st.lists(st.integers(1, 900), min_size=1, max_size=30), st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_maxlen_covers_what_it_says(lengths: list[int], coverage: float) -> None:
    array = np.array(lengths)
    maxlen = maxlen_for(array, coverage)
    unit = 10 if maxlen <= 100 else 50 if maxlen <= 500 else 100
    assert maxlen % unit == 0
    assert np.minimum(array, maxlen).sum() >= coverage * array.sum() - 1e-9
    assert np.minimum(array, maxlen - unit).sum() < coverage * array.sum()


def test_the_suggestion_stays_affordable() -> None:
    report = check(store_of([list(np.arange(1500) % 40 + 1)]))
    assert report.suggested_maxlen == 200
    assert "95% take 1500" in report["lengths"].text


def test_order_is_found_where_it_is_and_not_where_it_is_not() -> None:
    store = ordered_sequences(num_users=300, num_items=30)
    ordered, noise = check(store), check(shuffled(store))
    assert (ordered["order"].level, noise["order"].level) == ("ok", "warn")
    assert ordered.order is not None
    assert ordered.order.mean_a > 0.99
    assert ordered.order.p < 1e-6
    assert noise.order is not None
    assert noise.order.effect.low <= 0 <= noise.order.effect.high


def test_the_order_test_never_opens_the_test_part() -> None:
    store = ordered_sequences(num_users=50, num_items=30)
    items = store.items.copy()
    items[store.offsets[1:] - 1] = 1
    changed = SequenceStore.from_arrays(store.offsets, items, store.times, item_ids=store.item_ids)
    before, after = (compare_with_shuffled(make_split(made, SplitConfig())) for made in (store, changed))
    assert before == after


def test_too_little_to_judge() -> None:
    report = check(store_of([[1, 2], [2, 1]]))
    assert report.order is None
    assert report["order"].level == "warn"
    assert report["cold-items"].level == "problem"
    assert isinstance(report, DoctorReport)
    empty = SequenceStore.from_arrays(offsets=np.array([0]), items=np.array([], dtype=np.int32))
    with pytest.raises(DataError, match="no events"):
        check(empty)


def test_as_dict_is_json() -> None:
    report = check(store_of([[1, 2, 3, 4], [4, 3, 2, 1]]))
    back = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert back["level"] == report.level
    assert [finding["name"] for finding in back["findings"]] == [finding.name for finding in report.findings]


@pytest.mark.parametrize(("name", "timed", "maxlen"), [("amazon-games-sasrec", False, 50), ("ml-1m-sasrec", True, 200)])
def test_real_logs(name: str, timed: bool, maxlen: int) -> None:
    path = DATA / name / "interactions.parquet"
    if not path.exists():
        pytest.skip("the real logs are not here")
    report = check(read_interactions(path))
    assert report.level == "warn"
    assert report.suggested_maxlen == maxlen
    assert report["order"].level == "ok"
    assert (report["leakage"].value is not None) == timed
