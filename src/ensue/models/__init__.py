"""One file per model."""

from ensue.models.base import (
    MODELS,
    ModelConfig,
    build_model,
    check_fits,
    features_of,
    fit_counted,
    is_counted,
    model_config,
)
from ensue.models.catalogue import Catalogue
from ensue.nn.model import CountedModel, Encoder, Model

__all__ = [
    "MODELS",
    "Catalogue",
    "CountedModel",
    "Encoder",
    "Model",
    "ModelConfig",
    "build_model",
    "check_fits",
    "features_of",
    "fit_counted",
    "is_counted",
    "model_config",
]
