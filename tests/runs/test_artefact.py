"""A run folder is opened whole and unaltered, or refused by name."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ensue.data.store import SequenceStore
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ArtefactError, ConfigError
from ensue.evaluation.protocol import EvaluateConfig
from ensue.files import MANIFEST, check_files, read_json, read_manifest, sha256, write_json
from ensue.models import MODELS, Catalogue, build_model, model_config
from ensue.models.sasrec import SASRecConfig
from ensue.nn.residual import RESIDUALS
from ensue.recommender import Recommender
from ensue.runs.config import RunConfig
from ensue.runs.folder import ARTEFACT, CARD, CONFIG, LOG, METRICS, MODEL
from ensue.runs.load import load_run
from ensue.runs.log import read_log
from ensue.runs.results import read_metrics
from ensue.runs.tensors import ENTRY_BYTES, ENTRY_LIMIT, HEADER_LIMIT, read_tensors


@pytest.fixture(name="made")
def _made(tmp_path: Path) -> tuple[Recommender, SequenceStore, Path]:
    store = ordered_sequences()
    recommender = Recommender("sasrec", hidden_units=8, num_blocks=1, maxlen=10, num_epochs=0)
    return recommender.fit(store, tmp_path / "run"), store, tmp_path / "run"


Made = tuple[Recommender, SequenceStore, Path]


def reseal(folder: Path) -> None:
    """Make the manifest agree with whatever is in the folder, as someone who edits files may."""
    about = read_json(folder / MANIFEST)
    about["sha256"] = {name: sha256(folder / name) for name in about["sha256"]}
    write_json(folder / MANIFEST, about)


def test_a_loaded_run_recommends_the_same(made: Made) -> None:
    recommender, store, folder = made
    history = store.item_ids.decode([1, 2, 3])
    assert Recommender.load(folder).recommend(history, 5) == recommender.recommend(history, 5)
    assert load_run(str(folder)).fingerprint == load_run(folder).fingerprint == store.fingerprint


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


@pytest.mark.parametrize("cut", ["evaluations.write_json", "save.write_text", "evaluations.seal"])
def test_an_evaluation_cut_short_loses_no_other(made: Made, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before metrics.json, before the card, or before the manifest is written."""
    recommender, store, folder = made
    config = EvaluateConfig()
    recommender.evaluate(store, "test", config, folder)
    first = read_metrics(folder)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"ensue.runs.{cut}", kill)
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
    with pytest.raises(ArtefactError, match=r"metrics\.json: was altered: 'test/full'"):
        recommender.evaluate(store, "validation", folder=folder)
    with pytest.raises(ArtefactError, match=r"metrics\.json: was altered: 'test/full'"):
        Recommender.load(folder).save(folder)
    assert read_json(path) == results
    means, _ = recommender.evaluate(store, folder=folder)
    assert read_metrics(folder)["test/full"]["metrics"] == means
    path.write_text("{")
    with pytest.raises(ArtefactError, match="not valid JSON"):
        recommender.evaluate(store, folder=folder)
    path.unlink()
    recommender.evaluate(store, folder=folder)


EDITS: dict[str, Any] = {
    "part": "validation",
    "protocol": "uniform-100",
    "settings": {"protocol": "full"},
    "users": 3,
    "cases": 3,
    "targets_in_history": 5,
    "targets_untrained": 5,
    "tied": 0.5,
    "metrics": {},
    "groups": {},
    "fingerprint": "0" * 64,
    "per_user": "per_user-validation-full.parquet",
    "per_user_sha256": "0" * 64,
    "sha256": None,
}


def test_every_part_of_an_entry_is_checked(made: Made) -> None:
    recommender, store, folder = made
    recommender.evaluate(store, folder=folder)
    recommender.evaluate(store, "validation", folder=folder)
    written = read_json(folder / METRICS)
    assert set(written["test/full"]) == set(EDITS)
    for name, value in EDITS.items():
        assert written["test/full"][name] != value
        write_json(folder / METRICS, {**written, "test/full": {**written["test/full"], name: value}})
        assert set(read_metrics(folder)) == {"validation/full"}, name
    write_json(folder / METRICS, {**written, "test/full": {**written["test/full"], "note": "the best"}})
    assert set(read_metrics(folder)) == {"validation/full"}
    write_json(folder / METRICS, dict(zip(written, reversed(written.values()), strict=True)))
    assert read_metrics(folder) == {}
    write_json(folder / METRICS, {**written, "test/full": [], "more": None})
    assert read_metrics(folder) == {"validation/full": written["validation/full"]}
    table = folder / written["test/full"]["per_user"]
    table.write_bytes(table.read_bytes() + b"x")
    write_json(folder / METRICS, {**written, "more": None})
    assert set(read_metrics(folder)) == {"validation/full"}


