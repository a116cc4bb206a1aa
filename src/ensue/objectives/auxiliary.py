"""Terms that are added to the loss of the next item.

Suffixes: `B` rows of a batch, `Q` asked events, `D` width, `R` rows of a view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from ensue.batches.augment import augmented, similar_items
from ensue.batches.batch import SequenceBatch, Views
from ensue.data.split import Sequences
from ensue.errors import DataError
from ensue.nn.model import Encoder
from ensue.registry import OWN, Registry

if TYPE_CHECKING:
    from ensue.objectives.objective import ObjectiveConfig


class Auxiliary(Protocol):
    """A term that compares views of a batch's rows."""

    def views(self, rows_B: np.ndarray, batch: SequenceBatch, rng: np.random.Generator) -> Views:
        """The views of a batch, from its training rows and the stream of its step."""
        ...

    def __call__(self, encoder: Encoder, views: Views) -> Tensor:
        """The term of every row, float32 [B]."""
        ...


# Name -> (settings, the training rows) -> the term, or None.
AUXILIARIES: Registry[Callable[[ObjectiveConfig, Sequences], Auxiliary | None]] = Registry("auxiliary", hint=OWN)


@AUXILIARIES.register("none")
def _none(config: ObjectiveConfig, train: Sequences) -> None:
    return None


class Contrastive:
    """Two augmented views of a row are to have like states, unlike those of other rows (CL4SRec, Xie et al. 2022)."""

    def __init__(self, config: ObjectiveConfig, train: Sequences) -> None:
        self.names, self.temperature = config.augmentations, config.contrastive_temperature
        self.users_R = np.asarray(train.users_R)
        self.similar = similar_items(train)
        lacking = sorted({"substitute", "insert"} & set(self.names))
        if lacking and (self.similar == np.arange(len(self.similar))).all():
            raise DataError(
                f"augmentation {lacking[0]} needs similar items, but in training no item stands beside another: use "
                "others (--augmentations crop,mask,reorder), or train without the term (--auxiliary none)"
            )

    def views(self, rows_B: np.ndarray, batch: SequenceBatch, rng: np.random.Generator) -> Views:
        """Two views of each row, by two different augmentations where there are two."""
        count = len(self.names)
        first_B = rng.integers(0, count, len(rows_B))
        second_B = (first_B + rng.integers(1, max(2, count), len(rows_B))) % count
        first, second = (augmented(batch, self.names, choice, self.similar, rng) for choice in (first_B, second_B))
        assert batch.target_Q is not None
        # The row's newest target: asked events come in their order.
        target_B = batch.target_Q.numpy()[np.searchsorted(batch.row_Q.numpy(), np.arange(len(rows_B)), "right") - 1]
        user_B = self.users_R[rows_B]
        is_same_BB = (user_B[:, None] == user_B) | (target_B[:, None] == target_B)
        return Views(first, second, torch.from_numpy(is_same_BB))

    def __call__(self, encoder: Encoder, views: Views) -> Tensor:
        """`info_nce` of the states at the newest events, [B]."""
        return info_nce(encoder.encode(views.first), encoder.encode(views.second), views.is_same_BB, self.temperature)


AUXILIARIES.register("contrastive")(Contrastive)


def info_nce(first_BD: Tensor, second_BD: Tensor, is_same_BB: Tensor, temperature: float) -> Tensor:
    """-log of the share that a row's other view has among the views of other rows, the mean over both views: [B].

    Views are compared by inner products over `temperature`. Source: CL4SRec, eq. 4.

    Args:
        first_BD: states of the first views.
        second_BD: states of the second views.
        is_same_BB: pairs of rows that are no negatives of each other, a row and itself among them.
        temperature: above 0.
    """
    first_BD, second_BD = first_BD.float(), second_BD.float()
    pos_B = (first_BD * second_BD).sum(-1) / temperature
    hidden = torch.finfo(torch.float32).min
    loss_B = torch.zeros_like(pos_B)
    for one_BD, other_BD in ((first_BD, second_BD), (second_BD, first_BD)):
        negatives = [(one_BD @ x_BD.T / temperature).masked_fill(is_same_BB, hidden) for x_BD in (one_BD, other_BD)]
        loss_B = loss_B + torch.logaddexp(pos_B, torch.cat(negatives, 1).logsumexp(1)) - pos_B
    return loss_B / 2
