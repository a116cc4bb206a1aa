import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensue.data.interactions import Columns
from ensue.data.prepare import prepare
from ensue.data.split import SPLITS, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ConfigError, DataError

NAMES = ["leave-one-out", "global-time", "user-holdout", "session"]


@st.composite
def stores(draw, times=True):
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=12))
    if not sum(lengths):
        lengths.append(1)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    span = draw(st.sampled_from([5, 1000]))
    return SequenceStore.from_arrays(
        np.concatenate([[0], np.cumsum(lengths)]),
        rng.integers(1, 6, sum(lengths)),
        np.concatenate([np.sort(rng.integers(0, span, length)) for length in lengths]) if times else None,
        {"event": rng.integers(0, 3, sum(lengths))},
        item_ids=Vocabulary.of_range(9),
    )


def split_of(store, name, targets="auto", unseen_items="keep"):
    shares = {} if name == "leave-one-out" else {"validation_fraction": 0.2, "test_fraction": 0.2}
    config = SplitConfig(split=name, targets=targets, unseen_items=unseen_items, seed=3, **shares)
    parts = np.count_nonzero(store.lengths) if name == "session" else store.num_events
    if parts == 1 and name in ("global-time", "session"):
        with pytest.raises(DataError, match="too few"):
            make_split(store, config)
        return None
    return make_split(store, config)


def test_the_splits_are_registered():
    assert sorted(SPLITS) == sorted([*NAMES, "none", "predefined"])


@given(stores())
def test_none_holds_nothing_out(store):
    split = make_split(store, SplitConfig(split="none"))
    assert split.train.events_P.tolist() == list(range(store.num_events))
    assert len(split.validation) == len(split.test) == 0
    with pytest.raises(ConfigError, match="does not take test_fraction"):
        SplitConfig.parse({"split": "none", "test_fraction": 0.2})


@given(stores(), st.sampled_from(NAMES), st.sampled_from(["auto", "last", "first", "all"]))
def test_laws_of_every_split(store, name, targets):
    if name == "leave-one-out" and targets in ("first", "all"):
        with pytest.raises(ConfigError, match="leave-one-out"):
            split_of(store, name, targets)
        return
    split = split_of(store, name, targets)
    if split is None:
        return
    trained = set(split.train.events_P.tolist())
    assert len(trained) == len(split.train.events_P)
    assert (split.train.lengths_R > 0).all()
    for cases in (split.validation, split.test):
        assert not trained & set(cases.target_B.tolist())
        assert len(set(cases.target_B.tolist())) == len(cases)
        assert (cases.start_B == store.offsets[cases.users_B]).all()
        assert (cases.stop_B > cases.start_B).all()
        assert (cases.stop_B == cases.target_B).all()
        assert (cases.target_B < store.offsets[cases.users_B + 1]).all()
        assert np.array_equal(cases.target_items_B, store.items[cases.target_B])
    assert not set(split.validation.target_B.tolist()) & set(split.test.target_B.tolist())
    assert split.leakage.endswith(".")


@given(stores(), st.sampled_from(NAMES), st.randoms(use_true_random=False))
def test_held_out_events_do_not_shape_training(store, name, random):
    """Items, features and times of events that do not train may change (times stay held out)."""
    split = split_of(store, name)
    if split is None:
        return
    held = np.setdiff1d(np.arange(store.num_events), split.train.events_P)
    items, times, event = store.items.copy(), store.times.copy(), store.features["event"].copy()
    for index in held:
        items[index] = random.randint(1, 9)
        event[index] = random.randint(0, 9)
    # Later by a growing amount: still in order within each user, and still held out.
    times[held] += np.cumsum([random.choice([0, 1, 100]) for _ in held], dtype=np.int64)
    changed = SequenceStore.from_arrays(store.offsets, items, times, {"event": event}, item_ids=Vocabulary.of_range(9))
    again = split_of(changed, name)
    for array in ("users_R", "start_R", "stop_R", "items_P"):
        assert getattr(split.train, array).tobytes() == getattr(again.train, array).tobytes()
    events_P = split.train.events_P
    assert store.times[events_P].tobytes() == changed.times[events_P].tobytes()
    assert store.features["event"][events_P].tobytes() == changed.features["event"][events_P].tobytes()


