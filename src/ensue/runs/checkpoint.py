"""Checkpoints: folders of safetensors and JSON, written whole or not at all; the last two are kept."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ensue.errors import ArtefactError, TrainingError
from ensue.files import check_files, read_json, read_manifest, sync, write_json, write_manifest
from ensue.runs.tensors import write_tensors

KIND, VERSION, KEPT = "checkpoint", 1, 2
TENSORS, STATE = "state.safetensors", "state.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that determines how training continues.

    Attributes:
        tensors: `model.*`, `best.*`, `average.*` and `optimizer.*`, keyed by parameter name, and `carried.*`, see
            `Model`.
        state: JSON: settings, data fingerprint, epoch, step, early-stopping state, log so far.
    """

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix.`, without it."""
        return {k.removeprefix(f"{prefix}."): v for k, v in self.tensors.items() if k.startswith(f"{prefix}.")}


def save_checkpoint(folder: Path, checkpoint: Checkpoint, number: int) -> None:
    """Write checkpoint `number` under `folder` and remove all but the last two.

    The folder is filled under a temporary name, synced and renamed, so a power cut leaves either the old checkpoints
    or the new one. The manifest is written last, which also syncs the names in the folder.
    """
    target = folder / f"{number:010d}"
    temporary = folder / f".{target.name}.tmp"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        sync(folder.parent)
    for unfinished in folder.glob(".*.tmp"):
        shutil.rmtree(unfinished)
    temporary.mkdir()
    write_tensors(checkpoint.tensors, temporary / TENSORS)
    sync(temporary / TENSORS)
    write_json(temporary / STATE, checkpoint.state)
    write_manifest(temporary, [TENSORS, STATE], {"kind": KIND, "schema_version": VERSION})
    if target.exists():
        shutil.rmtree(target)
    os.rename(temporary, target)
    sync(folder)
    for old in numbered(folder)[:-KEPT]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint under `folder`; None if there are no checkpoints.

    Raises:
        ArtefactError: there are checkpoints, but all are damaged.
    """
    damaged: ArtefactError | None = None
    for path in reversed(numbered(folder)):
        try:
            check_files(path, read_manifest(path, KIND, VERSION), [TENSORS, STATE])
            return Checkpoint(load_file(path / TENSORS), read_json(path / STATE))
        except ArtefactError as error:
            damaged = damaged or error
    if damaged is not None:
        raise damaged
    return None


def read_state(folder: Path) -> dict[str, Any] | None:
    """The state, without tensors, of the newest checkpoint under `folder` with an undamaged state; None without one."""
    for path in reversed(numbered(folder)):
        with suppress(ArtefactError):
            check_files(path, read_manifest(path, KIND, VERSION), [STATE])
            return dict(read_json(path / STATE))
    return None


def copy_newest(folder: Path, target: Path) -> None:
    """Copy the newest checkpoint under `folder` to `target`, whole or not at all."""
    newest = numbered(folder)[-1]
    temporary = target / f".{newest.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(newest, temporary)
    for path in temporary.iterdir():
        sync(path)
    sync(temporary)
    os.rename(temporary, target / newest.name)
    sync(target)


def numbered(folder: Path) -> list[Path]:
    """The checkpoints under `folder`, damaged ones too, oldest first."""
    return sorted(path for path in folder.glob("[0-9]" * 10) if path.is_dir()) if folder.is_dir() else []


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state keyed by parameter name: `optimizer.<parameter>.<slot>`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"optimizer.{names[parameter]}.{slot}": value
        for parameter, slots in optimizer.state.items()
        for slot, value in slots.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Restore the state that `optimizer_tensors` returned (keys without the prefix).

    Raises:
        TrainingError: a tensor belongs to no parameter, or a shape differs.
    """
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, slot = key.rpartition(".")
        parameter = parameters.get(name)
        if parameter is None or (value.dim() and value.shape != parameter.shape):
            raise TrainingError(f"checkpoint: optimiser state {key!r} of shape {list(value.shape)} fits no parameter")
        # Fused Adam keeps its step count on the parameter's device, plain Adam on the CPU.
        moves = value.dim() > 0 or optimizer.defaults.get("fused")
        optimizer.state[parameter][slot] = value.to(parameter.device) if moves else value
