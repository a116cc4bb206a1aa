"""A run that is killed and goes on ends where the undisturbed one ends, in every bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ensue.train.loop as loop
from ensue.data.split import Split, SplitConfig, make_split
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ArtefactError, ConfigError, TrainingError
from ensue.runs.checkpoint import STATE, TENSORS, load_checkpoint
from ensue.runs.config import RunConfig
from ensue.testing import EachStep
from ensue.train.interrupt import Interrupted
from ensue.train.loop import Trainer

Tiny = Callable[..., RunConfig]
TRIALS = 30


def test_thirty_trials_of_two_or_more_kills(tmp_path: Path) -> None:
    worker = Path(__file__).with_name("resume_worker.py")
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, str(worker), str(tmp_path), str(TRIALS)],
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    report = json.loads(done.stdout)
    assert report["different"] == []
    assert len(report["kills"]) == TRIALS
    assert all(len(kills) >= 2 for kills in report["kills"])
    # The kills fell on many kinds of operation, half-done writes among them.
    kinds = {kind for kills in report["kills"] for kind in kills}
    assert len(kinds) >= 10
    assert any(kind.startswith("amid") for kind in kinds)
    assert all(name.isdigit() for name in report["folders"])


def stop_after(number: int) -> EachStep:
    """A watcher that ends a run as Ctrl-C would, in the step after `number` others."""

    def act(epoch: int, steps: int) -> None:
        if steps > number:
            raise KeyboardInterrupt

    return EachStep(act)


def stopped(config: RunConfig, split: Split, folder: Path, steps: int = 4) -> None:
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, split, folder, [stop_after(steps)]).run()


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [
        {"average": "ema", "optimizer": "lion", "schedule": "exponential"},
        {"average": "swa", "average_start": 0.3, "optimizer": "sgd", "schedule": "one-cycle"},
        {
            "average": "swa",
            "average_start": 0.0,
            "optimizer": "adagrad",
            "schedule": "plateau",
            "plateau_evaluations": 1,
        },
        {"average": "ema", "optimizer": "rmsprop"},
    ],
    ids=lambda changes: changes["optimizer"],
)
@pytest.mark.parametrize("steps", [1, 4, 7])
def test_averages_optimisers_and_schedules_resume(
    tiny: Tiny, split: Split, tmp_path: Path, changes: dict[str, Any], steps: int
) -> None:
    config = tiny(**changes)
    undisturbed = Trainer(config, split).run().model
    stopped(config, split, tmp_path, steps)
    assert same_weights(Trainer(config, split, tmp_path).run().model, undisturbed)


def each_epoch(trainer: Trainer) -> dict[int, dict[str, torch.Tensor]]:
    """The weights after each epoch, filled in as a trainer trains."""
    weights: dict[int, dict[str, torch.Tensor]] = {}

    def keep(epoch: int, _: int) -> None:
        weights[epoch + 1] = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}

    trainer.watch(EachStep(keep))
    return weights


@pytest.mark.parametrize(
    ("now", "averaged"),
    [(5, (3, 4, 5)), (8, (5, 6, 7, 8))],
    ids=["the last epochs have begun", "the mean starts again"],
)
def test_swa_with_more_epochs(tiny: Tiny, split: Split, tmp_path: Path, now: int, averaged: tuple[int, ...]) -> None:
    config = tiny(average="swa", average_start=0.5, num_epochs=4, patience=0)
    first = Trainer(config, split, tmp_path)
    weights = each_epoch(first)
    first.run()
    second = Trainer(config.replace(train=config.train.replace(num_epochs=now)), split, tmp_path)
    later = each_epoch(second)
    second.run()
    weights.update(later)
    assert second.average.count == len(averaged)
    for name, value in second.average.values.items():
        torch.testing.assert_close(value, torch.stack([weights[epoch][name] for epoch in averaged]).mean(0))


@pytest.mark.parametrize("average", ["ema", "swa"])
@pytest.mark.parametrize("during", ["apply", "remove", "take in"])
def test_a_signal_leaves_no_average_half_done(
    tiny: Tiny, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average: str, during: str
) -> None:
    """The signal arrives between the first and the second of the weights that are copied or averaged."""
    config = tiny(average=average, average_start=0.0)
    undisturbed = Trainer(config, split).run().model
    copy, lerp, calls = Tensor.copy_, Tensor.lerp_, {"copy": 0, "lerp": 0}
    trainer = Trainer(config, split, tmp_path)
    count = len(list(trainer.model.parameters()))
    last = {"apply": ("copy", 1), "remove": ("copy", count + 1), "take in": ("lerp", 1)}[during]

    def counted(kind: str, work: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*args: Any) -> Tensor:
            result = work(*args)
            calls[kind] += 1
            if (kind, calls[kind]) == last:
                os.kill(os.getpid(), signal.SIGTERM)
            return result

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "copy_", counted("copy", copy))
        patch.setattr(Tensor, "lerp_", counted("lerp", lerp))
        with pytest.raises(Interrupted):
            trainer.run()
    assert same_weights(Trainer(config, split, tmp_path).run().model, undisturbed)


def test_other_data_is_refused(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    stopped(tiny(), split, tmp_path)
    other = make_split(ordered_sequences(num_users=24, num_items=15, length=8, seed=1), SplitConfig())
    with pytest.raises(TrainingError, match=r"data: fingerprint [0-9a-f]{64} now, [0-9a-f]{64} then"):
        Trainer(tiny(), other, tmp_path).run()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lr": 0.02}, "train.lr: 0.02 now, 0.01 then"),
        ({"seed": 5, "beta2": 0.9}, "train.beta2: 0.9 now, 0.98 then; train.seed: 5 now, 0 then"),
        ({"model": {"dropout_rate": 0.1}}, "model.dropout_rate: 0.1 now, 0.3 then"),
        ({"objective": {"loss": "bpr"}}, "objective.loss: 'bpr' now, 'bce' then"),
    ],
)
def test_other_settings_are_refused_by_name(
    tiny: Tiny, split: Split, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    stopped(tiny(), split, tmp_path)
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(TrainingError) as error:
        Trainer(tiny(**changes), split, tmp_path).run()
    assert named in str(error.value)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_settings_of_other_versions(tiny: Tiny, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that is newer than the checkpoint has its default there; one that is not known here is named."""
    stopped(tiny(), split, tmp_path)
    stored = load_checkpoint(tmp_path / "checkpoints")
    assert stored is not None
    del stored.state["config"]["train"]["batch_parts"]
    monkeypatch.setattr(loop, "load_checkpoint", lambda _: stored)
    with pytest.raises(TrainingError, match=r"batch_parts: 2 now, 1 then"):
        Trainer(tiny(batch_parts=2), split, tmp_path).run()
    resumed = Trainer(tiny(), split, tmp_path).run()
    assert same_weights(resumed.model, Trainer(tiny(), split).run().model)
    stored.state["config"]["train"]["momentum"] = 0.9
    with pytest.raises(ConfigError, match=r"checkpoint in .*: unknown setting 'train\.momentum'"):
        Trainer(tiny(), split, tmp_path).run()


