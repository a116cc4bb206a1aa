"""One file per model. Importing this package registers them all."""

from ensue.models import markov, popularity, sasrec, tisasrec
from ensue.models.base import MODELS, CountedModel, Encoder, ModelConfig, Scorer, build_model, model_config

__all__ = [
    "MODELS",
    "CountedModel",
    "Encoder",
    "ModelConfig",
    "Scorer",
    "build_model",
    "markov",
    "model_config",
    "popularity",
    "sasrec",
    "tisasrec",
]