@given(stores(), st.randoms())
def test_deleted_events_of_the_test_period_do_not_shape_training(store, random):
    """With a fixed moment. (Fractions are of all events, so their number decides the moment.)"""
    moment = int(store.times[random.randrange(store.num_events)])
    config = SplitConfig(split="global-time", test_from=moment)
    kept = np.array([time < moment or random.random() < 0.5 for time in store.times], dtype=bool)
    offsets = np.concatenate(([0], np.cumsum(kept)))[store.offsets]
    fewer = SequenceStore.from_arrays(offsets, store.items[kept], store.times[kept], item_ids=store.item_ids)
    split, again = make_split(store, config), make_split(fewer, config)
    assert split.train.users_R.tobytes() == again.train.users_R.tobytes()
    assert split.train.items_P.tobytes() == again.train.items_P.tobytes()
    assert store.times[split.train.events_P].tobytes() == fewer.times[again.train.events_P].tobytes()


@given(stores())
def test_global_time_divides_all_events_at_two_moments(store):
    split = split_of(store, "global-time", "all")
    if split is None:
        return
    train, test = store.times[split.train.events_P], store.times[split.test.target_B]
    validation = store.times[split.validation.target_B]
    if len(test):
        assert train.max() <= test.min()
    if len(validation):
        assert train.max() < validation.min()
        if len(test):
            assert validation.max() < test.min()


def test_leave_one_out_by_hand():
    store = SequenceStore.from_arrays(np.array([0, 4, 6, 6, 9]), np.array([1, 2, 3, 4, 5, 6, 7, 8, 9]))
    split = make_split(store, SplitConfig())
    assert split.train.items_P.tolist() == [1, 2, 5, 6, 7]
    assert split.train.users_R.tolist() == [0, 1, 3]
    assert split.validation.target_items_B.tolist() == [3, 8]
    assert split.validation.stop_B.tolist() == [2, 7]
    assert split.test.target_items_B.tolist() == [4, 9]
    assert split.test.stop_B.tolist() == [3, 8]  # the test history includes the validation event


def test_global_time_by_hand():
    store = SequenceStore.from_arrays(np.array([0, 4, 6, 8]), np.arange(1, 9), np.array([1, 12, 25, 30, 5, 21, 22, 23]))
    config = SplitConfig(split="global-time", validation_from=10, test_from=20)
    split = make_split(store, config)
    assert split.train.items_P.tolist() == [1, 5]
    assert split.validation.target_items_B.tolist() == [2]
    assert split.test.target_items_B.tolist() == [4, 6, 8]
    first = make_split(store, config.replace(targets="first")).test
    assert first.target_items_B.tolist() == [3, 6, 8]  # user 3 starts after the boundary: 7 has no history
    every = make_split(store, config.replace(targets="all")).test
    assert every.target_items_B.tolist() == [3, 4, 6, 8]


def test_user_holdout_draws_the_share_and_depends_on_the_seed():
    store = SequenceStore.from_arrays(np.arange(0, 303, 3), np.tile([1, 2, 3], 100))
    one = make_split(store, SplitConfig(split="user-holdout", seed=1))
    assert (len(one.train), len(one.validation), len(one.test)) == (80, 10, 10)
    again = make_split(store, SplitConfig(split="user-holdout", seed=1))
    other = make_split(store, SplitConfig(split="user-holdout", seed=2))
    assert np.array_equal(one.test.users_B, again.test.users_B)
    assert not np.array_equal(one.test.users_B, other.test.users_B)


