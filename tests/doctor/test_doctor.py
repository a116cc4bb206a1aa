from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensue.data.interactions import Columns, Interactions, read_interactions
from ensue.data.prepare import PrepareConfig, prepare
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.datasets.simulate import SimulateConfig, ordered_sequences, shuffled, simulate
from ensue.doctor.check import DoctorReport, check
from ensue.doctor.events import maxlen_for
from ensue.doctor.order import compare_with_shuffled
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
    assert "filter_seen keeps a repeated target" in timed["repeats"].advice
    untimed = check(store_of([[1, 1, 2, 2], [2, 1, 2, 1]]))
    assert untimed["duplicates"].value == pytest.approx(2 / 8)
    assert check(store_of([[1, 2, 3]], [[0, 1, 2]]))["duplicates"].level == "ok"


def duplicates(source: SequenceStore | Interactions) -> tuple[float | None, str]:
    result = check(source)["duplicates"]
    return result.value, result.advice


@pytest.mark.parametrize(
    ("steps", "of_log", "of_store"),
    [
        ([0, 7, 900, 2000], 0.0, 0.0),  # milliseconds of one second
        ([0, 0, 900, 2000], 0.25, 0.5),  # a store cannot tell the third from the first two
        ([0, 0, 1000, 2000], 0.25, 0.25),
        ([0, 1000, 2000, 3000], 0.0, 0.0),
    ],
)
def test_duplicates_are_counted_as_the_filter_counts_them(steps: list[int], of_log: float, of_store: float) -> None:
    """And the advice, once it is followed, does not come back."""
    times = [1_600_000_000_000 + step for step in steps]
    log = pl.DataFrame({"user": [1] * 4, "item": [5] * 4, "time": times})
    dropped, report = prepare(log, config=PrepareConfig(exact_duplicates="drop"))
    assert of_log == report.dropped.get("exact duplicate", 0) / 4
    for source, share in ((read_interactions(log), of_log), (prepare(log)[0], of_store)):
        value, advice = duplicates(source)
        assert value == share
        assert ('exact_duplicates = "drop"' in advice) == (of_log > 0)
    assert duplicates(dropped) == (0.0, "")


def test_a_split_that_leaves_nothing_to_train_on_is_a_problem() -> None:
    """With leave-one-out three events leave one for training, from which nothing follows."""
    nothing = check(store_of([[1, 2, 3]]))["training"]
    assert (nothing.level, nothing.value) == ("problem", 0)
    some = check(store_of([[1, 2, 3], [1, 2, 3, 4], [1, 2]]))["training"]
    assert (some.level, some.value, some.advice) == ("ok", 2, "")
    assert "leaves 5 events for training; 2 of 3 users" in some.text


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


def timed(times: list[int]) -> SequenceStore:
    size = len(times)
    return SequenceStore.from_arrays(np.array([0, size]), np.arange(size) + 1, np.sort(times))


USUAL = [1_600_000_000 + DAY * day for day in range(7)]


@pytest.mark.parametrize(
    ("odd", "date"),
    [
        (1_600_000_000_000, "52671-12-25"),
        (-62_200_000_000, "-002-12-17"),
        (253_402_300_800, "10000-01-01"),
        (-62_135_596_801, "0000-12-31"),
        (2**62, "146138514283-06-19"),
        (-(2**62), "-146138510344-07-14"),
    ],
)
def test_a_time_beyond_the_calendar_is_a_problem_that_is_named(tmp_path: Path, odd: int, date: str) -> None:
    timed([*USUAL, odd]).save(tmp_path / "store")
    result = check(SequenceStore.open(tmp_path / "store"))["times"]
    assert result.level == "problem"
    assert f"years 1 to 9999: {odd} seconds since 1970" in result.text
    assert date in result.text
    assert "52671" not in check(timed(USUAL))["times"].text


def test_the_last_second_of_the_calendar_is_within_it() -> None:
    for last in (253_402_300_799, -62_135_596_800):
        assert "1 to 9999" not in check(timed([*USUAL, last]))["times"].text


@pytest.mark.parametrize("odd", [1_600_000_000_000, -1_600_000_000_000, 0, 1_600_000])
def test_mixed_units_are_a_problem(odd: int) -> None:
    result = check(timed([*USUAL, odd]))["time-units"]
    assert (result.level, result.value) == ("problem", 1 / 8)
    assert "1 of 8 times differ from their median (2020-09-" in result.text
    assert f"such as {odd} seconds since 1970" in result.text


def test_times_of_one_unit_are_fine() -> None:
    for times in (USUAL, [*USUAL, 789_000_000, 4_000_000_000]):
        assert (check(timed(times))["time-units"].level, check(timed(times))["time-units"].value) == ("ok", 0.0)
    small = check(timed([0, 1, 5, 20, 10**6]))["time-units"]
    assert (small.level, small.value) == ("ok", None)


