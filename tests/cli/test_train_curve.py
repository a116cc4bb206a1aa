"""A run has its learning curve, also when the training was killed at its very end."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import SMALL, Run

CURVE = ("learning_curve.svg", "learning_curve.png")


@pytest.mark.parametrize("devices", [1, 2])
def test_a_curve_that_a_kill_has_cost_is_drawn_by_the_same_command(
    ensue: Run, store: Path, tmp_path: Path, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", store, *SMALL, "--out", tmp_path / "run")

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ensue.plots.learning_curve", kill)
        assert ensue(*words).status == 130
    assert (tmp_path / "run" / "manifest.json").is_file()
    assert not (tmp_path / "run" / CURVE[0]).exists()
    again = ensue(*words, "--devices", devices, "--json").json
    assert not again["trained"]
    assert set(CURVE) <= set(again["files"])


def test_a_curve_that_is_there_is_left_alone(ensue: Run, store: Path, tmp_path: Path) -> None:
    words = ("train", store, *SMALL, "--out", tmp_path)
    assert ensue(*words).status == 0
    whole = [(tmp_path / name).read_bytes() for name in CURVE]
    for name in CURVE:
        (tmp_path / name).write_bytes(b"mine")
    assert "already trained" in ensue(*words).out
    assert [(tmp_path / name).read_bytes() for name in CURVE] == [b"mine", b"mine"]
    (tmp_path / CURVE[1]).unlink()
    assert ensue(*words).status == 0
    assert [(tmp_path / name).read_bytes() for name in CURVE] == whole


def test_a_model_without_epochs_has_none(ensue: Run, store: Path, tmp_path: Path) -> None:
    words = ("train", store, "--model", "markov", "--out", tmp_path, "--json")
    for _ in range(2):
        assert not set(CURVE) & set(ensue(*words).json["files"])