def test_the_time_between_checkpoints_may_change(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    stopped(tiny(), split, tmp_path)
    resumed = Trainer(tiny(checkpoint_minutes=9), split, tmp_path).run()
    assert same_weights(resumed.model, Trainer(tiny(), split).run().model)


@pytest.mark.parametrize("name", [TENSORS, STATE, "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_newest_checkpoint_is_passed_over(
    tiny: Tiny, split: Split, tmp_path: Path, name: str, damage: str
) -> None:
    stopped(tiny(), split, tmp_path)
    older, newest = sorted((tmp_path / "checkpoints").iterdir())
    content = bytearray((newest / name).read_bytes())
    if damage == "remove":
        (newest / name).unlink()
    else:
        content[len(content) // 2] ^= 1
        (newest / name).write_bytes(content if damage == "flip" else content[: len(content) // 2])
    result = load_checkpoint(tmp_path / "checkpoints")
    assert result is not None
    assert result.state == json.loads((older / STATE).read_bytes())
    assert same_weights(Trainer(tiny(), split, tmp_path).run().model, Trainer(tiny(), split).run().model)


def test_only_damaged_checkpoints_are_an_error(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    stopped(tiny(), split, tmp_path)
    for folder in (tmp_path / "checkpoints").iterdir():
        (folder / TENSORS).write_bytes(b"")
    with pytest.raises(ArtefactError, match="altered or truncated"):
        Trainer(tiny(), split, tmp_path).run()


def test_the_last_two_checkpoints_are_kept_and_unfinished_ones_removed(
    tiny: Tiny, split: Split, tmp_path: Path
) -> None:
    stopped(tiny(), split, tmp_path)
    (tmp_path / "checkpoints" / ".0000000099.tmp").mkdir()
    Trainer(tiny(), split, tmp_path).run()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["0000000024", "0000000025"]


def test_a_finished_run_is_loaded_and_not_trained_on(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    first = Trainer(tiny(), split, tmp_path).run()
    again = Trainer(tiny(), split, tmp_path, [stop_after(0)]).run()
    assert again.progress == first.progress
    assert same_weights(first.model, again.model)


def test_optimiser_state_is_kept_by_name(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    stopped(tiny(), split, tmp_path)
    checkpoint = load_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    names = {name for name, _ in Trainer(tiny(), split).model.named_parameters()}
    kept = checkpoint.part("optimizer")
    assert {key.rpartition(".")[0] for key in kept} == names
    assert {key.rpartition(".")[2] for key in kept} == {"step", "exp_avg", "exp_avg_sq"}
    assert all(int(value) == 4 for key, value in kept.items() if key.endswith(".step"))
    assert not np.isnan(checkpoint.state["progress"]["loss_sum"])