def test_entries_of_an_earlier_release_stay_readable(made: Made) -> None:
    recommender, store, folder = made
    recommender.evaluate(store, folder=folder)
    results = read_json(folder / METRICS)
    del results["test/full"]["sha256"]
    write_json(folder / METRICS, results)
    assert read_metrics(folder) == {}
    reseal(folder)
    assert read_metrics(folder) == results
    recommender.evaluate(store, "validation", folder=folder)
    assert set(read_metrics(folder)) == {"test/full", "validation/full"}


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
        with pytest.raises(ArtefactError, match="contains another run"):
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
    # Not the file itself, which a loaded tensor may be a view of.
    good = {name: tensor.clone() for name, tensor in load_file(path).items()}
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


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HAND_MADE: dict[str, tuple[dict[str, Any] | bytes, bytes, int]] = {
    # header, data, and spaces after the header, which the format allows
    "header beyond the limit": ({"a": ONE}, bytes(4), HEADER_LIMIT),
    "header beyond the file": (b" " * 50, b"", 0),
    "empty header": (b"", bytes(4), 0),
    "thousands of tensors": ({f"x{i}": {**ONE, "shape": [0], "data_offsets": [0, 0]} for i in range(9000)}, b"", 0),
    "negative offset": ({"a": {**ONE, "data_offsets": [-4, 0]}}, bytes(4), 0),
    "offsets that fall": ({"a": {**ONE, "data_offsets": [4, 0]}}, bytes(4), 0),
    "overlapping tensors": ({"a": ONE, "b": {**ONE, "data_offsets": [2, 6]}}, bytes(6), 0),
    "one place for two": ({"a": ONE, "b": ONE}, bytes(4), 0),
    "offset beyond the file": ({"a": {**ONE, "shape": [1 << 58], "data_offsets": [0, 1 << 60]}}, bytes(4), 0),
    "shape beyond 64 bits": ({"a": {**ONE, "shape": [1 << 62, 1 << 62]}}, bytes(4), 0),
    "negative shape": ({"a": {**ONE, "shape": [-1]}}, bytes(4), 0),
    "no such type": ({"a": {**ONE, "dtype": "F99"}}, bytes(4), 0),
    "type that is no word": ({"a": {**ONE, "dtype": 7}}, bytes(4), 0),
    "type of another size": ({"a": {**ONE, "dtype": "F64"}}, bytes(4), 0),
    "eight bits": ({"a": {**ONE, "dtype": "F8_E4M3", "data_offsets": [0, 1]}}, bytes(1), 0),
    "complex numbers": ({"a": {**ONE, "dtype": "C64", "data_offsets": [0, 8]}}, bytes(8), 0),
    "truth values": ({"a": {**ONE, "dtype": "BOOL", "data_offsets": [0, 1]}}, bytes(1), 0),
    "not a number": ({"a": ONE}, b"\0\0\xc0\x7f", 0),
    "no JSON": (b"{{{{", b"", 0),
    "a list": (b"[]", b"", 0),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", 0),
    "data after the last tensor": ({"a": ONE}, bytes(40), 0),
    "metadata of another kind": ({"__metadata__": {"a": 1}, "a": ONE}, bytes(4), 0),
}


