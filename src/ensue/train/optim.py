"""The optimiser, the learning rate over the run, the device and mixed precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from ensue.errors import ConfigError
from ensue.train.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over the trainable parameters, in torch's fused form where the device has one."""
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    parameters = [p for p in model.parameters() if p.requires_grad]
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    return kind(
        parameters, lr=config.lr, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay, fused=fused
    )


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step (counted from 0 over the run): linear warm-up, then the schedule."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "step":
        return float(config.lr * config.step_gamma ** (step // (steps_per_epoch * config.step_epochs)))
    if config.schedule == "cosine":
        total = max(1, config.num_epochs * steps_per_epoch - config.warmup_steps)
        return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - config.warmup_steps) / total)))
    return config.lr


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
        raise ConfigError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:1 or mps") from None
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
