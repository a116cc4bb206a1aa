"""A tiny run that trains in a tenth of a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ensue.data.simulate import ordered_sequences
from ensue.data.split import Split, SplitConfig, make_split
from ensue.models.sasrec import SASRecConfig
from ensue.train.config import RunConfig, TrainConfig
from ensue.train.objective import ObjectiveConfig


@pytest.fixture(scope="session")
def split() -> Split:
    return make_split(ordered_sequences(num_users=24, num_items=15, length=8), SplitConfig())


@pytest.fixture
def tiny() -> Callable[..., RunConfig]:
    """Settings of a run with everything on; keyword arguments change training settings."""

    def make(objective: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **train: Any) -> RunConfig:
        settings = {"num_epochs": 3, "batch_size": 8, "lr": 0.01, "checkpoint_minutes": 0, "device": "cpu", **train}
        return RunConfig(
            model=SASRecConfig(maxlen=6, hidden_units=8, num_blocks=1, dropout_rate=0.3).replace(**(model or {})),
            objective=ObjectiveConfig(**(objective or {})),
            train=TrainConfig(**settings),
        )

    return make
