"""A trained model with everything that serving it needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.errors import DataError
from ensue.models import CountedModel, Model
from ensue.runs.config import RunConfig


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model with what belongs to it.

    Attributes:
        config: the run's settings.
        model: the scorer, in evaluation mode.
        item_ids: external ids of the items 1..N.
        items: N rows: id, title, category and more where known, and `events`, the item's training events.
        fingerprint: of the data it was trained on.
        store: the folder of that data, as it was given; None if it was in memory.
    """

    config: RunConfig
    model: Model
    item_ids: Vocabulary
    items: pl.DataFrame
    fingerprint: str
    store: Path | None

    @cached_property
    def titles(self) -> list[str | None] | None:
        """`titles[number]` is the item's title (None at 0 and where unknown); None without titles."""
        return [None, *self.items["title"].to_list()] if "title" in self.items.columns else None

    @cached_property
    def popularity_N(self) -> Tensor:
        """What newcomers are served by: training events of every item, float32 [N]; or a counted model's own scores."""
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
                f"this run was trained on data {self.fingerprint[:12]}..., and this store is {store.fingerprint[:12]}: "
                "item numbers would not agree"
            )


def item_table(store: SequenceStore, events_N: np.ndarray) -> pl.DataFrame:
    """The store's item table with the column `events`, training events of each item [N]."""
    return store.item_table.with_columns(pl.Series("events", events_N.astype(np.int64)))
