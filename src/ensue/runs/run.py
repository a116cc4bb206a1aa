"""A trained model with everything that is needed to serve it.

Suffix: `N` items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ensue.data.features import Feature
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.errors import DataError
from ensue.models import CountedModel, Model, ModelConfig
from ensue.runs.config import RunConfig


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model with its settings, vocabulary and item table.

    Attributes:
        config: the run's settings.
        model: the scorer, in evaluation mode.
        item_ids: external ids of the items 1..N.
        items: table of N rows: id, title, category and other known columns, and `events`, the item's training events.
        fingerprint: of the data the model was trained on.
        store: the folder of that data, as the user gave it; None if the data was in memory.
        num_users: the number of users in that data.
        features: the columns of events, items and users that the model reads.
        vector_widths: name -> width of the vectors that the data has of its items.
        made: how that data was prepared from a log (its source, columns and settings); newer logs are read alike.
    """

    config: RunConfig
    model: Model
    item_ids: Vocabulary
    items: pl.DataFrame
    fingerprint: str
    store: Path | None
    num_users: int = 0
    features: tuple[Feature, ...] = ()
    vector_widths: Mapping[str, int] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def request_model(self) -> ModelConfig:
        """The settings of the model, which say what it reads of a request."""
        return self.config.model

    @cached_property
    def titles(self) -> list[str | None] | None:
        """Titles by item number (None at 0 and for unknown titles); None if no item has a title."""
        return [None, *self.items["title"].to_list()] if "title" in self.items.columns else None

    @cached_property
    def popularity_N(self) -> Tensor:
        """The scores for users without history: training events of each item, or a counted model's own; float32 [N]."""
        own_N = self.model.for_newcomers() if isinstance(self.model, CountedModel) else None
        if own_N is not None:
            return own_N
        return torch.from_numpy(self.items["events"].to_numpy().astype(np.float32))

    def check_data(self, store: SequenceStore) -> None:
        """Refuse data that this run was not trained on.

        Raises:
            DataError: the fingerprints differ.
        """
        if store.fingerprint != self.fingerprint:
            raise DataError(
                f"this run was trained on data {self.fingerprint[:12]}..., but this store is "
                f"{store.fingerprint[:12]}...: item numbers would differ; use the data that the run was trained on"
            )


def item_table(store: SequenceStore, events_N: np.ndarray) -> pl.DataFrame:
    """The store's item table with a column `events`, the training events of each item [N]."""
    return store.item_table.with_columns(pl.Series("events", events_N.astype(np.int64)))
