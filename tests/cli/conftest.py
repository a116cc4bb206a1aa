"""A small log on disk, and one way to run a command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ensue.cli import main
from ensue.datasets.simulate import SimulateConfig, simulate


@dataclass(frozen=True)
class Outcome:
    """What one command line did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object and nothing else."""
        payload = json.loads(self.out)
        assert isinstance(payload, dict)
        return payload


Run = Callable[..., Outcome]


@pytest.fixture
def ensue(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> Outcome:
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Outcome(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def csv_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 users and 60 items, in columns named as MovieLens does; items.csv with titles lies beside it."""
    folder = tmp_path_factory.mktemp("log")
    world = simulate(SimulateConfig(num_users=100, num_items=60, max_length=25, min_length=8))
    names = {"user": "userId", "item": "movieId"}
    world.interactions.rename(names).write_csv(folder / "ratings.csv")
    world.items.write_csv(folder / "items.csv")
    return folder / "ratings.csv"


@pytest.fixture(scope="session")
def store(csv_log: Path) -> Path:
    out = csv_log.parent / "store"
    items = csv_log.parent / "items.csv"
    assert main(["prepare", str(csv_log), "--items", str(items), "--out", str(out)]) == 0
    return out


SMALL = ("--hidden-units", "8", "--num-blocks", "1", "--maxlen", "10", "--num-epochs", "2")


@pytest.fixture(scope="session")
def trained(store: Path) -> Path:
    """A trained run; tests read it, and may add evaluations."""
    out = store.parent / "trained"
    assert main(["train", str(store), "--model", "sasrec", "--out", str(out), *SMALL]) == 0
    return out