def test_sessions_by_a_feature():
    words = Vocabulary.from_ids(["test", "train"])
    marks = words.encode(["train"] * 8 + ["test"] * 3)
    store = SequenceStore.from_arrays(
        np.array([0, 2, 4, 6, 8, 11]),
        np.arange(1, 12),
        features={"split": marks},
        feature_values={"split": words},
    )
    split = make_split(store, SplitConfig(split="session", split_feature="split", validation_fraction=0.25))
    assert split.train.users_R.tolist() == [0, 1, 2]
    assert split.validation.target_items_B.tolist() == [8]
    assert split.test.target_items_B.tolist() == [10, 11]
    assert split.test.start_B.tolist() == [8, 8]
    marks[9] = words.encode(["train"])[0]
    with pytest.raises(DataError, match="session 5 is in two parts"):
        make_split(store, SplitConfig(split="session", split_feature="split"))


def test_sessions_by_a_day_number():
    days = np.array([0, 0, 2, 2, 1, 1, 3, 3], dtype=np.int8)
    store = SequenceStore.from_arrays(np.arange(0, 10, 2), np.arange(1, 9), features={"period": days})
    config = SplitConfig(split="session", order_feature="period", validation_from=2, test_from=3)
    split = make_split(store, config)
    assert split.train.users_R.tolist() == [0, 2]
    assert split.validation.target_items_B.tolist() == [4]
    assert split.test.target_items_B.tolist() == [8]


DAYS = range(100, 300, 10)
BY_DAY = {"split": "session", "order_feature": "day"}


def sessions_of(days):
    """Twenty sessions of two events as a log tells them; `days` are the texts of the events."""
    rows = [f"s{event // 2:02},{event % 3},{day}" for event, day in enumerate(days)]
    log = ("session,item,day\n" + "\n".join(rows) + "\n").encode()
    return prepare(pl.read_csv(log, infer_schema_length=None), columns=Columns(features=("day",), time="-"))[0]


def sizes(store, **settings):
    split = make_split(store, SplitConfig(**BY_DAY, **settings))
    return len(split.train), len(split.validation), len(split.test)


@pytest.mark.parametrize(
    "days",
    [
        [day for day in DAYS for _ in "ab"],
        [text for day in DAYS for text in (day, "" if day == 120 else day)],  # kept as codes
        [day + 0.5 * half for day in DAYS for half in (0, 1)],
        [text for day in DAYS for text in (day + 0.25, "" if day == 120 else day)],
    ],
)
def test_sessions_are_ordered_by_the_values_of_the_log(days):
    store = sessions_of(days)
    assert sizes(store, validation_from=200, test_from=250) == (10, 5, 5)
    assert sizes(store) == (16, 2, 2)


def test_days_of_less_than_one_are_distinguished():
    store = sessions_of([day / 1000 for day in DAYS for _ in "ab"])
    split = make_split(store, SplitConfig(**BY_DAY))
    assert (len(split.train), len(split.validation), len(split.test)) == (16, 2, 2)
    assert split.test.users_B.tolist() == [18, 19]
    tied = sessions_of([0.5] * 20 + [0.75] * 20)
    assert sizes(tied, validation_fraction=0.25, test_fraction=0.25) == (10, 10, 0)


@pytest.mark.parametrize("last", ["290", "290.5", "late"])
def test_a_session_without_a_place_in_the_order_is_an_error(last):
    """A gap among integers and texts makes codes, one among fractions NaN."""
    store = sessions_of(["", *([day for day in DAYS for _ in "ab"][1:-1]), last])
    for settings in ({}, {"test_from": 250}):
        with pytest.raises(
            DataError, match=r"^feature 'day' is missing in the first event of 1 sessions, such as 's00'"
        ):
            sizes(store, **settings)


def test_texts_order_sessions_and_are_not_compared_with_numbers():
    store = sessions_of([f"2020-01-{31 - day // 10:02}" for day in DAYS for _ in "ab"])
    assert make_split(store, SplitConfig(**BY_DAY)).test.users_B.tolist() == [0, 1]
    with pytest.raises(
        DataError, match=r"^feature 'day' contains texts, such as '2020-01-02', but test_from is a number"
    ):
        sizes(store, test_from=15)