def write_hand_made(path: Path, name: str) -> None:
    header, data, spaces = HAND_MADE[name]
    text = (header if isinstance(header, bytes) else json.dumps(header).encode()) + b" " * spaces
    length = len(text) << (30 if name == "header beyond the file" else 0)
    path.write_bytes(length.to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("name", HAND_MADE)
def test_a_hand_made_model_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / MODEL
    write_hand_made(path, name)
    with pytest.raises(ArtefactError, match=r"model\.safetensors: "):
        read_tensors(path, {"a": torch.zeros(1)})
    # A model that counts may have any tensors, if they are numbers.
    if name != "thousands of tensors":
        with pytest.raises(ArtefactError, match=r"model\.safetensors: "):
            read_tensors(path, None)


@pytest.mark.parametrize("model", ["sasrec", "popularity", "markov"])
@pytest.mark.parametrize("name", HAND_MADE)
def test_a_run_with_a_hand_made_model_is_refused(tmp_path: Path, name: str, model: str) -> None:
    settings = {"hidden_units": 8, "num_blocks": 1, "num_epochs": 0} if model == "sasrec" else {}
    Recommender(model, maxlen=10, **settings).fit(ordered_sequences(num_users=20, num_items=20), tmp_path)
    write_hand_made(tmp_path / MODEL, name)
    reseal(tmp_path)
    with pytest.raises(ArtefactError):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [{"maxlen": 10**9}, {"hidden_units": 10**9}, {"num_blocks": 10**9}, {"maxlen": 10**30}, {"num_blocks": 2}],
)
def test_a_configuration_that_the_file_cannot_hold_is_refused_unbuilt(
    made: Made, settings: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made[2]
    config = RunConfig.read_toml(folder / CONFIG)
    config.replace(model=config.model.replace(**settings)).write_toml(folder / CONFIG)
    reseal(folder)
    monkeypatch.setattr("ensue.runs.load.build_model", lambda *_: pytest.fail("built"))
    with pytest.raises(ArtefactError, match=r"model\.safetensors: its [\d,]+ bytes cannot hold the configured model"):
        load_run(folder)


def test_a_deep_run_is_loaded(tmp_path: Path) -> None:
    """Its header is above what was allowed for every model once."""
    deep = Recommender("sasrec", hidden_units=1, num_blocks=900, maxlen=10, num_epochs=0, device="cpu")
    deep.fit(ordered_sequences(num_users=20, num_items=20), tmp_path)
    with (tmp_path / MODEL).open("rb") as handle:
        assert int.from_bytes(handle.read(8), "little") > HEADER_LIMIT
    assert load_run(tmp_path).config == deep.config


def test_the_header_may_be_as_long_as_the_configuration_needs(tmp_path: Path) -> None:
    figures = ",".join(["9" * 19] * 4)
    for name, residual in product(("sasrec", "tisasrec", "sasrec-padded"), RESIDUALS):
        config = model_config({"name": name, "hidden_units": 4, "num_blocks": 1, "residual": residual})
        state = {
            name: torch.zeros_like(tensor) for name, tensor in build_model(config, Catalogue(5)).state_dict().items()
        }
        names = [name.replace("blocks.0.", "blocks.99999.") for name in state]
        longest = max((f'"{name}":{{"dtype":"F32","shape":[],"data_offsets":[]}},{figures}' for name in names), key=len)
        assert len(longest) <= ENTRY_LIMIT
    path = tmp_path / MODEL
    save_file(state, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    most = ENTRY_LIMIT * len(state)
    assert ENTRY_BYTES * len(state) <= length < most
    for due in (most, most + 8):  # with spaces, which the format allows
        head = content[8 : 8 + length].ljust(due)
        path.write_bytes(due.to_bytes(8, "little") + head + content[8 + length :])
        if due == most:
            assert read_tensors(path, state).keys() == state.keys()
    with pytest.raises(ArtefactError, match=r"a header of [\d,]+ bytes"):
        read_tensors(path, state)


def test_many_tiny_blocks_are_refused_unbuilt(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of width 1 are small on disk; in memory a block's modules are not."""
    folder = made[2]
    config = RunConfig.read_toml(folder / CONFIG)
    config.replace(model=config.model.replace(num_blocks=100_000, hidden_units=1)).write_toml(folder / CONFIG)
    (folder / MODEL).write_bytes(bytes(100_000_000))
    reseal(folder)
    entry = MODELS["sasrec"]

    def build(config: SASRecConfig, num_items: int) -> nn.Module:
        return entry.build(config, num_items) if config.num_blocks <= 2 else pytest.fail("built")

    monkeypatch.setattr("ensue.models.base.MODELS", {"sasrec": type(entry)(entry.config, build)})
    with pytest.raises(ConfigError, match=r"1,200,004 tensors, but .* lower num_blocks \(got 100000\)"):
        load_run(folder)


def test_what_the_file_does_not_hold_must_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"hidden_units": 8, "num_blocks": 1, "num_epochs": 0, "positions": "sinusoidal"}
    Recommender("sasrec", maxlen=10, **small).fit(ordered_sequences(), tmp_path)
    config = RunConfig.read_toml(tmp_path / CONFIG)
    config.replace(model=config.model.replace(maxlen=10**9)).write_toml(tmp_path / CONFIG)
    reseal(tmp_path)
    monkeypatch.setattr("ensue.models.size.memory", lambda: 1 << 34)
    with pytest.raises(ConfigError, match=r"59\.6 GiB of memory .* lower maxlen"):
        load_run(tmp_path)
