"""What training minimises: a loss over the targets and their negatives, or over the whole catalogue."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.config import Config
from ensue.data.split import Sequences
from ensue.errors import ConfigError
from ensue.nn.model import Encoder, Model
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
    num_negatives: int = Field(1, ge=1, description="negatives of each asked event, or of a batch when shared")
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
    """Draws negatives and computes the loss at every asked event."""

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
        """log of how often an item is expected among the draws of an asked event, or of a batch: [N + 1]."""
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

    def draw(self, rows_B: np.ndarray, batch: SequenceBatch, rng: np.random.Generator) -> SequenceBatch:
        """The batch with its negatives; as it is for the full softmax.

        Args:
            rows_B: the training row of each batch row.
            batch: a batch with targets, on the CPU.
            rng: the stream of this step.
        """
        if self.draws == 0:
            return batch
        if self.config.share_negatives:
            return replace(batch, negatives=torch.from_numpy(self.negatives.draw_shared(self.draws, rng)))
        assert batch.target_Q is not None
        rows_Q = rows_B[batch.row_Q.numpy()]
        drawn = self.negatives.draw(rows_Q, batch.target_Q.numpy(), self.draws, rng)
        return replace(batch, negatives=torch.from_numpy(drawn))

    def __call__(self, model: Model, batch: SequenceBatch) -> Tensor:
        """The loss at every asked event, float32 [Q].

        Args:
            model: what scores the candidates.
            batch: from `draw`, on the model's device.

        Raises:
            ConfigError: the loss is the full softmax and the model has no item vectors.
        """
        target_Q, negatives = batch.target_Q, batch.negatives
        assert target_Q is not None
        if self.draws == 0 or negatives is None:
            if not isinstance(model, Encoder):
                raise ConfigError("loss ce needs item vectors, and this model ranks candidates: use sampled-softmax")
            return cross_entropy(model.encode(batch), target_Q - 1, model.item_vectors())
        is_shared = negatives.dim() == 1
        own_QC = target_Q[:, None] if is_shared else torch.cat((target_Q[:, None], negatives), 1)
        logits_QC = model.logits(batch, own_QC, negatives if is_shared else None)
        pos_Q, neg_QK = logits_QC[:, 0], self._corrected(logits_QC[:, 1:], negatives)
        if is_shared:
            # A shared negative may be a target; its neighbour, which is never the same item, takes its place.
            neg_QK = torch.where(negatives == target_Q[:, None], neg_QK.roll(1, 1), neg_QK)
        if self.config.hard_pool:
            neg_QK = neg_QK.topk(self.config.num_negatives, dim=1).values
        return self.loss(pos_Q, neg_QK)

    def _corrected(self, neg_QK: Tensor, negatives: Tensor) -> Tensor:
        """Subtract the log rate of each negative, so that exp of it is an unbiased share of the full softmax's sum.

        The target is among the candidates with certainty, so its logit stays (Yi et al. 2019 subtract both; with the
        target always included, its rate is one).
        """
        if self.log_rate is None:
            return neg_QK
        self.log_rate = self.log_rate.to(neg_QK.device)
        return neg_QK - self.log_rate[negatives]


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
