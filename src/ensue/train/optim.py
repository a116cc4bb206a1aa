"""The optimiser and the learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from ensue.runs.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over the trainable parameters, in torch's fused implementation where the device has one."""
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
