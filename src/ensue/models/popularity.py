"""Popularity: the same recommendations for all users, and the baseline that any model must beat.

Suffixes: `Q` asked events, `N` items.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.data.split import Sequences
from ensue.data.transitions import fit_popularity
from ensue.models.base import MODELS, ModelConfig, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.nn.model import CountedModel


class PopularityConfig(ModelConfig):
    """The counted events: all training events, or those of a recent window."""

    name: Literal["popularity"] = "popularity"
    last_fraction: float | None = Field(None, gt=0, le=1, description="count only this newest share of events")
    last_days: float | None = Field(None, gt=0, description="count only the last days before the newest event")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.last_fraction is not None and self.last_days is not None:
            raise ValueError("set either last_fraction or last_days, not both")
        return self


class Popularity(CountedModel):
    """score(i) = training events of item i, for any history."""

    counts_events = True

    def __init__(self, config: PopularityConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen)
        self.config = config
        self.register_buffer("counts_N", torch.zeros(catalogue.num_items, dtype=torch.float64))
        self.counts_N: Tensor

    def fit(self, train: Sequences) -> None:
        """Count the events of every item."""
        counts = fit_popularity(train, self.config.last_fraction, self.config.last_days)
        self.counts_N = torch.from_numpy(counts)

    def for_newcomers(self) -> Tensor:
        """The counts: [N]."""
        return self.counts_N.float()

    def logits_of_all(self, batch: SequenceBatch) -> Tensor:
        """The counts, for every asked event: [Q, N]."""
        return self.counts_N.float().repeat(len(batch.asked_Q), 1)


MODELS.register("popularity")(ModelEntry(PopularityConfig, Popularity))
