"""Averages of the weights over training, which are evaluated, kept and served in place of the newest weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ensue.runs.config import TrainConfig
from ensue.train.progress import Progress


class Average:
    """An average of a model's parameters; none before it starts.

    - `ema`: after every step, average = d average + (1 - d) weights, with d = min(decay, (1 + t) / (10 + t)) for the
      t-th step, so that the first weights are soon forgotten.
    - `swa`: the mean of the weights after the last epochs. Source: Izmailov et al., Averaging Weights Leads to Wider
      Optima and Better Generalization, UAI 2018.

    Attributes:
        values: the average of each parameter, by name; empty before it starts.
        count: number of weights in the average.
        epoch: swa: the newest epoch in the average.
        newest: the newest weights, by name, while the model has the average in their place.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.values: dict[str, Tensor] = {}
        self.count = 0
        self.epoch = 0
        self.newest: dict[str, Tensor] = {}

    @property
    def first(self) -> int:
        """swa: the number of epochs before the first one averaged."""
        return int(self.config.average_start * self.config.num_epochs)

    def after_step(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        if self.config.average == "ema":
            self._take_in(model, 1 - min(self.config.average_decay, (1 + self.count) / (10 + self.count)))

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Take in the weights after an epoch, counted from 1, unless a resumed training has already done so."""
        if self.config.average == "swa" and epoch > max(self.first, self.epoch):
            self._take_in(model, 1 / (self.count + 1))
            self.epoch = epoch

    def restore(self, values: dict[str, Tensor], progress: Progress, device: torch.device) -> None:
        """Continue from a checkpoint's average and progress."""
        self.values = {name: tensor.to(device) for name, tensor in values.items()}
        self.count, self.epoch = progress.averaged, progress.averaged_epoch

    def continue_beyond(self, epoch: int) -> None:
        """Continue with more epochs after `epoch` ones: swa starts again if the last epochs have not begun."""
        if self.config.average == "swa" and epoch <= self.first:
            self.values, self.count, self.epoch = {}, 0, 0

    @torch.no_grad()
    def _take_in(self, model: nn.Module, share: float) -> None:
        for name, parameter in model.named_parameters():
            if self.count:
                self.values[name].lerp_(parameter, share)
            else:
                self.values[name] = parameter.detach().clone()
        self.count += 1

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """A context in which the model has the average as its weights, if there is one."""
        if self.count:
            self.newest = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        try:
            _assign(model, self.values)
            yield
        finally:
            self.remove(model)

    def remove(self, model: nn.Module) -> None:
        """Give the model its newest weights again; to be repeated if a signal ended `applied` between two weights."""
        _assign(model, self.newest)
        self.newest = {}


@torch.no_grad()
def _assign(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in values:
            parameter.copy_(values[name])
