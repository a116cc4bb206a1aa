"""The best possible scorer of the simulated data, as one more model for the evaluation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.data.store import SequenceStore
from ensue.datasets.simulate import Simulation


class BestPossible:
    """Scores by the generator's own probabilities, given the whole history and nothing else.

    Args:
        world: the simulation that drew the log.
        store: the log as prepared; its item numbers are those of the batches.
    """

    def __init__(self, world: Simulation, store: SequenceStore) -> None:
        self.world = world
        self.item_ids = store.item_ids.ids.to_numpy()
        self.num_items = store.num_items
        # The filter needs every event from the first on.
        self.maxlen = int(store.lengths.max())

    def score(self, batch: SequenceBatch, items_BC: Tensor | None = None) -> Tensor:
        """Probabilities of the next item, [B, N] or [B, C]."""
        assert batch.times_P is not None
        items_P, lengths_B, times_P = (part.numpy() for part in (batch.items_P, batch.lengths_B, batch.times_P))
        scores = self.world.best_scores(items_P, lengths_B, times_P, self.item_ids)
        scores_BN = torch.from_numpy(np.ascontiguousarray(scores))
        return scores_BN if items_BC is None else scores_BN.gather(1, items_BC - 1)
