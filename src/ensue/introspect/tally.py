"""Means and maxima over events that come batch by batch, and the models that can be looked into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import Layout
from ensue.errors import ConfigError
from ensue.nn.model import Model
from ensue.nn.trunk import Trunk


class Tally:
    """Sums by name; each value of the first dimension is one observation."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._peaks: dict[str, float] = {}

    def add(self, name: str, values_PX: Tensor) -> None:
        """Count observations [P, ...]."""
        # On the CPU, for not every device has float64.
        values_PX = values_PX.cpu()
        total = values_PX.double().sum(0)
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._counts[name] = self._counts.get(name, 0) + len(values_PX)
        if values_PX.dim() == 1:
            self._peaks[name] = max(self._peaks.get(name, -float("inf")), float(values_PX.max()))

    def __contains__(self, name: object) -> bool:
        return name in self._sums

    def mean(self, name: str) -> Any:
        """The mean: a number, or nested lists of the observations' shape."""
        return (self._sums[name] / self._counts[name]).tolist()

    def peak(self, name: str) -> float:
        """The largest of observations that are numbers."""
        return self._peaks[name]

    def count(self, name: str) -> int:
        """How many observations."""
        return self._counts[name]


def trunk_of(model: nn.Module) -> Trunk:
    """The model's trunk of blocks.

    Raises:
        ConfigError: it has none: it counts, or is built otherwise.
    """
    for part in model.modules():
        if isinstance(part, Trunk):
            return part
    raise ConfigError(
        f"{type(model).__name__} has no blocks to look into: inspect needs a transformer model, such as sasrec "
        "or tisasrec"
    )


def answer(model: Model, batch: SequenceBatch) -> None:
    """Run the model over a batch, one candidate for each asked event."""
    model.logits(batch, torch.ones_like(batch.asked_Q)[:, None])


def places_of(batch: SequenceBatch, inner: Layout) -> Tensor:
    """Where a batch's events are in the layout that a model's blocks work on, [P]: the newest places of each row.

    For most models these are all places. Some fill their rows on the left (`sasrec-padded`), and padding is no event.
    """
    return inner.last_B.repeat_interleave(batch.lengths_B) - batch.layout.age_P


@contextmanager
def looking(model: nn.Module) -> Iterator[None]:
    """Without gradients and dropout; the model's mode is put back."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