def test_the_last_training_sessions_validate_in_the_order_of_the_feature():
    words = Vocabulary.from_ids(["test", "train"])
    days = Vocabulary.from_ids([90, 100, 1000])
    store = SequenceStore.from_arrays(
        np.arange(0, 10, 2),
        np.arange(1, 9),
        features={"split": words.encode(["train"] * 6 + ["test"] * 2), "day": np.array([3, 0, 1, 1, 2, 2, 1, 1])},
        feature_values={"split": words, "day": days},
    )
    config = SplitConfig(split="session", split_feature="split", order_feature="day", validation_fraction=0.34)
    assert make_split(store, config).validation.users_B.tolist() == [0]


def test_what_a_split_needs_is_named():
    store = SequenceStore.from_arrays(np.array([0, 3]), np.array([1, 2, 3]), features={"period": np.zeros(3)})
    with pytest.raises(DataError, match="needs times"):
        make_split(store, SplitConfig(split="global-time"))
    with pytest.raises(DataError, match="did you mean 'period'"):
        make_split(store, SplitConfig(split="session", order_feature="periods"))
    with pytest.raises(DataError, match="must contain the words"):
        make_split(store, SplitConfig(split="session", split_feature="period"))
    with pytest.raises(ConfigError, match="did you mean 'leave-one-out'"):
        SplitConfig.parse({"split": "leave-one-ou"})
    with pytest.raises(ConfigError, match="below 1"):
        SplitConfig.parse({"split": "session", "validation_fraction": 0.5, "test_fraction": 0.5})
    with pytest.raises(ConfigError, match="needs test_from"):
        SplitConfig.parse({"split": "session", "validation_from": 5})


