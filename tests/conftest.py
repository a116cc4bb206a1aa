"""Settings and small worlds that many tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from ensue.data.split import Split, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.datasets.simulate import ordered_sequences
from ensue.models.sasrec import SASRecConfig
from ensue.objectives.objective import ObjectiveConfig
from ensue.runs.config import RunConfig, TrainConfig

torch.set_num_threads(1)
# Examples are the same in every run, and a slow machine fails nothing.
settings.register_profile("ensue", deadline=None, derandomize=True)
settings.load_profile("ensue")

MakeStore = Callable[..., SequenceStore]


@pytest.fixture
def make_store() -> MakeStore:
    """Histories (lists of item numbers, oldest first) -> a store in memory."""

    def make(histories: Sequence[Sequence[int]], num_items: int | None = None) -> SequenceStore:
        items = np.concatenate([np.asarray(history, dtype=np.int32) for history in histories])
        offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
        item_ids = None if num_items is None else Vocabulary.of_range(num_items)
        return SequenceStore.from_arrays(offsets=offsets, items=items, item_ids=item_ids)

    return make


@pytest.fixture(scope="session")
def split() -> Split:
    return make_split(ordered_sequences(num_users=24, num_items=15, length=8), SplitConfig())


@pytest.fixture
def tiny() -> Callable[..., RunConfig]:
    """Settings of a run with everything on; keyword arguments change training settings."""

    def make(objective: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **train: Any) -> RunConfig:
        settings: dict[str, Any] = {
            "num_epochs": 3,
            "batch_size": 8,
            "lr": 0.01,
            "checkpoint_minutes": 0,
            "patience_steps": 0,
            "device": "cpu",
            **train,
        }
        return RunConfig(
            model=SASRecConfig(maxlen=6, hidden_units=8, num_blocks=1, dropout_rate=0.3).replace(**(model or {})),
            objective=ObjectiveConfig(**(objective or {})),
            train=TrainConfig(**settings),
        )

    return make
