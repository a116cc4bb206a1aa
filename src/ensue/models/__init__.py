"""One file per model."""

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
    "model_config",
]
