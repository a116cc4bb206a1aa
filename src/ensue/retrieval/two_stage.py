"""Two stages: a first model finds candidates, a second one orders them.

Suffixes: `B` rows, `N` items, `C` candidates, `1` a dimension of one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ensue.batches.batch import SequenceBatch, newest_events
from ensue.nn.model import Model
from ensue.retrieval import CANDIDATES
from ensue.retrieval.index import Pairs
from ensue.retrieval.retriever import Retriever
from ensue.retrieval.scores import checked


class TwoStage:
    """The candidates of a retriever, in the order of a ranker.

    Args:
        retriever: finds the candidates.
        ranker: any model; it scores the candidates alone.
        candidates: number of candidates.
        weight: share of the ranker in the order, above 0. With 1 its scores are the order; with less, the order is by
            the weighted mean of the scores of both, each with mean 0 and deviation 1 among the candidates of a row.
    """

    def __init__(self, retriever: Retriever, ranker: Model, candidates: int = CANDIDATES, weight: float = 1.0) -> None:
        self.retriever, self.ranker = retriever, ranker
        self.candidates, self.weight = candidates, weight
        # Batches are as long as the longer of the two histories; each model reads its own newest events.
        self.model = max((retriever.model, ranker), key=lambda model: model.maxlen)

    def __call__(
        self, batch: SequenceBatch, k: int, exclude: Pairs | None = None, allow_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Retriever.__call__`; places after the last candidate have the score -inf."""
        first = newest_events(batch, self.retriever.model.maxlen)
        scores_BC, items_BC = self.retriever(first, self.candidates, exclude, allow_N)
        scores_BC = self.rank(batch, scores_BC, items_BC)
        # Ties are broken by the lower item number, as in `top_k`.
        items_BC, by_number = items_BC.sort(1)
        scores_BC, by_score = scores_BC.gather(1, by_number).sort(dim=1, descending=True, stable=True)
        items_BC, left = items_BC.gather(1, by_score), min(k, self.model.num_items) - items_BC.shape[1]
        if left > 0:
            scores_BC, items_BC = F.pad(scores_BC, (0, left), value=float("-inf")), F.pad(items_BC, (0, left), value=1)
        return scores_BC[:, :k], items_BC[:, :k]

    def rank(self, batch: SequenceBatch, scores_BC: Tensor, items_BC: Tensor) -> Tensor:
        """The scores that order the candidates, [B, C]; -inf stays -inf.

        Args:
            batch: the histories, as long as the longer model reads them.
            scores_BC: the scores of the first stage, -inf where there are fewer candidates.
            items_BC: the candidates.
        """
        is_item_BC = scores_BC > float("-inf")
        ranked_BC = checked(self.ranker.logits(newest_events(batch, self.ranker.maxlen), items_BC))
        if self.weight < 1:
            first_BC = _standardised(scores_BC, is_item_BC)
            ranked_BC = self.weight * _standardised(ranked_BC, is_item_BC) + (1 - self.weight) * first_BC
        return ranked_BC.masked_fill(~is_item_BC, float("-inf"))


def _standardised(scores_BC: Tensor, is_item_BC: Tensor) -> Tensor:
    """Scores with mean 0 and deviation 1 over the candidates of each row."""
    scores_BC = torch.where(is_item_BC, scores_BC, 0.0)
    count_B1 = is_item_BC.sum(1, keepdim=True).clamp(min=1)
    centred_BC = torch.where(is_item_BC, scores_BC - scores_BC.sum(1, keepdim=True) / count_B1, 0.0)
    return centred_BC / (centred_BC.square().sum(1, keepdim=True) / count_B1).sqrt().clamp(min=1e-9)
