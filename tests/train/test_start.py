"""A training that starts from the weights of a run: second stages, exact resume, and runs that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensue.batches.tasks import make_windows
from ensue.data.split import SplitConfig, make_split
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ArtefactError, ConfigError, DataError
from ensue.recommender import Recommender
from ensue.runs.config import RunConfig
from ensue.testing import EachStep
from ensue.train.loop import Trainer

STORE = ordered_sequences(num_users=30, num_items=20, length=8)
SMALL: dict[str, Any] = {"loss": "ce", "hidden_units": 8, "maxlen": 8, "device": "cpu", "patience": 0, "num_epochs": 1}


def weights(recommender: Recommender) -> dict[str, torch.Tensor]:
    assert recommender.run is not None
    return dict(recommender.run.model.named_parameters())


@pytest.fixture(scope="module", params=["bert4rec", "gru4rec"])
def first(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A model's name and a finished run of it."""
    folder = tmp_path_factory.mktemp("first") / "run"
    Recommender(request.param, **SMALL).fit(STORE, folder)
    return request.param, str(folder)


def test_training_starts_from_the_weights_of_the_run(first: tuple[str, str]) -> None:
    name, folder = first
    settings = {**SMALL, "num_epochs": 0, "start_from": folder, "stage": "fine-tune"}
    started = weights(Recommender(name, **settings).fit(STORE))
    for key, weight in weights(Recommender.load(folder)).items():
        assert torch.equal(started[key], weight), key
    other = weights(Recommender(name, **{**settings, "num_epochs": 1}).fit(STORE))
    assert not all(torch.equal(started[key], weight) for key, weight in other.items())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tiger", {"loss": "likelihood", "code_levels": 2, "code_size": 4}),
        ("sasrec", {"attention": "performer", "attention_window": 2, "num_heads": 1}),
    ],
)
def test_tensors_that_belong_to_the_weights_come_with_them(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    """On other events of the same items, and another seed, the codes and the random features would be others."""
    settings = {**SMALL, **settings}
    run = Recommender(name, **settings).fit(STORE, tmp_path / "run")
    other = ordered_sequences(num_users=30, num_items=20, length=8, seed=5)
    settings = {**settings, "num_epochs": 0, "seed": 7}
    started = Recommender(name, **settings, start_from=str(tmp_path / "run")).fit(other)
    fresh = Recommender(name, **settings).fit(other)
    first, state, own = (each.run.model.state_dict() for each in (run, started, fresh) if each.run is not None)
    for key, value in first.items():
        assert torch.equal(state[key], value), key
    key = "codes_NL" if name == "tiger" else next(key for key in own if key.endswith("directions_Fd"))
    assert not torch.equal(own[key], state[key])


def test_the_second_stage_asks_for_the_newest_item_alone(first: tuple[str, str]) -> None:
    name, folder = first
    config = Recommender(name, **SMALL, start_from=folder, stage="fine-tune").config
    windows = make_windows(make_split(STORE, SplitConfig()).train, 8, "last")
    batch = config.make_task().make(windows, np.arange(5), np.random.default_rng(0))
    assert torch.equal(batch.asked_Q, batch.layout.last_B)
    assert batch.target_Q is not None
    assert batch.target_Q.tolist() == STORE.items[windows.stop_W[:5] - 1].tolist()


def test_an_interrupted_second_stage_ends_with_the_same_bits(first: tuple[str, str], tmp_path: Path) -> None:
    name, folder = first
    settings = {**SMALL, "num_epochs": 2, "batch_size": 8, "checkpoint_minutes": 0}
    config = Recommender(name, **settings, start_from=folder, stage="fine-tune").config
    split = make_split(STORE, config.split)

    def interrupt(epoch: int, step: int) -> None:
        if epoch == 1:
            assert step == 5
            raise KeyboardInterrupt

    whole = Trainer(config, split).run().model.state_dict()
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, split, tmp_path, [EachStep(interrupt)]).run()
    resumed = Trainer(config, split, tmp_path).run().model.state_dict()
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key


def test_runs_that_do_not_fit(first: tuple[str, str], tmp_path: Path) -> None:
    name, folder = first
    with pytest.raises(ConfigError, match=r"items.weight is \[2[12], 4\].*use the settings of that run \(--config"):
        Recommender(name, **{**SMALL, "hidden_units": 4}, start_from=folder).fit(STORE)
    with pytest.raises(DataError, match="has 20 items and the data 12, and they are not the same"):
        Recommender(name, **SMALL, start_from=folder).fit(ordered_sequences(num_users=9, num_items=12, length=6))
    with pytest.raises(ArtefactError):
        Recommender(name, **SMALL, start_from=str(tmp_path)).fit(STORE)


def test_settings_that_contradict() -> None:
    with pytest.raises(ConfigError, match=r"stage fine-tune needs the run to start from: start_from"):
        Recommender("bert4rec", stage="fine-tune")
    with pytest.raises(ConfigError, match="model popularity is fitted by counting"):
        RunConfig.parse({"model": {"name": "popularity"}, "train": {"start_from": "runs/x"}})
