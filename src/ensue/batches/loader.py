"""The order of training: each epoch a new permutation of the windows, cut into batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import make_layout
from ensue.batches.tasks import Windows, shifted
from ensue.rng import stream


@dataclass(frozen=True, slots=True)
class Loader:
    """Batches of windows in the order of (seed, epoch), made in this process.

    Making a batch is a few array operations (under 2 ms for 128 windows of 200 events), so worker processes
    would cost more than they save.
    """

    windows: Windows
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """Batches in an epoch; the last may be smaller."""
        return -(-len(self.windows) // self.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[int, np.ndarray, SequenceBatch]]:
        """Yield (step, training row of each batch row, batch) from `first_step` on.

        The rows of a batch are sorted by length, which changes no statistic and spares a permutation.
        """
        order = stream(self.seed, "order", epoch).permutation(len(self.windows))
        for step in range(first_step, self.steps):
            chosen = np.sort(order[step * self.batch_size : (step + 1) * self.batch_size])
            lengths = self.windows.stop_W[chosen] - self.windows.start_W[chosen]
            chosen = chosen[np.argsort(-lengths, kind="stable")]
            yield step, self.windows.row_W[chosen], shifted(self.windows, chosen)


def take_share(
    batch: SequenceBatch, negatives: Tensor | None, rank: int, size: int
) -> tuple[SequenceBatch | None, Tensor | None]:
    """The rows rank, rank + size, ... of a batch and their negatives: what one of several processes works on.

    Rows are sorted by length, so such shares cost about the same. A share without rows is None.

    Args:
        batch: the global batch, on the CPU.
        negatives: of its positions [P, K], shared by all of them [K], or None.
        rank: whose share, 0 .. size - 1.
        size: how many shares.
    """
    if size == 1:
        return batch, negatives
    if rank >= len(batch.lengths_B):
        return None, negatives
    rows = torch.arange(rank, len(batch.lengths_B), size)
    row_P = torch.repeat_interleave(torch.arange(len(batch.lengths_B)), batch.lengths_B)
    own_P = torch.nonzero(row_P % size == rank).view(-1)
    values: dict[str, Any] = {}
    for field in fields(batch):
        # The suffix tells what a field is indexed by: P, positions, or B, rows.
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            value = value[own_P if field.name.endswith("_P") else rows]
        values[field.name] = value
    values["features"] = {name: value[own_P] for name, value in batch.features.items()}
    values["layout"] = make_layout(values["lengths_B"].numpy())
    if negatives is not None and negatives.dim() == 2:
        negatives = negatives[own_P]
    return SequenceBatch(**values), negatives
