"""The common settings of all models, and the table of models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ensue.batches.tasks import TASKS, Task
from ensue.config import Config
from ensue.data.features import parse_features
from ensue.data.split import Sequences
from ensue.errors import ConfigError, DataError
from ensue.models.catalogue import Catalogue
from ensue.models.size import TRAINING, ModelSize, check_memory, measure
from ensue.nn.content import ItemContent, ItemVectorConfig
from ensue.nn.embedding import ItemEmbedding
from ensue.nn.features import FEATURE_MODES, FeatureInput
from ensue.nn.model import CountedModel, EventEncoder, Model
from ensue.registry import OWN, Registry


class ModelConfig(Config):
    """The common settings of all models: the name and the length of the longest history."""

    name: str
    maxlen: int = Field(200, ge=1, description="newest events of a history that the model reads")

    @property
    def reads_query_time(self) -> bool:
        """Whether the model reads the time of the request; if so, its figures have a separate protocol name."""
        return False

    @property
    def reads_times(self) -> bool:
        """Whether the model needs the times of a history's events."""
        return False

    def make_task(self) -> Task:
        """The training task."""
        return TASKS["next"]

    def fine_tuning(self) -> Task:
        """The task of a second stage, which asks for the newest item of each window alone."""
        return TASKS["last"]


