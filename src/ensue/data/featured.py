"""The features of a store: fitted on the training part of a split, and the codes of all events and users.

Suffixes: `E` events of the store, `U` its users, `P` events of the training part, `R` its rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ensue.data.features import LEVELS, Feature, FeatureSpec, Inputs, Level, fit_feature, parse_features
from ensue.data.split import Sequences, Split, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import ExternalId
from ensue.errors import DataError, OtherRunError, nearest


def split_with_features(store: SequenceStore, config: SplitConfig, features: Sequence[str]) -> Split:
    """`make_split`, of a store whose batches carry the features that a model reads.

    Args:
        store: the data.
        config: the split.
        features: the model's setting `features`; without any the split is that of `make_split`.

    Raises:
        DataError: the data has no such column, or the split needs what the data does not have.
    """
    split = make_split(store, config)
    if not features:
        return split
    return make_split(with_inputs(store, fit_features(split.train, features)), config)


def fit_features(train: Sequences, features: Sequence[str]) -> tuple[Feature, ...]:
    """The values and buckets of columns, determined from the training part alone.

    A number of buckets that is not given is that of `ensue prepare --features`, if one was given there.

    Raises:
        DataError: the data has no such column, or its values are neither numbers nor texts.
    """
    store = train.store
    prepared = parse_features(store.made.get("features", ()))
    fitted = []
    for name, spec in parse_features(features).items():
        of = _level(store, spec)
        if of == "event":
            stored = store.features[name][train.events_P]
            column = _event_values(store, name, np.unique(stored) if name in store.feature_values else stored)
        elif of == "item":
            column = store.item_table[name].gather(np.unique(train.items_P) - 1)
        else:
            column = store.user_table[name].gather(np.unique(train.users_R))
        before = prepared.get(name)
        fitted.append(fit_feature(name, of, column, spec.buckets or (before.buckets if before else None)))
    return tuple(fitted)


def with_inputs(store: SequenceStore, features: tuple[Feature, ...]) -> SequenceStore:
    """The same data with the codes of features, which its batches then carry.

    Columns of items are not read: a model has its own.

    Raises:
        DataError: a column of events or users is absent.
    """
    if not features:
        return store
    events, users = {}, {}
    for feature in features:
        name = feature.name
        if feature.of == "event":
            _check_column(store, feature)
            events[name] = _event_codes(store, feature)
        elif feature.of == "user":
            _check_column(store, feature)
            users[name] = feature.codes(store.user_table[name]).astype(np.int32)
    return replace(store, inputs=Inputs(features, events, users), recorded=store.fingerprint)


def columns_of_items(items: pl.DataFrame, features: Sequence[Feature]) -> dict[str, str]:
    """Name -> SHA-256 of what each feature of items reads of an item table."""
    return {each.name: _digest(each.item_codes(items[each.name])) for each in features if each.of == "item"}


def columns_of(store: SequenceStore) -> dict[str, str]:
    """Name -> SHA-256 of what each feature of items and users reads of a store's tables.

    The fingerprint of a store does not cover its tables, so that a corrected title does not make it other data.
    """
    if store.inputs is None:
        return {}
    users = {name: _digest(codes_U) for name, codes_U in store.inputs.users.items()}
    return columns_of_items(store.item_table, store.inputs.features) | users


def check_columns(folder: Path | None, store: SequenceStore, then: Mapping[str, str]) -> None:
    """Check that a run in a folder was trained with the values that the tables have now.

    Args:
        folder: the folder, for the message.
        store: the data, with the inputs of the model.
        then: what `columns_of` or `columns_of_items` gave for the run.

    Raises:
        OtherRunError: a column has changed; the message names it.
    """
    now = columns_of(store)
    changed = [name for name, digest in then.items() if now.get(name) != digest]
    if changed:
        raise OtherRunError(
            f"{folder} contains a run that was trained with other values of {', '.join(changed)}: use the tables of "
            "items and users that it was trained with, choose another folder, or replace the run (ensue train: "
            "--overwrite)"
        )


def _digest(codes: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(codes, dtype="<i8").tobytes()).hexdigest()


def features_of_user(store: SequenceStore, user: ExternalId, features: Sequence[Feature]) -> dict[str, Any]:
    """The values of the features of a user in the data, for `Recommender.recommend`.

    Raises:
        DataError: the data has no such column.
    """
    number = int(store.users.encode([user])[0])
    events = slice(int(store.offsets[number - 1]), int(store.offsets[number]))
    values: dict[str, Any] = {}
    for feature in features:
        name = feature.name
        if feature.of != "item":
            _check_column(store, feature)
        if feature.of == "event":
            values[name] = _event_values(store, name, store.features[name][events]).to_list()
        elif feature.of == "user":
            values[name] = store.user_table[name][number - 1]
    return values


def _check_column(store: SequenceStore, feature: Feature) -> None:
    """Check that a store has a column of events or users.

    Raises:
        DataError: it has not.
    """
    columns = store.features if feature.of == "event" else store.user_table.columns
    if feature.name not in columns:
        option = f"--features {feature.name}" + (":user" if feature.of == "user" else "")
        raise DataError(
            f"the data has no {feature.of} column {feature.name!r}, which this model reads: "
            f"{nearest(feature.name, columns)}; ensue prepare {option} keeps it"
        )


def _level(store: SequenceStore, spec: FeatureSpec) -> Level:
    """What a feature is a column of.

    Raises:
        DataError: the data has no such column.
    """
    columns: dict[Level, list[str]] = {
        "event": list(store.features),
        "item": [name for name in store.item_table.columns if name != "id"],
        "user": [name for name in store.user_table.columns if name != "id"],
    }
    for of in LEVELS:
        if spec.of in (None, of) and spec.name in columns[of]:
            return of
    known = [name for of in LEVELS if spec.of in (None, of) for name in columns[of]]
    raise DataError(
        f"features: the data has no {spec.of or 'event, item or user'} column {spec.name!r}: "
        f"{nearest(spec.name, known)}; ensue prepare --features {spec.name} keeps a column of the log, "
        "and --items FILE and --users FILE read columns of items and users; every model does without features (omit it)"
    )


def _event_values(store: SequenceStore, name: str, stored: np.ndarray) -> pl.Series:
    """The values that stand in the store as numbers, or as codes, 0 for null."""
    if name not in store.feature_values:
        return pl.Series(np.asarray(stored))
    ids = store.feature_values[name].ids
    return pl.concat([pl.Series([None], dtype=ids.dtype), ids]).gather(np.asarray(stored))


def _event_codes(store: SequenceStore, feature: Feature) -> np.ndarray:
    """The model's codes of all events, int32 [E]."""
    stored_E, coded = np.asarray(store.features[feature.name]), store.feature_values.get(feature.name)
    if coded is None:
        return feature.codes(pl.Series(stored_E)).astype(np.int32)
    of_codes = feature.codes(_event_values(store, feature.name, np.arange(len(coded) + 1)))
    codes_E: np.ndarray = of_codes.astype(np.int32)[stored_E]
    return codes_E
