"""The kinds of search, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ensue.data.store import SequenceStore
from ensue.runs.config import RunConfig
from ensue.tuning.population import Population
from ensue.tuning.space import Space
from ensue.tuning.study import PrunerName, SamplerName
from ensue.tuning.trials import Fit, Tell
from ensue.tuning.tune import Tuner


def searched(
    sampler: SamplerName | Literal["population"], pruner: PrunerName, store: SequenceStore, config: RunConfig,
    space: Space, folder: Path, fit: Fit, tell: Tell,
) -> Tuner | Population:  # fmt: skip
    """A search of the named kind; see `Tuner` and `Population`."""
    if sampler == "population":
        return Population(store, config, space, folder, fit, tell)
    return Tuner(store, config, space, folder, fit, tell, sampler, pruner)
