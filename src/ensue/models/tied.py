"""An encoder whose output weights are its item vectors."""

from __future__ import annotations

from torch import Tensor

from ensue.nn.embedding import ItemEmbedding
from ensue.nn.model import EventEncoder


class TiedEncoder(EventEncoder):
    """score(h, i) = h . E[i]: the input vectors of events are also the scoring vectors of items.

    Args:
        num_items: N.
        maxlen: number of newest events of a history that the model reads.
        hidden_units: D, the width of E.
        query_time: whether the model reads the time of the request.
        extra: number of additional rows of E for inputs that are not items, such as [MASK]; they are never scored.
    """

    def __init__(
        self, num_items: int, maxlen: int, hidden_units: int, query_time: bool = False, extra: int = 0
    ) -> None:
        super().__init__(num_items, maxlen, query_time)
        self.items = ItemEmbedding(num_items, hidden_units, extra)

    @property
    def input_table(self) -> ItemEmbedding:
        """The item vectors."""
        return self.items

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Vectors of `items`, [..., D], or of the whole catalogue, [N, D]."""
        if items is None:
            return self.items.catalogue()
        vectors: Tensor = self.items(items)
        return vectors
