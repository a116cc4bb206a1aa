"""`ensue train` without a recipe: what it chooses, says and keeps."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from ensue.cli import main
from ensue.data.store import SequenceStore
from ensue.datasets.simulate import ordered_sequences
from ensue.recipes import run_config
from ensue.recipes.estimate import Estimate
from ensue.runs.config import RunConfig

SMALL = ("--hidden-units", "8", "--num-blocks", "1", "--num-epochs", "2")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A CSV file of 40 users."""
    store = ordered_sequences(num_users=40)
    rows = [
        f"{user},{item},{1_600_000_000 + 60 * event}"
        for user in range(store.num_users)
        for event, item in enumerate(store.items[store.offsets[user] : store.offsets[user + 1]])
    ]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user,item,time", *rows]) + "\n")
    return path


def config_of(run: Path) -> RunConfig:
    return RunConfig.read_toml(run / "config.toml")


@pytest.mark.parametrize("model", [(), ("--model", "sasrec")])
def test_train_without_a_recipe_says_what_it_takes_and_why(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    assert main(["train", str(log), *model, "--out", str(out), *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    (what,) = (line for line in lines if line.startswith("chosen: "))
    (why,) = (line for line in lines if line.startswith("because: "))
    assert "preset sasrec-ce-sparse: ce, width 8" in what
    assert "40 items" in why
    assert "measured here" in why
    config = config_of(out)
    assert config.objective.loss == "ce"
    assert config.model.maxlen == 50
    # The same command takes the finished run, and measures nothing.
    assert main(["train", str(log), *model, "--out", str(out), *SMALL]) == 0
    again = capsys.readouterr().out
    assert "already trained" in again
    assert "measured here" not in again


def test_one_object_is_printed_for_json(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(log), "--out", str(tmp_path / "run"), *SMALL, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "sasrec"


def test_a_preset_stays_what_it_is(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, small = tmp_path / "run", dict(zip(["hidden_units", "num_blocks", "num_epochs"], [8, 1, 2], strict=True))
    assert main(["train", str(log), "--preset", "sasrec-paper", "--out", str(out), *SMALL]) == 0
    assert "chosen" not in capsys.readouterr().out
    assert config_of(out) == run_config(None, "sasrec-paper", small)


def test_the_next_step_after_prepare_and_a_check_gives_the_choice(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert main(["prepare", str(log), "--out", str(store)]) == 0
    prepared = capsys.readouterr().out.splitlines()[-1]
    assert main(["data", "check", str(store)]) == 0
    checked = capsys.readouterr().out.splitlines()[-1]
    assert SequenceStore.open(store).num_users == 40
    for line in (prepared, checked):
        assert shlex.split(line) == ["next:", "ensue", "train", str(store), "--out", "runs/sasrec"]


def test_a_budget_is_kept_and_too_small_a_one_refused(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensue.recipes.planning.estimate", lambda *_: Estimate(60.0, 0.0))
    words = ["train", str(log), "--hidden-units", "8", "--num-blocks", "1"]
    assert main([*words, "--budget", "2.5", "--out", str(tmp_path / "run")]) == 0
    assert config_of(tmp_path / "run").train.num_epochs == 2
    assert "at most 2 minutes for 2 epochs" in capsys.readouterr().out
    assert main([*words, "--budget", "0.5", "--out", str(tmp_path / "other")]) == 2
    assert "one epoch and its evaluation take about 1.0 minutes, more than the budget" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
