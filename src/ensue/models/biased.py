"""An encoder with a vector and a bias per item.

Suffixes: `Q` asked events, `D` width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.nn.embedding import ItemEmbedding
from ensue.nn.model import EventEncoder


class BiasedEncoder(EventEncoder):
    """score(h, i) = h . E[i] + b[i]: the bias is an additional column of the item vectors, and states end with a one.

    Args:
        num_items: N.
        maxlen: number of newest events of a history that the model reads.
        hidden_units: D, the width of E.
        extra: number of additional rows of E for inputs that are not items, such as [MASK]; they are never scored.
    """

    def __init__(self, num_items: int, maxlen: int, hidden_units: int, extra: int = 0) -> None:
        super().__init__(num_items, maxlen)
        self.items = ItemEmbedding(num_items, hidden_units, extra)
        self.item_bias = nn.Parameter(torch.empty(num_items))

    @property
    def input_table(self) -> ItemEmbedding:
        """The item vectors, without biases."""
        return self.items

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Vectors and biases of `items`, [..., D + 1], or of the whole catalogue, [N, D + 1]."""
        if items is None:
            return torch.cat((self.items.catalogue(), self.item_bias[:, None]), -1)
        return torch.cat((self.items(items), self.item_bias[items - 1, None]), -1)


def with_one(h_QD: Tensor) -> Tensor:
    """States with an additional last column of ones, which selects the bias: [Q, D] -> [Q, D + 1]."""
    return F.pad(h_QD, (0, 1), value=1.0)
