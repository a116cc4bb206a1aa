"""`ensue tune` from the command line: a short search, its files, and the messages of wrong searches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ensue.cli import training

from .conftest import Run

TOY = ("--model", "sasrec", "--num-epochs", "2", "--eval-epochs", "1", "--hidden-units", "8", "--maxlen", "10")


def test_a_search_ends_with_a_recipe_and_the_next_command(ensue: Run, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    done = ensue("tune", store, *TOY, "--search", "lr=0.0005..0.05", "--trials", "2", "--budget", "1h", "--out", out)
    assert done.status == 0, done.err
    assert "searched: lr, 0.0005 to 0.05, logarithmic" in done.out
    assert "After 2 trials in" in done.out
    words = done.out.splitlines()[-1].removeprefix("next: ensue ").split()
    assert ensue(*words).status == 0
    assert {"best.toml", "tune.md", "tune.json", "study.journal"} <= {path.name for path in out.iterdir()}
    again = ensue("tune", store, *TOY, "--search", "lr=0.0005..0.05", "--trials", "2", "--out", out, "--json")
    assert again.status == 0, again.err
    assert [trial["number"] for trial in json.loads(again.out)["trials"]] == [0, 1]
    trained = ensue("train", store, "--config", out / "best.toml", "--out", tmp_path / "run")
    assert trained.status == 0, trained.err


def test_wrong_searches_are_one_line(ensue: Run, store: Path, tmp_path: Path) -> None:
    for words, message in (
        (("--search", "lr=1"), "--search lr: 0.001 is not among 1"),
        (("--budget", "soon"), "a duration must be a number above 0"),
        (("--sampler", "population", "--search", "num_blocks"), "num_blocks cannot change then"),
    ):
        done = ensue("tune", store, *TOY, *words, "--out", tmp_path / "tuned")
        assert done.status == 2
        assert message in done.err
        assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "tuned").exists()


def test_an_interrupted_search_says_how_to_go_on(
    ensue: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit_shown", interrupted)
    done = ensue("tune", store, *TOY, "--search", "lr", "--trials", "1", "--out", tmp_path / "tuned")
    assert done.status == 130
    assert done.err.splitlines()[-1] == "ensue: interrupted: the same command goes on"