def test_one_time_of_another_unit_in_a_log(tmp_path: Path) -> None:
    rows = [f"{user},{item},{1_600_000_000 + 9 * user + item}" for user in (1, 2) for item in (1, 2, 3)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *rows, "2,4,1600000000000"]) + "\n")
    report = check(read_interactions(tmp_path / "log.csv", Columns(time_unit="s")))
    assert (report["times"].level, report["time-units"].level) == ("problem", "problem")
    assert "1600000000000" in report["times"].text


def test_an_unreadable_time_is_shown(frame: pl.DataFrame) -> None:
    odd = pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("in January")).otherwise(pl.col("timestamp").cast(pl.String))
    finding = check(read_interactions(frame.with_columns(odd.alias("timestamp"))))["rows"]
    assert "1 unreadable time (such as 'in January')" in finding.text


def test_what_reading_a_log_notes_is_a_finding(frame: pl.DataFrame) -> None:
    assert check(read_interactions(frame))["reading"].level == "ok"
    odd = pl.when(pl.int_range(pl.len()) == 3).then(pl.lit(99 * 10**9)).otherwise(pl.col("timestamp"))
    finding = check(read_interactions(frame.with_columns(odd.alias("timestamp"))))["reading"]
    assert (finding.level, finding.value) == ("warn", 1)
    assert "1 times are far from the rest, the first in row 4" in finding.text


def test_ids_that_differ_in_the_encoding_of_accents_are_near_equal() -> None:
    frame = pl.DataFrame({"user": ["ren\u00e9", "rene\u0301", "b", "b"], "item": [1, 2, 1, 2], "time": [1, 2, 3, 4]})
    finding = check(prepare(frame)[0])["near-equal-ids"]
    assert finding.level == "warn"
    assert "2 user ids (such as 'rene\\u0301' and 'ren\u00e9')" in finding.text


def test_near_equal_and_mixed_ids() -> None:
    users = ["a", "A", "b ", "b", "c"] + [str(n) for n in range(5)]
    items = [str(n) for n in range(10, 29)] + ["Title"]
    rows = {"user": [user for user in users for _ in range(20)], "item": items * 10, "time": range(200)}
    report = check(read_interactions(pl.DataFrame(rows)))
    assert (report["near-equal-ids"].level, report["near-equal-ids"].value) == ("warn", pytest.approx(4 / 30))
    assert "4 user ids (such as 'A' and 'a')" in report["near-equal-ids"].text
    assert (report["mixed-ids"].level, report["mixed-ids"].value) == ("warn", pytest.approx(1 / 30))
    assert "1 of 20 item ids are texts among numbers (such as 'Title')" in report["mixed-ids"].text
    zeros = check(read_interactions(pl.DataFrame({"user": ["007", "7", "x"] * 3, "item": list("abc") * 3})))
    assert "2 user ids (such as '007' and '7')" in zeros["near-equal-ids"].text
    numbers = check(store_of([[1, 2, 3, 4], [4, 3, 2, 1]]))
    assert numbers["near-equal-ids"].level == numbers["mixed-ids"].level == "ok"


def test_events_in_the_future_are_said() -> None:
    late = check(timed([*USUAL, 9_000_000_000]))["future-times"]
    assert (late.level, late.value) == ("warn", 1 / 8)
    assert "the last on 2255-03-" in late.text
    assert check(timed(USUAL))["future-times"].level == "ok"


def test_sorted_ids_are_a_problem() -> None:
    rng = np.random.default_rng(0)
    rows = [list(rng.choice(50, 8, replace=False) + 1) for _ in range(40)]
    assert check(store_of(rows))["id-order"].level == "ok"
    result = check(store_of([sorted(row) for row in rows]))["id-order"]
    assert (result.level, result.value) == ("problem", 1.0)


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
    assert "95% need 1500" in report["lengths"].text


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


def test_the_order_test_counts_users() -> None:
    store = ordered_sequences(num_users=50, num_items=30)
    split = make_split(store, SplitConfig(split="user-holdout", targets="all", validation_fraction=0.4))
    order = compare_with_shuffled(split)
    assert order is not None
    assert len(split.validation.packed) > order.num_cases == len(np.unique(split.validation.packed.users_B))


def test_too_little_to_judge() -> None:
    report = check(store_of([[1, 2], [2, 1]]))
    assert report.order is None
    assert report["order"].level == "warn"
    assert report["cold-items"].level == "problem"
    assert "Without times" in report["leakage"].text
    assert "Without a test case" in check(timed([1, 2]))["leakage"].text
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
