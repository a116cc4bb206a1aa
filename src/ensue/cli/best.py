"""The best possible scorer of the simulated data, as a model for the evaluation.

Suffixes: `B` rows, `P` events of all rows, `Q` asked events, `C` candidates, `K` shared candidates.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.data.store import SequenceStore
from ensue.datasets.simulate import Simulation
from ensue.nn.model import Model, columns_of


class BestPossible(Model):
    """Score items by the generator's own probabilities, given the whole history and nothing else.

    Args:
        world: the simulation that drew the log.
        store: the prepared log; batches have its item numbers.
    """

    def __init__(self, world: Simulation, store: SequenceStore) -> None:
        # The filter needs all events of a history.
        super().__init__(store.num_items, maxlen=int(store.lengths.max()))
        self.world = world
        self.item_ids = store.item_ids.ids.to_numpy()

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        """Probabilities of the next item; see `Model.logits`."""
        assert batch.times_P is not None
        items_P, lengths_B, times_P = (part.numpy() for part in (batch.items_P, batch.lengths_B, batch.times_P))
        scores = self.world.best_scores(items_P, lengths_B, times_P, self.item_ids)
        return columns_of(torch.from_numpy(np.ascontiguousarray(scores)), items_QC, shared_K)
