"""The order of training: each epoch a new permutation of the windows, cut into batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ensue.batches.batch import SequenceBatch
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
