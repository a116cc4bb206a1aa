"""An encoder whose output weights are its item vectors: all that such models share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.nn.embedding import ItemEmbedding


class TiedEncoder(nn.Module):
    """score(h, i) = h . E[i]; a model defines `states`, and the rest follows."""

    def __init__(self, num_items: int, maxlen: int, hidden_units: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.maxlen = maxlen
        self.items = ItemEmbedding(num_items, hidden_units)

    def states(self, batch: SequenceBatch, newest: bool) -> Tensor:
        """States at all events, [P, D], or with `newest` at each row's newest event alone, [B, D]."""
        raise TypeError(f"{type(self).__name__} must define states")

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at all events, [P, D]."""
        return self.states(batch, newest=False)

    def query(self, batch: SequenceBatch) -> Tensor:
        """States at each row's newest event, [B, D]; the last block works for those events alone."""
        return self.states(batch, newest=True)

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Vectors of `items`, [..., D], or of the whole catalogue, [N, D]."""
        if items is None:
            return self.items.catalogue()
        vectors: Tensor = self.items(items)
        return vectors

    def score(self, batch: SequenceBatch, items_BC: Tensor | None = None) -> Tensor:
        """Inner products of the query with the candidates: [B, C], or [B, N] for the whole catalogue."""
        query_BD = self.query(batch)
        if items_BC is None:
            return query_BD @ self.item_vectors().T
        return torch.einsum("bd,bcd->bc", query_BD, self.item_vectors(items_BC))
