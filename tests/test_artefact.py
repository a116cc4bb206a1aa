"""A run folder is opened whole and unaltered, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ensue.artefact import load_run, read_metrics, read_tensors
from ensue.data.simulate import ordered_sequences
from ensue.data.store import SequenceStore
from ensue.errors import ArtefactError
from ensue.evaluate import EvaluateConfig
from ensue.files import check_files, read_json, read_manifest, write_json
from ensue.recommender import Recommender
from ensue.train.folder import ARTEFACT, CARD, LOG, METRICS, MODEL
from ensue.train.log import read_log


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


@pytest.mark.parametrize("cut", ["write_json", "write_text", "_seal"])
def test_an_evaluation_cut_short_loses_no_other(made: Made, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before metrics.json, before the card, or before the manifest is written."""
    recommender, store, folder = made
    config = EvaluateConfig()
    recommender.evaluate(store, "test", config, folder)
    first = read_metrics(folder)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"ensue.artefact.{cut}", kill)
        with pytest.raises(KeyboardInterrupt):
            recommender.evaluate(store, "validation", config, folder)
    assert read_metrics(folder)["test/full"] == first["test/full"]
    recommender = Recommender.load(folder)
    recommender.evaluate(store, "test", config.replace(protocol="uniform-100"), folder)
    assert {"test/full", "test/uniform-100"} <= set(read_metrics(folder))
    recommender.evaluate(store, "validation", config, folder)
    assert set(read_metrics(folder)) == {"test/full", "test/uniform-100", "validation/full"}
    check_files(folder, read_manifest(folder, "run", 1))


def test_altered_figures_are_refused_and_not_dropped(made: Made) -> None:
    recommender, store, folder = made
    recommender.evaluate(store, folder=folder)
    path = folder / METRICS
    results = read_json(path)
    results["test/full"]["metrics"]["ndcg@10"] = 0.99
    write_json(path, results)
    assert read_metrics(folder) == {}
    with pytest.raises(ArtefactError, match=r"metrics\.json: was altered, and 'test/full'"):
        recommender.evaluate(store, "validation", folder=folder)
    assert read_json(path) == results
    means, _ = recommender.evaluate(store, folder=folder)
    assert read_metrics(folder)["test/full"]["metrics"] == means
    path.write_text("{")
    with pytest.raises(ArtefactError, match="not valid JSON"):
        recommender.evaluate(store, folder=folder)
    path.unlink()
    recommender.evaluate(store, folder=folder)


def test_an_evaluation_goes_to_the_run_that_was_evaluated(made: Made, tmp_path: Path) -> None:
    recommender, store, folder = made
    settings = {"hidden_units": 8, "num_blocks": 1, "maxlen": 10, "num_epochs": 0}
    others = [Recommender("markov"), Recommender("sasrec", **settings, seed=1), Recommender("sasrec", **settings)]
    others[2].fit(store)
    assert others[2].run is not None
    with torch.no_grad():
        next(others[2].run.model.parameters())[1, 0] += 1.0
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for other in others[:2]:
        other.fit(store)
    for other in others:
        with pytest.raises(ArtefactError, match="holds another run"):
            other.evaluate(store, folder=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    with pytest.raises(ArtefactError, match="no such folder"):
        recommender.evaluate(store, folder=tmp_path / "nowhere")


def test_saving_again_keeps_log_and_evaluations(tmp_path: Path) -> None:
    store = ordered_sequences()
    recommender = Recommender("sasrec", hidden_units=8, num_blocks=1, maxlen=10, num_epochs=2, device="cpu")
    recommender.fit(store, tmp_path)
    recommender.evaluate(store, folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    Recommender.load(tmp_path).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert [record["epoch"] for record in read_log(tmp_path / LOG)] == [1, 2]


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
