"""A run folder is opened whole and unaltered, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ensue.artefact import ARTEFACT, CARD, METRICS, MODEL, load_run, read_metrics, read_tensors
from ensue.data.simulate import ordered_sequences
from ensue.data.store import SequenceStore
from ensue.errors import ArtefactError
from ensue.recommender import Recommender


@pytest.fixture(name="made")
def _made(tmp_path: Path) -> tuple[Recommender, SequenceStore, Path]:
    store = ordered_sequences()
    recommender = Recommender("sasrec", hidden_units=8, num_blocks=1, maxlen=10, num_epochs=0)
    return recommender.fit(store, tmp_path / "run"), store, tmp_path / "run"


Made = tuple[Recommender, SequenceStore, Path]


def test_a_loaded_run_recommends_the_same(made: Made) -> None:
    recommender, store, folder = made
    history = store.item_ids.decode([1, 2, 3])
    assert Recommender.load(folder).recommend(history, 5) == recommender.recommend(history, 5)


@pytest.mark.parametrize("name", ARTEFACT)
@pytest.mark.parametrize("where", [0.0, 0.5, 0.99])
def test_a_flipped_bit_or_a_cut_is_refused_by_name(made: Made, name: str, where: float) -> None:
    path = made[2] / name
    content = path.read_bytes()
    place = int(where * len(content))
    for bad in (content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], content[:place]):
        path.write_bytes(bad)
        with pytest.raises(ArtefactError, match=name):
            load_run(made[2])


def test_a_file_of_another_run_is_refused(made: Made, tmp_path: Path) -> None:
    other = Recommender("sasrec", hidden_units=8, num_blocks=1, maxlen=10, num_epochs=0, seed=1)
    other.fit(made[1], tmp_path / "other")
    (made[2] / MODEL).write_bytes((tmp_path / "other" / MODEL).read_bytes())
    with pytest.raises(ArtefactError, match=MODEL):
        load_run(made[2])


def test_an_evaluation_cut_short_costs_results_and_no_model(made: Made) -> None:
    recommender, store, folder = made
    recommender.evaluate(store, folder=folder)
    (folder / CARD).write_text("written, but the manifest is not yet")
    (folder / METRICS).write_text("{}")
    assert read_metrics(folder) == {}
    recommender = Recommender.load(folder)
    means, _ = recommender.evaluate(store, folder=folder)
    assert read_metrics(folder)["test/full"]["metrics"] == means


def test_tensors_must_be_those_of_the_configuration(made: Made) -> None:
    path = made[2] / MODEL
    good = load_file(path)
    name = next(iter(good))
    for bad, words in (
        ({**good, "stranger": torch.zeros(1)}, "stranger"),
        ({**good, name: torch.zeros(3, 3, 3)}, name),
        ({**good, name: torch.full_like(good[name], float("nan"))}, "NaN"),
    ):
        save_file(bad, path)
        with pytest.raises(ArtefactError, match=words):
            read_tensors(path, good)
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(ArtefactError, match="header"):
        read_tensors(path, good)