SHARES, MOMENTS = {"validation_fraction", "test_fraction"}, {"validation_from", "test_from"}
TAKEN = {
    "leave-one-out": {"unseen_items"},
    "global-time": SHARES | MOMENTS | {"unseen_items"},
    "user-holdout": SHARES | {"unseen_items"},
    "session": SHARES | MOMENTS | {"split_feature", "order_feature", "session_time", "unseen_items"},
}
GIVEN = {
    "validation_fraction": 0.2,
    "test_fraction": 0.3,
    "validation_from": 5,
    "test_from": 6,
    "split_feature": "part",
    "order_feature": "day",
    "session_time": "last",
    "unseen_items": "drop",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_a_split_does_not_take_is_refused(name):
    """Before any data is read; one that has its default is none."""
    assert {*GIVEN, "split", "targets", "target_event", "target_feature", "seed"} == {*SplitConfig.model_fields}
    for setting, value in GIVEN.items():
        beside = {"split": name} | ({"test_from": 6} if setting == "validation_from" and setting in TAKEN[name] else {})
        if setting in TAKEN[name]:
            assert getattr(SplitConfig(**beside, **{setting: value}), setting) == value
            continue
        message = rf"^split '{name}' does not take {setting} \(got {value!r}\); it takes targets"
        with pytest.raises(ConfigError, match=message):
            SplitConfig(**beside, **{setting: value})
        default = SplitConfig.model_fields[setting].default
        assert SplitConfig(**beside, **{setting: default}) == SplitConfig(split=name)


def test_settings_that_take_the_place_of_others_are_not_given_beside_them():
    with pytest.raises(ConfigError, match=r"^test_from 5 replaces validation_fraction \(got 0.3\)"):
        SplitConfig(split="global-time", test_from=5, validation_fraction=0.3)
    for name, value in (("test_from", 5), ("test_fraction", 0.3)):
        with pytest.raises(ConfigError, match=rf"^split_feature 'part' replaces {name} \(got {value}\)"):
            SplitConfig(split="session", split_feature="part", **{name: value})


def test_a_seed_that_nothing_is_drawn_with_is_no_mistake():
    assert SplitConfig(seed=7).seed == 7


@given(stores(), st.data())
def test_picked_cases_are_those_at_their_places(store, data):
    cases = split_of(store, "user-holdout", "all").test
    rows = data.draw(st.lists(st.integers(0, len(cases) - 1))) if len(cases) else []
    taken = cases.take(np.array(rows, dtype=np.int64))
    assert taken.store is cases.store
    for name in ("users_B", "start_B", "stop_B", "target_B", "target_items_B"):
        assert getattr(taken, name).tolist() == [getattr(cases, name)[row] for row in rows]


def test_the_session_protocol_of_gru4rec():
    rows = "s1,a,1000 s1,b,1060 s2,b,2000 s2,c,2060 s3,c,60000 s3,a,100000 s4,a,150000 s4,new,150060 s4,b,150120"
    frame = pl.DataFrame(
        [(session, item, int(time)) for session, item, time in (row.split(",") for row in rows.split())],
        schema=["session", "item", "time"],
        orient="row",
    )
    store = prepare(frame)[0]
    config = SplitConfig(split="session", test_from=63_720, session_time="last", unseen_items="drop")
    split = make_split(store, config)
    test = split.test
    histories = zip(test.start_B, test.stop_B, test.target_B, strict=True)
    asked = [list(store.item_ids.decode(store.items[[*range(a, b), t]])) for a, b, t in histories]
    assert (list(store.users.decode(split.train.users_R + 1)), asked) == (["s1", "s2"], [["c", "a"], ["a", "b"]])


def test_left_out_events_are_in_no_history_wherever_they_are():
    text = "s1,a,1 s1,b,2 s1,c,3 s2,new,10 s2,a,11 s2,new,12 s2,b,13 s2,other,14 s2,c,15 s3,c,16 s3,new,17"
    rows = [dict(zip(("user", "item", "time"), row.split(","), strict=True)) for row in text.split()]
    store = prepare(pl.DataFrame(rows).with_columns(pl.col("time").cast(pl.Int64)))[0]
    test = make_split(store, SplitConfig(split="session", test_from=10, unseen_items="drop")).test
    assert test.store is store
    assert store.item_ids.decode(test.target_items_B) == ["b", "c"]
    assert [(test.start_B[0], test.stop_B[0]), (test.start_B[1], test.stop_B[1])] == [(4, 5), (4, 7)]
    packed = test.take(np.arange(2)).packed
    histories = [packed.store.items[a:b] for a, b in zip(packed.start_B, packed.stop_B, strict=True)]
    assert [store.item_ids.decode(history) for history in histories] == [["a"], ["a", "b"]]
    assert packed.stop_B.tolist() == packed.target_B.tolist()
    assert packed.target_items_B.tolist() == test.target_items_B.tolist()
    assert packed.store.times[packed.target_B].tolist() == store.times[test.target_B].tolist()
    assert packed.packed is packed


@given(stores(), st.sampled_from([name for name in NAMES if name != "session"]))
def test_dropped_items_are_no_targets_and_in_no_history(store, name):
    """The cases that stay are those with a target and a history of items that occur in training."""
    kept, dropped = split_of(store, name), split_of(store, name, unseen_items="drop")
    if kept is None:
        return
    known = set(kept.train.items_P.tolist())
    assert dropped.train.items_P.tolist() == kept.train.items_P.tolist()
    for whole, part in ((kept.validation, dropped.validation), (kept.test, dropped.test)):
        expected = []
        for start, stop, target in zip(whole.start_B, whole.stop_B, whole.target_B, strict=True):
            history = [item for item in store.items[start:stop].tolist() if item in known]
            if history and store.items[target] in known:
                expected.append((history, int(store.items[target])))
        packed = part.packed
        histories = [packed.store.items[a:b].tolist() for a, b in zip(packed.start_B, packed.stop_B, strict=True)]
        assert list(zip(histories, packed.target_items_B.tolist(), strict=True)) == expected
        assert part.store is store


def test_boundaries_are_seconds_or_dates():
    assert SplitConfig(split="global-time", test_from="2020-09-13T12:26:40Z").test_from == 1_600_000_000
    with pytest.raises(ConfigError, match=r"test_from must be seconds since 1970 .* in milliseconds"):
        SplitConfig(split="global-time", test_from=1_600_000_000_000)
