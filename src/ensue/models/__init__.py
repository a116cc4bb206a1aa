"""One file per model. Importing this package registers them all."""

from ensue.models import sasrec
from ensue.models.base import MODELS, Encoder, ModelConfig, Scorer, build_model, model_config

__all__ = ["MODELS", "Encoder", "ModelConfig", "Scorer", "build_model", "model_config", "sasrec"]
