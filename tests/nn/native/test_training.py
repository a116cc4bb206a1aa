"""Training with the native library: the log and the checkpoint name it, and resuming computes with the same one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ensue.data.split import Split
from ensue.nn.native.library import TORCH, computing_with, runnable
from ensue.runs.checkpoint import load_checkpoint
from ensue.runs.config import RunConfig
from ensue.train.loop import Trainer

pytestmark = pytest.mark.skipif(not runnable(), reason="the native library is not built: make native")
Tiny = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def default_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENSUE_NATIVE", raising=False)


def trained(
    config: RunConfig, split: Split, folder: Path | None, name: str
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights and what the log says of each epoch."""
    with computing_with(name):
        result = Trainer(config, split, folder).run()
    return result.model.state_dict(), [record["compute"] for record in result.progress.records]


def losses(config: RunConfig, split: Split, name: str) -> list[float]:
    with computing_with(name):
        return [record["loss"] for record in Trainer(config, split).run().progress.records]


@pytest.mark.parametrize("name", [*runnable(), TORCH])
def test_resuming_gives_the_same_bits(name: str, tiny: Tiny, split: Split, tmp_path: Path) -> None:
    whole, said = trained(tiny(num_epochs=3, patience=0), split, None, name)
    trained(tiny(num_epochs=1, patience=0), split, tmp_path, name)
    checkpoint = load_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.state["compute"] == name
    # The choice of this machine does not matter: the checkpoint's is used.
    resumed, said_later = trained(tiny(num_epochs=3, patience=0), split, tmp_path, runnable()[0])
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    expected = f"native ({name})" if name != TORCH else "torch (requested)"
    assert said == [expected] * 3
    assert said_later[1:] == [expected if name != TORCH or runnable()[0] == TORCH else "torch (as the checkpoint)"] * 2


def test_a_checkpoint_that_cannot_be_followed_is_named(
    tiny: Tiny, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tiny(num_epochs=1, patience=0), split, tmp_path, runnable()[0])
    monkeypatch.setenv("ENSUE_NATIVE", "0")
    with computing_with():
        monkeypatch.setattr("ensue.train.loop.compute_with", lambda name, reason: False)
        _, said = trained(tiny(num_epochs=2, patience=0), split, tmp_path, runnable()[0])
    assert said[1].endswith(f"; the checkpoint: {runnable()[0]}")


@pytest.mark.parametrize("norm", ["pre", "post", "original"])
def test_both_paths_learn_the_same(norm: str, tiny: Tiny, split: Split) -> None:
    """Without dropout there is nothing random to differ in."""
    config = tiny(model={"dropout_rate": 0.0, "norm": norm}, num_epochs=2, patience=0)
    assert losses(config, split, runnable()[0]) == pytest.approx(losses(config, split, TORCH), rel=1e-4)
