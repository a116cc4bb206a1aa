"""One file per model. Importing this package registers them all."""

from ensue.models import markov, padded, popularity, sasrec, tisasrec
from ensue.models.base import (
    MODELS,
    CountedModel,
    Encoder,
    ModelConfig,
    Scorer,
    build_model,
    check_fits,
    is_counted,
    model_config,
)

__all__ = [
    "MODELS",
    "CountedModel",
    "Encoder",
    "ModelConfig",
    "Scorer",
    "build_model",
    "check_fits",
    "is_counted",
    "markov",
    "model_config",
    "padded",
    "popularity",
    "sasrec",
    "tisasrec",
]
