"""What training minimises: a loss over the targets and their negatives, or over the whole catalogue."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.config import Config
from ensue.data.split import Sequences
from ensue.errors import ConfigError
from ensue.models.base import Encoder
from ensue.nn.ops.candidates import candidate_logits
from ensue.nn.ops.full_softmax import cross_entropy
from ensue.objectives import losses
from ensue.objectives.negatives import (
    InBatchNegatives,
    MixedNegatives,
    Negatives,
    NegativesName,
    PopularityNegatives,
    SeenItems,
    UniformNegatives,
    log_inclusion,
)

LossName = Literal["bce", "gbce", "ce", "sampled-softmax", "bpr", "bpr-max", "top1", "top1-max"]


class ObjectiveConfig(Config):
    """The loss and its negatives."""

    loss: LossName = Field("bce", description="loss; ce is the full softmax and draws no negatives")
    negatives: NegativesName = Field("uniform", description="distribution of negatives")
    num_negatives: int = Field(1, ge=1, description="negatives per position, or per batch when shared")
    share_negatives: bool = Field(False, description="one set of distinct negatives for a batch, of all items")
    hard_pool: int = Field(0, ge=0, description="draw this many and keep the num_negatives of highest score; 0: off")
    popularity_alpha: float = Field(0.75, ge=0, description="popularity negatives: share ~ count^alpha")
    uniform_share: float = Field(0.5, ge=0, le=1, description="mixed negatives: share of uniform draws")
    logq: bool = Field(True, description="sampled-softmax: subtract the log of each negative's rate from its logit")
    gbce_t: float = Field(0.75, ge=0, le=1, description="gbce: calibration, 0 is bce and 1 matches the full softmax")
    bpr_max_regularisation: float = Field(1.0, ge=0, description="bpr-max: weight of the score regularisation")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.share_negatives and self.num_negatives < 2:
            raise ValueError("share_negatives needs num_negatives of at least 2")
        if self.hard_pool and self.hard_pool < self.num_negatives:
            raise ValueError(f"hard_pool {self.hard_pool} must be at least num_negatives {self.num_negatives}")
        return self


class Objective:
    """Draws negatives and computes the loss of every position."""

    def __init__(self, config: ObjectiveConfig, train: Sequences) -> None:
        self.config = config
        self.num_items = train.store.num_items
        self.draws = 0 if config.loss == "ce" else max(config.num_negatives, config.hard_pool)
        if self.draws == 0:
            return
        if config.share_negatives and self.draws >= self.num_items:
            raise ConfigError(
                f"{self.draws} distinct negatives need a larger catalogue than {self.num_items} items; use loss = ce"
            )
        counts_N = np.bincount(train.items_P, minlength=self.num_items + 1)[1:]
        self.negatives = make_negatives(config, SeenItems(train), counts_N)
        self.log_rate = self._log_rate() if config.loss == "sampled-softmax" and config.logq else None
        self.loss = self._make_loss()

    def _log_rate(self) -> Tensor:
        """log of how often an item is expected among the draws of a position, or of a batch: [N + 1]."""
        log_q = self.negatives.log_q()
        if self.config.share_negatives:
            return torch.from_numpy(log_inclusion(log_q, self.draws))
        return torch.from_numpy(log_q + np.float32(np.log(self.draws)))

    def _make_loss(self) -> losses.Loss:
        config = self.config
        if config.loss == "gbce":
            return losses.gbce(losses.gbce_beta(config.num_negatives, self.num_items, config.gbce_t))
        if config.loss == "bpr-max":
            return losses.bpr_max(config.bpr_max_regularisation)
        return losses.LOSSES[config.loss]

    def draw(self, rows_B: np.ndarray, batch: SequenceBatch, rng: np.random.Generator) -> Tensor | None:
        """Negatives of a batch: int64 [P, K], or [K] when shared; None for the full softmax.

        Args:
            rows_B: the training row of each batch row.
            batch: a batch with targets, on the CPU.
            rng: the stream of this step.
        """
        if self.draws == 0:
            return None
        if self.config.share_negatives:
            return torch.from_numpy(self.negatives.draw_shared(self.draws, rng))
        assert batch.targets_P is not None
        rows_P = np.repeat(rows_B, batch.lengths_B.numpy())
        return torch.from_numpy(self.negatives.draw(rows_P, batch.targets_P.numpy(), self.draws, rng))

    def __call__(self, model: Encoder, h_PD: Tensor, batch: SequenceBatch, negatives: Tensor | None) -> Tensor:
        """The loss of every position, float32 [P].

        Args:
            model: whose item vectors the states are compared with.
            h_PD: states at all events.
            batch: the batch, with targets.
            negatives: from `draw`, on the batch's device.
        """
        target_P = batch.targets_P
        assert target_P is not None
        if negatives is None:
            return cross_entropy(h_PD, target_P - 1, model.item_vectors())
        if negatives.dim() == 1:
            pos_P = (h_PD * model.item_vectors(target_P)).sum(-1)
            neg_PK = h_PD @ model.item_vectors(negatives).T
            pos_P, neg_PK = self._correct(pos_P, neg_PK, target_P, negatives)
            # A shared negative may be a position's target; its neighbour, never the same item, stands in for it.
            neg_PK = torch.where(negatives == target_P[:, None], neg_PK.roll(1, 1), neg_PK)
        else:
            items_PC = torch.cat((target_P[:, None], negatives), 1)
            logits_PC = candidate_logits(h_PD, items_PC, model.item_vectors, self.num_items)
            pos_P, neg_PK = self._correct(logits_PC[:, 0], logits_PC[:, 1:], target_P, negatives)
        if self.config.hard_pool:
            neg_PK = neg_PK.topk(self.config.num_negatives, dim=1).values
        return self.loss(pos_P, neg_PK)

    def _correct(self, pos_P: Tensor, neg_PK: Tensor, target_P: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Subtract the log rate of each negative, so that exp of it is an unbiased share of the full softmax's sum.

        The target is there with certainty, so its logit stays (Yi et al. 2019 subtract both; with the target always
        included, its rate is one).
        """
        if self.log_rate is None:
            return pos_P, neg_PK
        self.log_rate = self.log_rate.to(neg_PK.device)
        return pos_P, neg_PK - self.log_rate[negatives]


def make_negatives(config: ObjectiveConfig, seen: SeenItems, counts_N: np.ndarray) -> Negatives:
    """The distribution that the configuration names.

    Args:
        config: the objective's settings.
        seen: the items of every training row.
        counts_N: training events of each item.
    """
    if config.negatives == "uniform":
        return UniformNegatives(seen)
    if config.negatives == "in-batch":
        return InBatchNegatives(seen, counts_N)
    popularity = PopularityNegatives(seen, counts_N, config.popularity_alpha)
    if config.negatives == "popularity":
        return popularity
    return MixedNegatives(UniformNegatives(seen), popularity, config.uniform_share)
