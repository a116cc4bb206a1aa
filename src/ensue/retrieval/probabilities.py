"""Scores as probabilities of the next item, for models that support it.

Suffixes: `B` rows, `N` items, `1` a dimension of one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.errors import EnsueError
from ensue.nn.model import CountedModel, Model
from ensue.objectives.losses import LOSSES
from ensue.objectives.objective import ObjectiveConfig
from ensue.retrieval.index import Pairs, top_k
from ensue.retrieval.scores import checked


def shares(scores_BN: Tensor) -> Tensor:
    """Non-negative scores divided by their sum; 0 for -inf. If all are 0, the allowed items get equal shares."""
    is_allowed_BN = scores_BN > float("-inf")
    scores_BN = scores_BN.where(is_allowed_BN, 0.0)
    is_zero_B1 = scores_BN.sum(1, keepdim=True) == 0
    scores_BN = torch.where(is_zero_B1, is_allowed_BN.float(), scores_BN)
    return scores_BN / scores_BN.sum(1, keepdim=True).clamp(min=1e-30)


def softmax(scores_BN: Tensor) -> Tensor:
    """exp(scores) divided by their sum, 0 for -inf."""
    return scores_BN.softmax(1).nan_to_num(0.0)


def most_probable(
    normalise: Callable[[Tensor], Tensor],
    scores_BN: Tensor,
    k: int,
    exclude: Pairs | None = None,
    allow_N: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`top_k` of the probabilities that `normalise` computes from the scores of the items that may be returned."""
    scores_BN = checked(scores_BN)
    if exclude is not None:
        scores_BN[exclude[0], exclude[1] - 1] = float("-inf")
    if allow_N is not None:
        scores_BN = scores_BN.masked_fill(~allow_N, float("-inf"))
    return top_k(normalise(scores_BN), k, exclude, allow_N)


class Probabilities:
    """A retriever whose scores are probabilities: they sum to 1 over all items that may be returned.

    For a model trained with a softmax loss they are the softmax of its scores; for a counted model, the shares of its
    counts. All items are scored, even if the model is otherwise searched with an index.

    Args:
        model: the model.
        objective: the objective that it was trained with; not used for counted models.

    Raises:
        EnsueError: the scores of this model, or of a model trained with this loss, are not probabilities.
    """

    def __init__(self, model: Model, objective: ObjectiveConfig) -> None:
        self.model = model
        if isinstance(model, CountedModel):
            self.normalise = shares
            if not model.counts_events:
                raise EnsueError(f"the scores of {type(model).__name__} are not probabilities: omit probabilities")
            return
        self.normalise = softmax
        if not LOSSES[objective.loss](objective, model.num_items).is_softmax:
            raise EnsueError(
                f"the scores of a model trained with loss {objective.loss!r} are not probabilities: train with "
                "loss = 'ce' or 'sampled-softmax' with logq, or omit probabilities"
            )

    def __call__(
        self, batch: SequenceBatch, k: int, exclude: Pairs | None = None, allow_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Retriever.__call__`; the scores are probabilities."""
        return most_probable(self.normalise, self.model.logits(batch), k, exclude, allow_N)
