"""Optimisers and learning-rate schedules, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from ensue.runs.config import OPTIMIZERS, SCHEDULES, Moment, TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimiser over the trainable parameters."""
    return OPTIMIZERS[config.optimizer](config, [p for p in model.parameters() if p.requires_grad])


def _adam(kind: type[Adam | AdamW]) -> Callable[[TrainConfig, list[nn.Parameter]], Optimizer]:
    """Adam or AdamW, in torch's fused implementation where the device has one."""

    def make(config: TrainConfig, parameters: list[nn.Parameter]) -> Optimizer:
        fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
        return kind(parameters, betas=(config.beta1, config.beta2), fused=fused, **_common(config))

    return make


def _common(config: TrainConfig) -> dict[str, Any]:
    return {"lr": config.lr, "weight_decay": config.weight_decay}


OPTIMIZERS.register("adam")(_adam(Adam))
OPTIMIZERS.register("adamw")(_adam(AdamW))
OPTIMIZERS.register("adagrad")(lambda config, parameters: Adagrad(parameters, **_common(config)))
OPTIMIZERS.register("rmsprop")(lambda config, parameters: RMSprop(parameters, alpha=config.beta2, **_common(config)))
OPTIMIZERS.register("sgd")(lambda config, parameters: SGD(parameters, momentum=config.beta1, **_common(config)))


@OPTIMIZERS.register("lion")
def _lion(config: TrainConfig, parameters: list[nn.Parameter]) -> Optimizer:
    return Lion(parameters, betas=(config.beta1, config.beta2), **_common(config))


class Lion(Optimizer):
    """w -= lr (sign(b1 m + (1 - b1) g) + decay w), then m = b2 m + (1 - b2) g.

    Source: Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023, algorithm 2. All steps have the
    same size, so the rate should be 3 to 10 times smaller than Adam's.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; `closure` computes the loss first."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                slots = self.state[parameter]
                mean: Tensor = slots.setdefault("exp_avg", torch.zeros_like(parameter))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(mean.lerp(parameter.grad, 1 - beta1).sign_(), alpha=group["lr"])
                mean.lerp_(parameter.grad, 1 - beta2)
        return loss


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int, reductions: int = 0) -> float:
    """The learning rate of a step (counted from 0 over the run): linear warm-up, then the schedule.

    Args:
        config: the settings.
        step: the step, counted from 0 over the run.
        steps_per_epoch: steps of an epoch.
        reductions: how often the rate was reduced on a plateau of validation.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    return config.lr * SCHEDULES[config.schedule](config, Moment(step, steps_per_epoch, reductions))


SCHEDULES.register("constant")(lambda config, moment: 1.0)


@SCHEDULES.register("step")
def _step(config: TrainConfig, moment: Moment) -> float:
    return float(config.step_gamma ** (moment.step // (moment.steps_per_epoch * config.step_epochs)))


@SCHEDULES.register("exponential")
def _exponential(config: TrainConfig, moment: Moment) -> float:
    """The decay of `step`, spread over all steps."""
    return float(config.step_gamma ** (moment.step / (moment.steps_per_epoch * config.step_epochs)))


@SCHEDULES.register("plateau")
def _plateau(config: TrainConfig, moment: Moment) -> float:
    return float(config.step_gamma**moment.reductions)


@SCHEDULES.register("cosine")
def _cosine(config: TrainConfig, moment: Moment) -> float:
    total = max(1, config.num_epochs * moment.steps_per_epoch - config.warmup_steps)
    return _half_wave(1.0, 0.0, (moment.step - config.warmup_steps) / total)


@SCHEDULES.register("one-cycle")
def _one_cycle(config: TrainConfig, moment: Moment) -> float:
    """From lr / 25 up to lr in the first 30 % of the steps, then down to lr / 250,000, both along half a cosine.

    Source: Smith and Topin, Super-Convergence, 2018, with the numbers and the form of torch's OneCycleLR.
    """
    last = config.num_epochs * moment.steps_per_epoch - 1
    peak = 0.3 * (last + 1) - 1
    if moment.step <= peak:
        return _half_wave(1 / 25, 1.0, moment.step / peak)
    return _half_wave(1.0, 1 / 250_000, (moment.step - peak) / max(1.0, last - peak))


def _half_wave(start: float, end: float, share: float) -> float:
    """Between `start` and `end` along half a cosine, from share 0 to 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
