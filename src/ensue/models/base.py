"""The settings that every model has, and the table of models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from ensue.batches.tasks import TASKS, Task
from ensue.config import Config
from ensue.data.split import Sequences
from ensue.errors import ConfigError
from ensue.models.catalogue import Catalogue
from ensue.models.size import TRAINING, ModelSize, check_memory, measure
from ensue.nn.model import CountedModel, Model
from ensue.registry import OWN, Registry


class ModelConfig(Config):
    """What every model has: its name and the longest history it reads."""

    name: str
    maxlen: int = Field(200, ge=1, description="newest events of a history that the model reads")

    @property
    def reads_query_time(self) -> bool:
        """Whether the model reads the time of the request; its figures then have a protocol name of their own."""
        return False

    @property
    def reads_times(self) -> bool:
        """Whether the model needs the times of a history's events."""
        return False

    def make_task(self) -> Task:
        """What training asks."""
        return TASKS["next"]


class CausalConfig(ModelConfig):
    """Settings of a model whose state at an event depends on that event and earlier ones alone."""

    task: Literal["next", "last", "prefixes"] = Field(
        "next", description="asked in training: every event, the newest of a window, or the newest of every prefix"
    )

    def make_task(self) -> Task:
        """The task that `task` names."""
        return TASKS[self.task]


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A configuration class and what builds the model: a class, or a function, of (config, catalogue)."""

    config: type[ModelConfig]
    build: Callable[[Any, Catalogue], Model]


# One line for each model of the package; a model of a user's own registers when its module is imported.
MODELS: Registry[ModelEntry] = Registry(
    "model",
    {
        "sasrec": "ensue.models.sasrec",
        "tisasrec": "ensue.models.tisasrec",
        "bert4rec": "ensue.models.bert4rec",
        "gru4rec": "ensue.models.gru4rec",
        "bsarec": "ensue.models.bsarec",
        "fmlprec": "ensue.models.fmlprec",
        "hstu": "ensue.models.hstu",
        "caser": "ensue.models.caser",
        "vsknn": "ensue.models.vsknn",
        "markov": "ensue.models.markov",
        "popularity": "ensue.models.popularity",
        "recent-popularity": "ensue.models.recent_popularity",
        "sasrec-padded": "ensue.classic.models",
        "tisasrec-padded": "ensue.classic.models",
    },
    hint=OWN,
)


def model_config(values: dict[str, Any] | ModelConfig) -> ModelConfig:
    """The configuration of the model that `values["name"]` names, checked.

    Raises:
        ConfigError: no or an unknown name, an unknown setting, a value out of range.
    """
    if isinstance(values, ModelConfig):
        return values
    if "name" not in values:
        raise ConfigError(f"section [model] needs a name, one of: {', '.join(sorted(MODELS))}")
    return MODELS[values["name"]].config.parse(values, "[model]")


def build_model(config: ModelConfig, catalogue: Catalogue, copies: int = TRAINING) -> Model:
    """A new model for a catalogue; its weights are not initialised yet.

    Args:
        config: its settings.
        catalogue: the items.
        copies: how many times the model's size must fit into memory.

    Raises:
        ConfigError: it does not.
    """
    check_fits(config, catalogue, copies)
    return MODELS[config.name].build(config, catalogue)


def fit_counted(config: ModelConfig, catalogue: Catalogue, train: Sequences) -> Model:
    """A new model that is fitted by counting, fitted.

    Raises:
        ConfigError: the model is trained, or there is no memory for it.
    """
    model = build_model(config, catalogue)
    if not isinstance(model, CountedModel):
        raise ConfigError(f"model {config.name!r} is trained, not counted")
    model.fit(train)
    return model


def check_fits(config: ModelConfig, catalogue: Catalogue, copies: int = TRAINING) -> None:
    """Make sure that there is memory for a model.

    Raises:
        ConfigError: there is not; the size, the limit and the setting to lower are named.
    """
    check_memory(MODELS[config.name].build, config, catalogue, copies)


def is_counted(config: ModelConfig) -> bool:
    """Whether the model is fitted by counting, in one pass, and not trained."""
    build = MODELS[config.name].build
    return isinstance(build, type) and issubclass(build, CountedModel)


def model_size(config: ModelConfig, catalogue: Catalogue) -> ModelSize:
    """The size of what `build_model` would build, however large."""
    return measure(MODELS[config.name].build, config, catalogue)
