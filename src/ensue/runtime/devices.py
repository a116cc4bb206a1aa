"""The device, the number of threads and the precision with which a model computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from ensue.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device of a name; `auto` chooses CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: the name is unknown, or this machine has no such device.
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
        raise ConfigError("device 'mps': this machine does not have it; use auto or cpu")
    return device


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """A context in which torch uses `count` threads (0: no change). The number applies to the whole process."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(amp: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the model runs; losses and softmax stay in float32, with one exception.

    The full softmax over the catalogue is computed in the type of the products, which halves its memory (measured in
    bfloat16 with 3,416 items: the error of a loss is up to .009, of which .006 comes from rounding the products).
    """
    if amp == "off":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if amp == "bf16" else torch.float16)
