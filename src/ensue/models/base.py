"""What a model is to the rest of the house, and the table of models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pydantic import Field
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.config import Config
from ensue.data.split import Sequences
from ensue.errors import ConfigError
from ensue.models.size import TRAINING, ModelSize, check_memory, measure
from ensue.registry import Registry


class ModelConfig(Config):
    """What every model has: its name and the longest history it reads."""

    name: str
    maxlen: int = Field(200, ge=1, description="newest events of a history that the model reads")


@runtime_checkable
class Scorer(Protocol):
    """All that evaluation and serving need."""

    num_items: int
    maxlen: int

    def score(self, batch: SequenceBatch, items_BC: Tensor | None = None) -> Tensor:
        """Scores of the next item after each row's newest event, higher is better.

        Args:
            batch: the histories.
            items_BC: candidates (item numbers), [B, C]; all items by default.

        Returns:
            [B, C], or [B, N] whose column j is item j + 1: a tensor of the caller's own, who may write to it.
        """
        ...


@runtime_checkable
class Encoder(Scorer, Protocol):
    """A scorer by vectors, score = query . item vector; hence full-catalogue losses and vector search."""

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at all events, [P, D]; the state at an event predicts the next one."""
        ...

    def query(self, batch: SequenceBatch) -> Tensor:
        """States at each row's newest event, [B, D]."""
        ...

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Vectors of the given item numbers, [..., D], or of the whole catalogue, [N, D]."""
        ...


class CountedModel(nn.Module):
    """A scorer that is fitted by counting, in one pass and without gradients; it scores the whole catalogue."""

    def __init__(self, num_items: int, maxlen: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.maxlen = maxlen

    def fit(self, train: Sequences) -> None:
        """Count the training sequences."""
        raise TypeError(f"{type(self).__name__} must define fit")

    def score_all(self, batch: SequenceBatch) -> Tensor:
        """Scores of all items, [B, N]."""
        raise TypeError(f"{type(self).__name__} must define score_all")

    def score(self, batch: SequenceBatch, items_BC: Tensor | None = None) -> Tensor:
        """Scores of the candidates, [B, C], or of all items, [B, N]."""
        scores_BN = self.score_all(batch)
        return scores_BN if items_BC is None else scores_BN.gather(1, items_BC - 1)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A configuration class and the function that builds the model for a catalogue."""

    config: type[ModelConfig]
    build: Callable[[Any, int], nn.Module]


# One line for each model of the package; a model of a user's own registers when its module is imported.
MODELS: Registry[ModelEntry] = Registry(
    "model",
    {
        "sasrec": "ensue.models.sasrec",
        "tisasrec": "ensue.models.tisasrec",
        "markov": "ensue.models.markov",
        "popularity": "ensue.models.popularity",
        "sasrec-padded": "ensue.classic.models",
        "tisasrec-padded": "ensue.classic.models",
    },
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


def build_model(config: ModelConfig, num_items: int, copies: int = TRAINING) -> nn.Module:
    """A new model for a catalogue of `num_items`; its weights are not initialised yet.

    Args:
        config: its settings.
        num_items: items of the catalogue.
        copies: how many times its size there must be memory for.

    Raises:
        ConfigError: there is not.
    """
    check_fits(config, num_items, copies)
    return MODELS[config.name].build(config, num_items)


def check_fits(config: ModelConfig, num_items: int, copies: int = TRAINING) -> None:
    """Make sure that there is memory for a model.

    Raises:
        ConfigError: there is not; the size, the limit and the setting to lower are named.
    """
    check_memory(MODELS[config.name].build, config, num_items, copies)


def is_counted(config: ModelConfig) -> bool:
    """Whether the model is fitted by counting, in one pass, and not trained."""
    build = MODELS[config.name].build
    return isinstance(build, type) and issubclass(build, CountedModel)


def model_size(config: ModelConfig, num_items: int) -> ModelSize:
    """The size of what `build_model` would build, however large."""
    return measure(MODELS[config.name].build, config, num_items)
