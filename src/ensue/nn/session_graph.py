"""Session graphs as rectangles: which items of a row follow which.

The nodes of the graph are the distinct items of a row. A node is stored at every event of its item: the rows of a
rectangle are events, and only the columns at the first event of each item are used. States therefore remain packed
events, `[P, D]`, equal at all events of an item, and no index of nodes is needed.

Suffixes: `P` events of all rows; within one group of the layout `G` rows and `T` events of the longest row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ensue.batches.layout import Layout


@dataclass(frozen=True, slots=True)
class SessionGraph:
    """The graphs of one rectangle of rows.

    Attributes:
        same_GTT: bool, whether two events are of one item; False for padding.
        is_first_GT: bool, whether an event is the first of its item.
        follows_GTT: bool, [g, a, b]: the item of b comes directly after the item of a somewhere in the row, and b is
            the first event of its item.
        precedes_GTT: bool, [g, a, b]: the same with "directly before".
    """

    same_GTT: Tensor
    is_first_GT: Tensor
    follows_GTT: Tensor
    precedes_GTT: Tensor

    def normalised(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The incoming and the outgoing adjacency, each row divided by its degree: [G, T, T] each."""
        shares = [edges.to(dtype) for edges in (self.precedes_GTT, self.follows_GTT)]
        incoming, outgoing = (share / share.sum(-1, keepdim=True).clamp(min=1) for share in shares)
        return incoming, outgoing


def session_graphs(items_P: Tensor, layout: Layout) -> list[SessionGraph]:
    """The graphs of every rectangle of a batch.

    Args:
        items_P: item numbers, 1..N.
        layout: the rectangles.
    """
    return [_graph(items_GT) for items_GT in layout.pad(items_P)]


def _graph(items_GT: Tensor) -> SessionGraph:
    is_event_GT = items_GT > 0
    same_GTT = (items_GT[:, :, None] == items_GT[:, None, :]) & is_event_GT[:, :, None]
    is_first_GT = is_event_GT & ~same_GTT.tril(-1).any(-1)
    # [a, t]: the event before t is of a's item. Then b of the same item as t follows a.
    before_GTT = torch.zeros_like(same_GTT, dtype=torch.float32)
    before_GTT[:, :, 1:] = same_GTT[:, :, :-1].float()
    edges_GTT = before_GTT @ same_GTT.float() > 0
    is_column_GTT = is_first_GT[:, None, :]
    return SessionGraph(same_GTT, is_first_GT, edges_GTT & is_column_GTT, edges_GTT.mT & is_column_GTT)
