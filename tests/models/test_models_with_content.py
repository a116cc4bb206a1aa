"""Every kind of encoder with the content of its items, and runs that read it back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ArtefactError, ConfigError, DataError
from ensue.files import read_json, write_json
from ensue.models import Catalogue, build_model, model_config
from ensue.models.gru4rec import GRU4RecConfig
from ensue.models.sasrec import SASRecConfig
from ensue.nn.content import ItemContent
from ensue.recommender import Recommender
from ensue.runs.config import RunConfig, TrainConfig
from ensue.runs.load import load_run
from ensue.testing import NUM_ITEMS, ModelContract, item_vectors
from ensue.train.fit import fit


def catalogue() -> Catalogue:
    return Catalogue(NUM_ITEMS, vector_arrays=item_vectors())


class TestSASRecWithContent(ModelContract):
    config = SASRecConfig(maxlen=16, hidden_units=16, dropout_rate=0.1, item_vectors="frozen")


class TestGRU4RecWithTunedContent(ModelContract):
    config = GRU4RecConfig(
        maxlen=16, hidden_units=32, dropout_rate=0.1, item_vectors="tuned", vector_fusion="gate", vector_rate=0.1
    )


@pytest.mark.parametrize("name", ["bert4rec", "caser", "fpmc", "bst", "hstu", "srgnn", "gcegnn", "tisasrec", "bsarec"])
def test_every_table_of_item_vectors_joins_the_content(name: str) -> None:
    model = build_model(model_config({"name": name, "item_vectors": "frozen", "vector_names": ["text"]}), catalogue())
    contents = [part for part in model.modules() if isinstance(part, ItemContent)]
    assert contents
    assert all(content.get_buffer("content_0").shape[1] == 6 for content in contents)


def test_missing_vectors_are_named() -> None:
    wants = {"name": "sasrec", "item_vectors": "frozen"}
    with pytest.raises(DataError, match="the data has no vectors of its items: store them with ensue prepare --items"):
        build_model(model_config(wants), Catalogue(5))
    with pytest.raises(DataError, match="the items have no vectors 'txt': did you mean 'text'"):
        build_model(model_config({**wants, "vector_names": ["txt"]}), catalogue())
    with pytest.raises(ConfigError, match="vector_names needs item_vectors"):
        model_config({"name": "sasrec", "vector_names": ["text"]})


def test_a_run_contains_the_content_and_refuses_another_width(tmp_path: Path) -> None:
    store = replace(ordered_sequences(num_users=40, num_items=40, length=6), vectors=item_vectors())
    model = SASRecConfig(maxlen=8, hidden_units=8, item_vectors="frozen")
    config = RunConfig(model=model, train=TrainConfig(num_epochs=1, device="cpu"))
    fitted = fit(config, store, tmp_path / "run").run
    loaded = load_run(tmp_path / "run")
    assert loaded.vector_widths == {"text": 6, "pic": 3}
    for name, tensor in fitted.model.state_dict().items():
        assert np.array_equal(tensor, loaded.model.state_dict()[name]), name
    about = read_json(tmp_path / "run" / "manifest.json")
    write_json(tmp_path / "run" / "manifest.json", {**about, "vectors": {"text": 7, "pic": 3}})
    with pytest.raises(ArtefactError, match=r"'items.content.content_1' is \[41, 6\]"):
        load_run(tmp_path / "run")


def test_an_item_that_training_never_saw_is_recommended_by_its_content() -> None:
    """Item 21 occurs only as the last event of the last user, which is held out; it has the content of another item."""
    base = ordered_sequences(num_users=300, num_items=20, length=8)
    content = np.random.default_rng(0).normal(size=(21, 24)).astype(np.float32)
    items, offsets = np.append(base.items, 21), base.offsets.copy()
    offsets[-1] += 1
    before, last, after = (int(item) for item in base.items[:3])
    content[20] = content[after - 1]
    store = replace(type(base).from_arrays(offsets, items), vectors={"text": content})
    settings = {"maxlen": 8, "hidden_units": 16, "dropout_rate": 0.0, "loss": "ce", "lr": 0.01, "num_epochs": 10}
    recommender = Recommender(
        "sasrec", item_vectors="frozen", vector_rate=0.5, device="cpu", patience=0, **settings
    ).fit(store)
    assert {after, 21} <= set(recommender.recommend([before, last], k=3).ids)