class FeatureConfig(ItemVectorConfig, ModelConfig):
    """Settings of a model that reads features: columns of events, items and users beside the items."""

    features: tuple[str, ...] = Field(
        (), description="columns of events, items and users to read too, such as category, or price:buckets=10"
    )
    feature_mode: Annotated[str, FEATURE_MODES] = Field(
        "sum", description="how the vectors of features join those of items: sum, concat (projected) or gate"
    )

    @field_validator("features")
    @classmethod
    def _check_features(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        parse_features(texts)
        return texts


class CausalConfig(FeatureConfig):
    """Settings of a model whose state at an event depends only on that event and earlier ones."""

    task: Annotated[str, TASKS] = Field(
        "next", description="events to predict after: all (next), a window's newest (last), each prefix's (prefixes)"
    )

    def make_task(self) -> Task:
        """The task named by `task`."""
        return TASKS[self.task]


class NewestConfig(FeatureConfig):
    """Settings of a model that has a state only at the newest event of a history."""

    task: Literal["prefixes", "last"] = Field(
        "prefixes", description="events to predict after: each prefix's newest (prefixes) or a window's newest (last)"
    )

    def make_task(self) -> Task:
        """The task named by `task`."""
        return TASKS[self.task]


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A configuration class, and a class or function of (config, catalogue) that builds the model."""

    config: type[ModelConfig]
    build: Callable[[Any, Catalogue], Model]


# One line for each model of the package. A user's own model is registered when its module is imported.
MODELS: Registry[ModelEntry] = Registry(
    "model",
    {
        "sasrec": "ensue.models.sasrec",
        "tisasrec": "ensue.models.tisasrec",
        "bert4rec": "ensue.models.bert4rec",
        "gru4rec": "ensue.models.gru4rec",
        "hgru4rec": "ensue.models.hgru4rec",
        "bsarec": "ensue.models.bsarec",
        "fmlprec": "ensue.models.fmlprec",
        "retention": "ensue.models.retention",
        "hstu": "ensue.models.hstu",
        "caser": "ensue.models.caser",
        "gcegnn": "ensue.models.gcegnn",
        "srgnn": "ensue.models.srgnn",
        "tiger": "ensue.models.tiger",
        "fpmc": "ensue.models.fpmc",
        "vsknn": "ensue.models.vsknn",
        "bst": "ensue.models.bst",
        "markov": "ensue.models.markov",
        "popularity": "ensue.models.popularity",
        "recent-popularity": "ensue.models.recent_popularity",
        "sasrec-padded": "ensue.classic.models",
        "tisasrec-padded": "ensue.classic.models",
    },
    hint=OWN,
)


def model_config(values: dict[str, Any] | ModelConfig) -> ModelConfig:
    """The checked configuration of the model named by `values["name"]`.

    Raises:
        ConfigError: the name is missing or unknown, a setting is unknown, or a value is out of range.
    """
    if isinstance(values, ModelConfig):
        return values
    if "name" not in values:
        raise ConfigError(f"section [model] needs a name, one of: {', '.join(sorted(MODELS))}")
    return MODELS[values["name"]].config.parse(values, "[model]")


def build_model(config: ModelConfig, catalogue: Catalogue, copies: int = TRAINING) -> Model:
    """A new model for a catalogue; its weights are not initialised yet.

    Args:
        config: the model's settings.
        catalogue: the items.
        copies: the required memory, as a multiple of the model's size.

    Raises:
        ConfigError: there is not enough memory.
        DataError: the model reads features that the catalogue does not have.
    """
    check_fits(config, catalogue, copies)
    named = [*parse_features(features_of(config))]
    if named != [feature.name for feature in catalogue.features]:
        known = [feature.name for feature in catalogue.features]
        raise DataError(
            f"the model reads the features {named} but the data was split with {known}: split_with_features"
        )
    return _built(config, catalogue)


def features_of(config: ModelConfig) -> tuple[str, ...]:
    """The setting `features`; empty for a model that reads none."""
    return config.features if isinstance(config, FeatureConfig) else ()


def _built(config: ModelConfig, catalogue: Catalogue) -> Model:
    """The model; the features of an encoder join its events, those of a ranker are its own."""
    model = MODELS[config.name].build(config, catalogue)
    if catalogue.features and isinstance(config, FeatureConfig) and isinstance(model, EventEncoder):
        width = model.input_table.embedding_dim
        model.features = FeatureInput(catalogue.coded_features(), width, config.feature_mode)
    if isinstance(config, ItemVectorConfig) and config.item_vectors != "none":
        add_item_vectors(model, config, catalogue)
    return model


def add_item_vectors(model: Model, config: ItemVectorConfig, catalogue: Catalogue) -> None:
    """Join the content of the items to every table of item vectors of a model.

    Raises:
        DataError: the items have no vectors, or none of a given name.
        ConfigError: the model has no tables of item vectors.
    """
    names = config.vector_names or tuple(sorted(catalogue.vector_arrays))
    if not names:
        raise DataError(
            f"item_vectors {config.item_vectors}: the data has no vectors of its items: store them with ensue prepare "
            "--items FILE and --item-vectors COLUMN or --item-text title, or train with item_vectors = none"
        )
    vectors = [catalogue.vectors(name) for name in names]
    tables = [part for part in model.modules() if type(part) is ItemEmbedding]
    if not tables:
        raise ConfigError(f"item_vectors {config.item_vectors}: this model has no vectors of items: use none")
    for table in tables:
        table.content = ItemContent(config, vectors, table)


def fit_counted(config: ModelConfig, catalogue: Catalogue, train: Sequences) -> Model:
    """A new counted model, fitted to the training sequences.

    Raises:
        ConfigError: the model is trained instead, or there is not enough memory.
    """
    model = build_model(config, catalogue)
    if not isinstance(model, CountedModel):
        raise ConfigError(f"model {config.name!r} is trained, not counted")
    model.fit(train)
    return model


def check_fits(config: ModelConfig, catalogue: Catalogue, copies: int = TRAINING) -> None:
    """Check that there is enough memory for a model.

    Raises:
        ConfigError: there is not; the message names the size, the limit and the setting to lower.
    """
    check_memory(_built, config, catalogue, copies)


def is_counted(config: ModelConfig) -> bool:
    """Whether the model is fitted by counting, in one pass, instead of being trained."""
    build = MODELS[config.name].build
    return isinstance(build, type) and issubclass(build, CountedModel)


def model_size(config: ModelConfig, catalogue: Catalogue) -> ModelSize:
    """The size of the model that `build_model` would build, for any size."""
    return measure(_built, config, catalogue)
