"""Beam search over the codes of items.

Suffixes: `B` rows of a batch, `Q` asked events, `W` kept nodes, `N` items, `K` recommendations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.models.tiger import TIGER
from ensue.retrieval.index import Pairs


class BeamSearch:
    """A retriever by `TIGER.beam`: its items are the most likely of those that the beam reaches.

    Args:
        model: the model.
        width: nodes that are kept on each level.
    """

    def __init__(self, model: TIGER, width: int = 50) -> None:
        self.model, self.width = model, width

    def __call__(
        self,
        batch: SequenceBatch,
        k: int,
        exclude: Pairs | None = None,
        allow_N: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Retriever.__call__`; scores are -inf where the beam has fewer than k items."""
        k = min(k, self.model.num_items)
        scores_QW, items_QW = self.model.beam(batch, max(k, self.width))
        if exclude is not None:
            width = self.model.num_items + 1
            pair_QW = torch.arange(len(items_QW), device=items_QW.device)[:, None] * width + items_QW
            scores_QW = scores_QW.masked_fill(torch.isin(pair_QW, exclude[0] * width + exclude[1]), float("-inf"))
        if allow_N is not None:
            scores_QW = scores_QW.masked_fill(~allow_N[items_QW - 1], float("-inf"))
        best_QK, place_QK = scores_QW.topk(k, dim=1)
        return best_QK, items_QW.gather(1, place_QK)
