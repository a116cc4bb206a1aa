"""Read the state dict of a `.pth` file safely: with `weights_only`, so that no code in the file runs."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ensue.errors import ArtefactError

Tensors = dict[str, Tensor]
# Keys under which training programs store the state dict in a larger dictionary.
WRAPPERS = ("state_dict", "model_state_dict")
# Prefixes that DataParallel, DistributedDataParallel and torch.compile add to the names.
PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class StateDict:
    """The content of a `.pth` file.

    Attributes:
        tensors: name -> tensor, in float32.
        modules: names of the model's modules, including those without tensors, such as activations; empty if the file
            does not list them. Files written by `torch.save(model.state_dict(), ...)` do.
    """

    tensors: Tensors
    modules: frozenset[str]


def load_state_dict(path: Path) -> StateDict:
    """Read a state dict, bare or under one of `WRAPPERS`; remove `PREFIXES` that all names share.

    Raises:
        ArtefactError: the file is missing or is not a state dict, or a value is NaN or infinite.
    """
    loaded = _load(path)
    if isinstance(loaded, dict):
        loaded = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), dict)), loaded)
    if not isinstance(loaded, dict) or not loaded:
        kind = f"an empty {type(loaded).__name__}" if loaded == {} else f"a {type(loaded).__name__}"
        raise ArtefactError(f"{path}: must contain a state dict (names -> tensors), but contains {kind}")
    tensors = {name: _checked(path, name, value) for name, value in loaded.items()}
    modules = frozenset(_modules(loaded))
    while prefix := _shared_prefix(tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        modules = frozenset(name.removeprefix(prefix) for name in modules)
    return StateDict(tensors, modules)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise ArtefactError(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the loader has no error class of its own for damaged or refused files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArtefactError(f"{path}: cannot be read safely as a state dict ({reason[:200]})") from None


def _checked(path: Path, name: object, value: object) -> Tensor:
    if not isinstance(name, str) or not isinstance(value, Tensor) or not value.is_floating_point():
        raise ArtefactError(f"{path}: entry {str(name)[:60]!r} must be a tensor of floating-point numbers")
    if value.nbytes > path.stat().st_size:
        raise ArtefactError(f"{path}: tensor {name!r} is {list(value.shape)}, more than the file can contain")
    if not bool(torch.isfinite(value).all()):
        raise ArtefactError(f"{path}: tensor {name!r} contains a value that is NaN or infinite")
    return value.detach().float()


def _modules(loaded: dict[str, Any]) -> list[str]:
    """The module names that `Module.state_dict` attaches to its result."""
    metadata = vars(loaded).get("_metadata") if isinstance(loaded, OrderedDict) else None
    return [name for name in metadata if isinstance(name, str)] if isinstance(metadata, dict) else []


def _shared_prefix(tensors: Tensors) -> str | None:
    """The prefix that all names have; None without one."""
    return next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in tensors)), None)
