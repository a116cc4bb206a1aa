"""Every encoder reads features through one module: what it adds, what serving needs, and what a run keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from ensue.batches.batch import SequenceBatch, history_batch
from ensue.batches.loader import take_share
from ensue.data.featured import split_with_features
from ensue.data.features import Feature
from ensue.data.split import SplitConfig
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ArtefactError, ConfigError, DataError, OtherRunError
from ensue.models import MODELS, Catalogue, Encoder, build_model
from ensue.models.base import FeatureConfig
from ensue.models.gru4rec import GRU4Rec
from ensue.models.sasrec import SASRecConfig
from ensue.nn.embedding import dense_gradients, initialise
from ensue.nn.features import FEATURE_MODES, FeatureInput
from ensue.nn.model import EventEncoder
from ensue.recommender import Recommender

KIND = Feature("kind", "item", ("a", "b"))
EVENT = Feature("event", "event", ("buy", "view"))
CITY = Feature("city", "user", ("Oslo",))
CATALOGUE = Catalogue(6, pl.DataFrame({"kind": ["a", "b", None, "a", "b", "a"]}), 0, (KIND, EVENT, CITY))
NAMES = ("kind", "event", "city")
ENCODERS = [
    name
    for name in MODELS
    if issubclass(MODELS[name].config, FeatureConfig)
    and MODELS[name].config.__module__.startswith("ensue.")
    and name != "bst"
]


def batch_of(event: list[int], city: list[int], histories: list[list[int]]) -> SequenceBatch:
    items, lengths = np.concatenate(histories), np.array([len(history) for history in histories])
    times = np.arange(len(items))
    features = {"event": np.array(event), "city": np.array(city)}
    return SequenceBatch.from_numpy(items, lengths, times, times + 1, features=features)


BATCH = batch_of([1, 2, 2, 1, 0], [1, 1, 1, 0, 0], [[1, 2, 3], [4, 5]])


def encoder_of(name: str, **settings: Any) -> EventEncoder:
    values = {"name": name, "maxlen": 12, "features": NAMES, **settings}
    model = build_model(MODELS[name].config.parse(values), CATALOGUE)
    assert isinstance(model, EventEncoder)
    initialise(model, 0)
    return model.eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_reads_the_features_of_its_events(name: str) -> None:
    model = encoder_of(name)
    state = model.encode(BATCH)
    other = replace(BATCH, features={**BATCH.features, "event": torch.tensor([1, 2, 1, 1, 1])})  # type: ignore[dict-item]
    assert not torch.equal(model.encode(other)[0], state[0])
    without = replace(BATCH, features=None)
    with pytest.raises(DataError, match="this model reads the event feature 'event', which is absent"):
        model.encode(without)
    torch.autograd.backward(state.square().sum())
    dense_gradients(model.parameters())
    assert isinstance(model.features, FeatureInput)
    for table in model.features.vectors.tables:
        assert table.grad is not None
        assert bool(table.grad.any())


def test_a_model_without_features_has_no_module_and_no_codes() -> None:
    model = build_model(SASRecConfig(maxlen=8), Catalogue(6))
    assert isinstance(model, EventEncoder)
    assert model.features is None
    assert not any("feature" in name for name in model.state_dict())
    store = ordered_sequences(num_users=4, num_items=6, length=5)
    split = split_with_features(store, SplitConfig(), ())
    assert history_batch(split.train, np.arange(4), 8).features is None


@torch.no_grad()
def test_the_modes_are_their_equations() -> None:
    items, vectors = torch.tensor([1, 2, 3]), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    codes = {"event": torch.tensor([1, 2, 0]), "city": torch.tensor([1, 2, 0])}
    for mode in FEATURE_MODES:
        module = FeatureInput(CATALOGUE.coded_features(), 4, mode)
        initialise(module, 1)
        kind, event, city = module.vectors.tables
        # A missing value and one that training did not have start at zero: such an event has no feature.
        assert not torch.stack([table[row] for table in (kind, event, city) for row in (0, -1)]).any()
        parts = [kind[[1, 2, 0]], event[codes["event"]], city[codes["city"]]]
        expected = {"sum": vectors + sum(parts)}
        joined = module.join
        if mode == "concat":
            expected[mode] = torch.cat((vectors, *parts), 1) @ joined.joined.weight.T + joined.joined.bias
        if mode == "gate":
            added = torch.stack(parts).sum(0)
            gate = torch.cat((vectors, added), 1) @ joined.gate.weight.T + joined.gate.bias
            expected[mode] = vectors + gate.sigmoid() * added
        torch.testing.assert_close(module(vectors, items, codes), expected[mode])


@torch.no_grad()
def test_an_item_with_several_values_has_their_mean() -> None:
    tags = Feature("tags", "item", ("p", "q"))
    catalogue = Catalogue(3, pl.DataFrame({"tags": [["p", "q"], ["q"], []]}), 0, (tags,))
    module = FeatureInput(catalogue.coded_features(), 4, "sum")
    initialise(module, 1)
    table = module.vectors.tables[0]
    expected = torch.stack((table[1:3].mean(0), table[2], table[0]))
    torch.testing.assert_close(module(torch.zeros(3, 4), torch.tensor([1, 2, 3]), None), expected)


def test_a_share_of_a_batch_has_its_own_codes() -> None:
    share = take_share(BATCH, 1, 2)
    assert share is not None
    assert share.features is not None
    assert share.features["event"].tolist() == [1, 0]
    assert BATCH.asking_all().features is BATCH.features


@torch.no_grad()
@pytest.mark.parametrize("input_kind", ["tied", "none"])
def test_gru4rec_advances_with_features(input_kind: str) -> None:
    model = encoder_of("gru4rec", input=input_kind, feature_mode="concat")
    assert isinstance(model, GRU4Rec)
    state = model.begin(1)
    for event, item in enumerate((1, 2, 3)):
        codes = {name: x[event : event + 1] for name, x in (BATCH.features or {}).items()}
        state, h_BD = model.advance(state, torch.tensor([item]), codes)
    torch.testing.assert_close(h_BD[0], model.encode(BATCH)[0])


def world(num_users: int = 200) -> SequenceStore:
    """The next item is the one after it, or, after an event `back`, the one before it: only the feature knows."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(1, 3, (num_users, 8))
    items = np.zeros((num_users, 8), dtype=np.int64)
    items[:, 0] = rng.integers(0, 10, num_users)
    for step in range(1, 8):
        items[:, step] = (items[:, step - 1] + np.where(kinds[:, step - 1] == 1, -1, 1)) % 10
    return SequenceStore.from_arrays(
        np.arange(0, num_users * 8 + 1, 8),
        items.ravel() + 1,
        features={"event": kinds.ravel().astype(np.int32)},
        feature_values={"event": Vocabulary.from_ids(["back", "on"])},
        users=Vocabulary.of_range(num_users),
        user_table=pl.DataFrame({"id": np.arange(1, num_users + 1), "city": ["x", "y"] * (num_users // 2)}),
    )


SMALL = {
    "hidden_units": 16,
    "num_epochs": 12,
    "batch_size": 32,
    "lr": 0.02,
    "loss": "ce",
    "device": "cpu",
    "dropout_rate": 0.0,
}


def test_what_only_a_feature_knows_is_learnt_saved_and_served(tmp_path: Path) -> None:
    store = world()
    plain = Recommender("gru4rec", filter_seen=False, **SMALL).fit(store)
    recommender = Recommender("gru4rec", filter_seen=False, features=("event", "city"), **SMALL)
    recommender.fit(store, tmp_path / "run")
    assert recommender.evaluate(store)[0]["hr@1|seen"] > 0.9 > 0.7 > plain.evaluate(store)[0]["hr@1|seen"]
    loaded = Recommender.load(tmp_path / "run")

    def next_after(**features: Any) -> Any:
        return loaded.recommend([3, 4, 5], k=1, exclude_seen=False, features=features).ids

    assert next_after(event=["on", "on", "on"], city="x") == [6]
    assert next_after(event=["on", "on", "back"], city="unheard of") == [4]
    assert loaded.recommend_all(store, 1, exclude_seen=False)["item"].len() == 200
    with pytest.raises(DataError, match=r"reads the event feature 'event': give the value of each of the 3 items"):
        next_after(city="x")
    with pytest.raises(DataError, match=r"reads the user feature 'city': give the value of the user"):
        next_after(event=[None, "on", "on"])
    with pytest.raises(DataError, match=r"'event' must have one value for each of the history's 3 items \(got 1\)"):
        next_after(event=["on"], city="x")
    with pytest.raises(ConfigError, match="feature 'evnt' is not read by this model: did you mean 'event'"):
        next_after(evnt=["on"])
    with pytest.raises(ConfigError, match="feature 'event' is not read by this model"):
        plain.recommend([1], features={"event": ["on"]})
    with pytest.raises(DataError, match="no event column 'event', which this model reads"):
        loaded.recommend_all(replace(store, features={}))
    (tmp_path / "run" / "features.json").write_text("[]")
    with pytest.raises(ArtefactError, match=r"features.json: altered"):
        Recommender.load(tmp_path / "run")


def test_tables_that_changed_are_noticed(tmp_path: Path) -> None:
    """A store's fingerprint does not cover its tables, but a run that reads them must not go on with others."""
    store = world(40)
    kinds = store.item_table.with_columns(kind=pl.Series(["a", "b"] * 5))
    store = replace(store, item_table=kinds)
    other_kinds = replace(store, item_table=kinds.with_columns(kind=pl.Series(["b", "a"] * 5)))
    other_cities = replace(store, user_table=store.user_table.with_columns(city=pl.Series(["y", "x"] * 20)))
    titled = replace(store, item_table=kinds.with_columns(title=pl.Series([f"item {n}" for n in range(10)])))
    settings = {**SMALL, "num_epochs": 2, "features": ("kind", "city")}
    Recommender("gru4rec", **settings).fit(store, tmp_path / "run")
    Recommender("gru4rec", **settings).fit(titled, tmp_path / "run")
    with pytest.raises(OtherRunError, match=r"run contains a run that was trained with other values of kind: use"):
        Recommender("gru4rec", **settings).fit(other_kinds, tmp_path / "run")
    for other, name in ((other_kinds, "kind"), (other_cities, "city")):
        with pytest.raises(OtherRunError, match=f"trained with other values of {name}:"):
            Recommender("gru4rec", **{**settings, "num_epochs": 3}).fit(other, tmp_path / "run")
    assert len(Recommender("gru4rec", **{**settings, "num_epochs": 3}).fit(titled, tmp_path / "run").log) == 3


def test_bert4rec_masks_the_features_of_masked_events() -> None:
    model = encoder_of("bert4rec")
    assert isinstance(model, Encoder)
    recommender = Recommender("bert4rec", features=("event",), **{**SMALL, "num_epochs": 1}).fit(world(40))
    assert len(recommender.recommend([3, 4], k=2, features={"event": ["on", None]})) == 2
