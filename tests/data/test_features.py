"""Columns of events, items and users become codes, and what they are follows from the training part alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ensue.data.featured import features_of_user, fit_features, split_with_features, with_inputs
from ensue.data.features import Feature, FeatureSpec, parse_features
from ensue.data.interactions import Columns
from ensue.data.prepare import prepare
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.errors import ArtefactError, ConfigError, DataError

LOG = pl.DataFrame(
    {
        "user": ["a"] * 4 + ["b"] * 4,
        "item": [1, 2, 3, 4, 2, 3, 1, 5],
        "time": [1, 2, 3, 4, 1, 2, 3, 4],
        "event": ["view", "view", "buy", "gift", "buy", "view", "view", "view"],
        "price": [1.0, 2.0, None, 9.0, 2.0, 3.0, 1.0, 50.0],
        "brand": ["x", "y", None, "z", "y", "x", "x", "w"],
        "city": ["Rome"] * 4 + [None, "Oslo", "Oslo", "Oslo"],
    }
)
ITEMS = pl.DataFrame({"id": [1, 2, 3, 5], "tags": [["p", "q"], ["q"], [], ["r", "p"]], "size": [1, 2, 3, 4]})
USERS = pl.DataFrame({"user": ["b", "a"], "age": [31, 77]})
NAMED = ("event", "price:buckets=2", "brand:item", "city:user", "tags", "age")


@pytest.fixture(scope="module")
def store() -> SequenceStore:
    return prepare(LOG, columns=Columns(features=NAMED), items=ITEMS, users=USERS)[0]


def test_prepare_keeps_columns_of_events_items_and_users(store: SequenceStore) -> None:
    assert set(store.features) == {"event", "price"}
    assert store.item_table["brand"].to_list() == ["x", "y", "x", "z", "w"]
    assert store.item_table.columns == ["id", "tags", "size", "brand"]
    assert store.user_table.to_dict(as_series=False) == {"id": ["a", "b"], "age": [77, 31], "city": ["Rome", "Oslo"]}
    assert store.made["features"] == list(NAMED)


def test_the_table_of_users_is_written_and_read(store: SequenceStore, tmp_path) -> None:  # type: ignore[no-untyped-def]
    store.save(tmp_path / "store")
    assert SequenceStore.open(tmp_path / "store").user_table.equals(store.user_table)


def test_values_and_buckets_come_from_the_training_part(store: SequenceStore) -> None:
    event, price, tags, age = fit_features(
        make_split(store, SplitConfig()).train, ("event", "price", "tags", "age:buckets=2")
    )
    # The training part is the first two events of each user.
    assert event == Feature("event", "event", ("buy", "view"))
    assert price == Feature("price", "event", None, (2.0,))
    assert tags == Feature("tags", "item", ("p", "q"))
    assert age == Feature("age", "user", None, (54.0,))
    assert event.codes(pl.Series(["view", None, "gift", ""])).tolist() == [2, 0, 3, 0]
    assert price.codes(pl.Series([1.0, 2.0, None, 99.0])).tolist() == [1, 2, 0, 2]
    assert tags.item_codes(store.item_table["tags"]).tolist() == [
        [0, 0],
        [1, 2],
        [2, 0],
        [0, 0],
        [0, 0],
        [3, 1],
        [0, 0],
    ]


def test_batches_get_codes_and_the_data_stays_the_same(store: SequenceStore) -> None:
    split = split_with_features(store, SplitConfig(), ("event", "city", "tags"))
    coded = split.train.store
    assert coded.fingerprint == store.fingerprint
    assert coded.inputs is not None
    assert coded.inputs.events["event"].tolist() == [2, 2, 1, 3, 1, 2, 2, 2]
    codes = coded.inputs.at(np.array([0, 3, 4]), np.array([0, 0, 1]))
    assert {name: x.tolist() for name, x in codes.items()} == {"event": [2, 3, 1], "city": [2, 2, 1]}
    assert split_with_features(store, SplitConfig(), ()).train.store is store


def test_values_of_a_user_for_a_request(store: SequenceStore) -> None:
    features = fit_features(make_split(store, SplitConfig()).train, ("event", "price", "city", "tags"))
    given = features_of_user(store, "b", features)
    assert given == {"event": ["buy", "view", "view", "view"], "price": [2.0, 3.0, 1.0, 50.0], "city": "Oslo"}


def test_an_absent_column_is_named(store: SequenceStore) -> None:
    train = make_split(store, SplitConfig()).train
    with pytest.raises(DataError, match=r"no event, item or user column 'brnd': did you mean 'brand'.*--features brnd"):
        fit_features(train, ("brnd",))
    with pytest.raises(DataError, match="no user column 'event'"):
        fit_features(train, ("event:user",))
    with pytest.raises(DataError, match=r"feature 'event' is in buckets, so it must contain numbers \(got 'buy'\)"):
        fit_features(train, ("event:buckets=3",))
    features = fit_features(train, ("event", "age"))
    newer = replace(store, features={})
    with pytest.raises(DataError, match=r"no event column 'event', which this model reads.*prepare --features event"):
        with_inputs(newer, features)
    with pytest.raises(DataError, match="no user column 'age'"):
        with_inputs(replace(store, user_table=pl.DataFrame()), features)


def test_the_form_of_a_setting() -> None:
    assert parse_features(("price:item:buckets=5", "event"))["price"] == FeatureSpec("price", "item", 5)
    for wrong in ("price:buckets=1", "price:shop", "", ":item", "price:buckets=x"):
        with pytest.raises(ConfigError, match="must be NAME"):
            parse_features((wrong,))
    with pytest.raises(ConfigError, match="'event' is named twice"):
        parse_features(("event", "event:item"))


def test_a_feature_survives_json() -> None:
    for feature in (Feature("a", "user", ("x",)), Feature("b", "item", None, (1.0, 2.5))):
        assert Feature.from_dict(feature.as_dict()) == feature
    sound = Feature("a", "user").as_dict()
    for wrong in ({}, [], {**sound, "of": "shop"}, {**sound, "edges": ["x"]}, {**sound, "values": "abc"}):
        with pytest.raises(ArtefactError, match="not a feature"):
            Feature.from_dict(wrong)
