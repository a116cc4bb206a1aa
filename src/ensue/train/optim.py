"""The optimiser, the learning rate over the run, the device and mixed precision."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

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


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed torch's global draws on a device.

    On a CPU without `torch.manual_seed`, which looks for every other kind of device: a twentieth of a short step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def autocast(amp: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the model runs; losses and softmax stay in float32 inside it."""
    if amp == "off":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if amp == "bf16" else torch.float16)
