"""An encoder whose output weights are its item vectors: all that such models share."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import make_layout, newest
from ensue.nn.embedding import ItemEmbedding


class TiedEncoder(nn.Module):
    """score(h, i) = h . E[i]; a model defines `states`, and the rest follows."""

    def __init__(self, num_items: int, maxlen: int, hidden_units: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.maxlen = maxlen
        self.items = ItemEmbedding(num_items, hidden_units)

    def states(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D]."""
        raise TypeError(f"{type(self).__name__} must define states")

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at all events, [P, D]."""
        return self.states(replace(batch, layout=batch.layout.everything))

    def query(self, batch: SequenceBatch) -> Tensor:
        """States at each row's newest event, [B, D]; the last block works for those events alone."""
        lengths_B = batch.lengths_B.cpu().numpy()
        layout = make_layout(lengths_B, newest(lengths_B)).to(batch.items_P.device)
        return self.states(replace(batch, layout=layout))

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
