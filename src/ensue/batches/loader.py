"""The order of training: in each epoch a new permutation of the windows, cut into batches.

Suffixes: `W` windows, `B` rows of a batch, `P` events of all rows, `Q` asked events, `K` shared negatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ensue.batches.batch import SequenceBatch
from ensue.batches.lanes import LaneLoader
from ensue.batches.layout import make_layout
from ensue.batches.tasks import Task, Windows
from ensue.errors import ConfigError
from ensue.rng import stream


@dataclass(frozen=True, slots=True)
class Loader:
    """Batches of windows in an order keyed by (seed, epoch), created in this process.

    Creating a batch takes a few array operations (under 2 ms for 128 windows of 200 events), so worker processes would
    cost more than they save.
    """

    windows: Windows
    task: Task
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """Number of batches in an epoch; the last may be smaller."""
        return -(-len(self.windows) // self.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[int, np.ndarray, SequenceBatch]]:
        """Yield (step, training row of each batch row, batch) from `first_step` on.

        The rows of a batch are sorted by length, which changes no statistic and saves a permutation in the layout.
        """
        order = stream(self.seed, "order", epoch).permutation(len(self.windows))
        for step in range(first_step, self.steps):
            chosen = np.sort(order[step * self.batch_size : (step + 1) * self.batch_size])
            lengths = self.windows.stop_W[chosen] - self.windows.start_W[chosen]
            chosen = chosen[np.argsort(-lengths, kind="stable")]
            batch = self.task.make(self.windows, chosen, stream(self.seed, "task", epoch, step))
            yield step, self.windows.row_W[chosen], batch


def make_loader(windows: Windows, task: Task, batch_size: int, seed: int, shares: int = 1) -> Loader | LaneLoader:
    """The loader of a task; `batch_size` is the number of windows, or of lanes.

    Args:
        windows: the training windows.
        task: what each batch asks.
        batch_size: number of windows or lanes.
        seed: of the order.
        shares: number of shares into which each batch is split.

    Raises:
        ConfigError: a task with lanes and several shares, or with events that are no targets.
    """
    if not task.lane_steps:
        return Loader(windows, task, batch_size, seed)
    if windows.sequences.store.is_target is not None:
        raise ConfigError(f"lane_steps {task.lane_steps} predicts every event: use lane_steps = 0 with target_event")
    if shares > 1:
        raise ConfigError(
            f"lane_steps {task.lane_steps} keeps the states of all lanes: use batch_parts = 1 and one process "
            f"(got {shares} shares of a batch)"
        )
    return LaneLoader(windows, task.lane_steps, batch_size, seed)


def take_share(batch: SequenceBatch, rank: int, size: int) -> SequenceBatch | None:
    """One process's share of a batch: the rows rank, rank + size and so on. None if there are none.

    Rows are sorted by length, so the shares cost about the same.

    Args:
        batch: the global batch, on the CPU, with its negatives.
        rank: number of the share, 0 .. size - 1.
        size: number of shares.
    """
    if size == 1:
        return batch
    if rank >= len(batch.lengths_B):
        return None
    lengths_B = batch.lengths_B.numpy()
    is_own_P = np.repeat(np.arange(len(lengths_B)) % size == rank, lengths_B)
    is_own_Q = is_own_P[batch.asked_Q.numpy()]
    own_P, own_Q = torch.from_numpy(np.flatnonzero(is_own_P)), torch.from_numpy(np.flatnonzero(is_own_Q))
    # The number in the share of each event of the global batch.
    number_P = np.cumsum(is_own_P) - 1
    asked_Q = number_P[batch.asked_Q.numpy()[is_own_Q]]
    negatives = batch.negatives
    if negatives is not None and negatives.dim() == 2:
        negatives = negatives[own_Q]
    return SequenceBatch(
        batch.items_P[own_P],
        batch.lengths_B[rank::size],
        make_layout(lengths_B[rank::size], None if len(asked_Q) == len(own_P) else asked_Q),
        torch.from_numpy(asked_Q),
        batch.row_Q[own_Q] // size,
        batch.asks,
        None if batch.target_Q is None else batch.target_Q[own_Q],
        negatives,
        None if batch.times_P is None else batch.times_P[own_P],
        None if batch.query_times_P is None else batch.query_times_P[own_P],
        None if batch.users_B is None else batch.users_B[rank::size],
        features=None if batch.features is None else {name: x_P[own_P] for name, x_P in batch.features.items()},
        log_rate_K=batch.log_rate_K,
    )
