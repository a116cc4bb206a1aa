"""Where a model computes, on how many threads, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from ensue.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device a name means; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: the name means nothing, or this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device 'mps': not on this machine")
    return device


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Within it, torch computes with so many threads (0: as many as before it); they are the whole process's."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(amp: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the model runs; losses stay in float32 inside it, and so does every softmax but one.

    The full softmax over the catalogue is taken of the products in their own type, which halves its memory (measured in
    bfloat16, 3,416 items: a loss is wrong by up to .009, against .006 for the rounding of the products alone).
    """
    if amp == "off":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if amp == "bf16" else torch.float16)
