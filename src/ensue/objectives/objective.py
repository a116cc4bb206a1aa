"""The objective of training: a loss over the targets and their negatives, or over the whole catalogue.

Suffixes: `B` rows, `P` events of all rows, `Q` asked events, `K` negatives, `C` candidates, `N` items.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Self

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from ensue.batches.augment import AUGMENTATIONS
from ensue.batches.batch import SequenceBatch
from ensue.config import Config
from ensue.data.split import Sequences
from ensue.errors import ConfigError
from ensue.nn.model import Encoder, Model
from ensue.objectives.auxiliary import AUXILIARIES
from ensue.objectives.losses import LOSSES, CatalogueLoss, LikelihoodLoss
from ensue.objectives.negatives import NEGATIVES, SeenItems, WholeBatchNegatives, log_inclusion

# Losses that can smooth labels.
SMOOTHED = ("ce", "sampled-softmax")


class ObjectiveConfig(Config):
    """The loss and its negatives."""

    loss: Annotated[str, LOSSES] = Field("bce", description="loss; ce is the full softmax and draws no negatives")
    negatives: Annotated[str, NEGATIVES] = Field("uniform", description="distribution of negatives")
    num_negatives: int = Field(
        1, ge=0, description="negatives per target, or per batch if shared; in-batch and shared: beside its targets"
    )
    share_negatives: bool = Field(False, description="one set of distinct negatives for a batch, from all items")
    hard_pool: int = Field(0, ge=0, description="draw this many and keep the num_negatives highest-scored; 0: off")
    popularity_alpha: float = Field(
        0.75, ge=0, description="popularity, mixed, and those beside in-batch targets: share ~ count^alpha"
    )
    uniform_share: float = Field(0.5, ge=0, le=1, description="mixed negatives: share of uniform draws")
    logq: bool = Field(True, description="sampled-softmax: subtract each negative's log sampling rate from its logit")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="ce, sampled-softmax: share of each label that is spread over all candidates"
    )
    gbce_t: float = Field(0.75, ge=0, le=1, description="gbce: calibration, 0 is bce and 1 matches the full softmax")
    bpr_max_regularisation: float = Field(1.0, ge=0, description="bpr-max: weight of the score regularisation")
    auxiliary: Annotated[str, AUXILIARIES] = Field(
        "none", description="a further term; contrastive: two changed views of a history have like states"
    )
    auxiliary_weight: float = Field(0.1, ge=0, description="weight of the auxiliary term")
    augmentations: tuple[str, ...] = Field(
        ("crop", "mask", "reorder"), description="contrastive: crop, mask, reorder, substitute, insert"
    )
    contrastive_temperature: float = Field(1.0, gt=0, description="contrastive: divides the inner products")

    @field_validator("augmentations")
    @classmethod
    def _check_augmentations(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("name at least one augmentation, such as crop")
        return tuple(AUGMENTATIONS.check(name) for name in names)

    @model_validator(mode="after")
    def _check_smoothing(self) -> Self:
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise ValueError(f"label_smoothing needs loss {' or '.join(SMOOTHED)} (got {self.loss!r})")
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.is_whole_batch:
            if self.hard_pool:
                raise ValueError(f"hard_pool must be 0 with shared in-batch negatives (got {self.hard_pool})")
        elif self.share_negatives and self.num_negatives < 2:
            raise ValueError(f"share_negatives needs num_negatives of at least 2 (got {self.num_negatives})")
        elif self.num_negatives < 1:
            raise ValueError("num_negatives must be at least 1, or 0 with shared in-batch negatives (got 0)")
        if self.hard_pool and self.hard_pool < self.num_negatives:
            raise ValueError(f"hard_pool {self.hard_pool} must be at least num_negatives {self.num_negatives}")
        return self

    @property
    def is_whole_batch(self) -> bool:
        """Whether the negatives are all targets of the batch."""
        return self.share_negatives and self.negatives == "in-batch"


class Objective:
    """Draws negatives and computes the loss at every asked event."""

    def __init__(self, config: ObjectiveConfig, train: Sequences) -> None:
        self.config = config
        self.num_items = train.store.num_items
        self.loss = LOSSES[config.loss](config, self.num_items)
        self.auxiliary = AUXILIARIES[config.auxiliary](config, train)
        if isinstance(self.loss, CatalogueLoss | LikelihoodLoss):
            self.draws = 0
            return
        self.draws = max(config.num_negatives, config.hard_pool)
        self.log_rate = None
        if config.share_negatives and max(1, self.draws) >= self.num_items:
            raise ConfigError(
                f"{max(1, self.draws)} distinct negatives need a larger catalogue than {self.num_items} items; "
                "use loss = ce"
            )
        counts_N = np.bincount(train.items_P, minlength=self.num_items + 1)[1:]
        seen = SeenItems(train)
        self.negatives = NEGATIVES[config.negatives](config, seen, counts_N)
        if config.is_whole_batch:
            self.whole_batch = WholeBatchNegatives(seen, counts_N, config.popularity_alpha, self.draws)
        elif self.loss.logq:
            self.log_rate = self._log_rate()

    def check(self, model: Model, shares: int = 1) -> None:
        """Check that the objective can train a model, with every batch split into `shares` shares.

        Raises:
            ConfigError: the model ranks candidates, but the loss is over the whole catalogue or a term compares states;
                or a term compares all rows of a batch, but a share has only some of them.
        """
        name = self.config.auxiliary
        if not isinstance(model, Encoder) and isinstance(self.loss, CatalogueLoss):
            instead = "likelihood" if model.log_probabilities else "sampled-softmax"
            raise ConfigError(
                f"loss {self.config.loss} needs item vectors, but this model ranks candidates: use {instead}"
            )
        if isinstance(self.loss, LikelihoodLoss) and not model.log_probabilities:
            raise ConfigError("loss likelihood needs a model whose scores are log-probabilities, such as tiger: use ce")
        if not isinstance(model, Encoder) and self.auxiliary is not None:
            raise ConfigError(f"auxiliary {name} compares states, but this model ranks candidates: use none")
        if shares > 1 and self.auxiliary is not None:
            raise ConfigError(
                f"auxiliary {name} compares all rows of a batch: use batch_parts = 1 and one process "
                f"(got {shares} shares of a batch)"
            )

    def _log_rate(self) -> Tensor:
        """The log of an item's expected number among the draws of an asked event, or of a batch: [N + 1]."""
        log_q = self.negatives.log_q()
        if self.config.share_negatives:
            return torch.from_numpy(log_inclusion(log_q, self.draws))
        return torch.from_numpy(log_q + np.float32(np.log(self.draws)))

    def draw(self, rows_B: np.ndarray, batch: SequenceBatch, rng: np.random.Generator) -> SequenceBatch:
        """The batch with its negatives and, for an auxiliary term, its views.

        Args:
            rows_B: the training row of each batch row.
            batch: a batch with targets, on the CPU.
            rng: the stream of this step.
        """
        batch = self._with_negatives(rows_B, batch, rng)
        return batch if self.auxiliary is None else replace(batch, views=self.auxiliary.views(rows_B, batch, rng))

    def _with_negatives(self, rows_B: np.ndarray, batch: SequenceBatch, rng: np.random.Generator) -> SequenceBatch:
        if isinstance(self.loss, CatalogueLoss | LikelihoodLoss):
            return batch
        assert batch.target_Q is not None
        if self.config.is_whole_batch:
            items_K = self.whole_batch.draw(batch.target_Q.numpy(), rng)
            log_rate_K = self.whole_batch.log_rate(items_K, len(batch.target_Q)) if self.loss.logq else None
            rates = None if log_rate_K is None else torch.from_numpy(log_rate_K)
            return replace(batch, negatives=torch.from_numpy(items_K), log_rate_K=rates)
        if self.config.share_negatives:
            return replace(batch, negatives=torch.from_numpy(self.negatives.draw_shared(self.draws, rng)))
        rows_Q = rows_B[batch.row_Q.numpy()]
        drawn = self.negatives.draw(rows_Q, batch.target_Q.numpy(), self.draws, rng)
        return replace(batch, negatives=torch.from_numpy(drawn))

    def __call__(self, model: Model, batch: SequenceBatch) -> Tensor:
        """The loss at every asked event, float32 [Q]; its mean has the auxiliary term's mean over rows in it.

        Args:
            model: scores the candidates; `check` accepted it.
            batch: from `draw`, on the model's device.
        """
        loss_Q = self._item_loss(model, batch)
        if self.auxiliary is None:
            return loss_Q
        assert isinstance(model, Encoder)
        assert batch.views is not None
        asked_B = torch.bincount(batch.row_Q, minlength=len(batch.lengths_B))
        share_B = len(batch.row_Q) / len(asked_B) / asked_B
        term_B = self.auxiliary(model, batch.views) * share_B
        return loss_Q + self.config.auxiliary_weight * term_B[batch.row_Q]

    def _item_loss(self, model: Model, batch: SequenceBatch) -> Tensor:
        target_Q, negatives = batch.target_Q, batch.negatives
        assert target_Q is not None
        if isinstance(self.loss, CatalogueLoss):
            assert isinstance(model, Encoder)
            return self.loss.function(model.encode(batch), target_Q - 1, model.item_vectors())
        if isinstance(self.loss, LikelihoodLoss):
            return self.loss.function(model.logits(batch, target_Q[:, None])[:, 0])
        assert negatives is not None
        is_shared = negatives.dim() == 1
        own_QC = target_Q[:, None] if is_shared else torch.cat((target_Q[:, None], negatives), 1)
        logits_QC = model.logits(batch, own_QC, negatives if is_shared else None)
        pos_Q, neg_QK = logits_QC[:, 0], self._corrected(logits_QC[:, 1:], negatives, batch.log_rate_K)
        if self.config.is_whole_batch:
            # The targets are among the negatives: the last one takes the place of each event's own.
            neg_QK = torch.where(negatives[:-1] == target_Q[:, None], neg_QK[:, -1:], neg_QK[:, :-1])
        elif is_shared:
            # A shared negative that is the target of an event is replaced by its neighbour, which is another item.
            neg_QK = torch.where(negatives == target_Q[:, None], neg_QK.roll(1, 1), neg_QK)
        if self.config.hard_pool:
            neg_QK = neg_QK.topk(self.config.num_negatives, dim=1).values
        return self.loss.function(pos_Q, neg_QK)

    def _corrected(self, neg_QK: Tensor, negatives: Tensor, log_rate_K: Tensor | None = None) -> Tensor:
        """Subtract each negative's log rate, so that the sum of exp(logits) estimates the full softmax's without bias.

        The target is always among the candidates, so its rate is one and its logit stays (Yi et al. 2019 subtract
        both).
        """
        if log_rate_K is not None:
            return neg_QK - log_rate_K
        if self.log_rate is None:
            return neg_QK
        self.log_rate = self.log_rate.to(neg_QK.device)
        return neg_QK - self.log_rate[negatives]
