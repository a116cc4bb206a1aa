"""The settings of a run: model, objective, training, split, evaluation; one TOML file, one flag per field."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from ensue.batches.tasks import Task, WindowName
from ensue.config import Config
from ensue.data.split import SplitConfig
from ensue.evaluation.metrics import parse_metric
from ensue.evaluation.protocol import EvaluateConfig, ProtocolName
from ensue.models import ModelConfig, is_counted, model_config
from ensue.models.sasrec import SASRecConfig
from ensue.objectives.objective import ObjectiveConfig
from ensue.registry import OWN, Registry

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class Moment(NamedTuple):
    """A point of a training, as schedules read it.

    Attributes:
        step: the step, counted from 0 over the run.
        steps_per_epoch: steps of an epoch.
        reductions: how often validation stayed without a better value for `plateau_evaluations` evaluations.
    """

    step: int
    steps_per_epoch: int
    reductions: int


# Functions from (settings, parameters) to the optimiser, by name.
OPTIMIZERS: Registry[Callable[[TrainConfig, list[nn.Parameter]], Optimizer]] = Registry(
    "optimizer", dict.fromkeys(("adam", "adamw", "adagrad", "rmsprop", "sgd", "lion"), "ensue.train.optim"), OWN
)
# Functions from (settings, moment) to the factor of the learning rate after the warm-up, by name.
SCHEDULES: Registry[Callable[[TrainConfig, Moment], float]] = Registry(
    "schedule",
    dict.fromkeys(("constant", "cosine", "step", "exponential", "plateau", "one-cycle"), "ensue.train.optim"),
    OWN,
)


class TrainConfig(Config):
    """The training loop's settings; the defaults are SASRec's."""

    num_epochs: int = Field(300, ge=0, description="maximum number of passes over the training windows")
    batch_size: int = Field(128, ge=1, description="windows per step")
    batch_parts: int = Field(1, ge=1, description="gradient-accumulation chunks per batch (same gradient, less memory)")
    lr: float = Field(0.001, gt=0, description="learning rate")
    optimizer: Annotated[str, OPTIMIZERS] = Field("adam", description="adamw and lion decouple weight decay")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean gradient (adam, lion); momentum (sgd)")
    beta2: float = Field(
        0.98, ge=0, lt=1, description="decay of the mean squared gradient (adam, rmsprop); lion: of its memory"
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    l2_emb: float = Field(0.0, ge=0, description="L2 penalty: factor of the sum of squares of all item vectors")
    schedule: Annotated[str, SCHEDULES] = Field("constant", description="learning rate over the run")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")
    step_epochs: int = Field(50, ge=1, description="schedules step, exponential: epochs of a decay")
    step_gamma: float = Field(0.5, gt=0, le=1, description="schedules step, exponential, plateau: factor of a decay")
    plateau_evaluations: int = Field(
        3, ge=1, description="schedule plateau: evaluations without a better value before a decay"
    )
    average: Literal["none", "ema", "swa"] = Field(
        "none", description="average of the weights that is evaluated and kept: over steps, or over the last epochs"
    )
    average_decay: float = Field(0.999, ge=0, lt=1, description="ema: decay of a step")
    average_start: float = Field(0.75, ge=0, lt=1, description="swa: share of the epochs before the first one averaged")
    clip_norm: float = Field(0.0, ge=0, description="clip the gradient norm to this value; 0 is off")
    window: WindowName = Field(
        "last",
        description="last: a user's newest events; sliding: all events; prefixes: a window for each event",
    )
    stride: int = Field(0, ge=0, description="sliding window: step between windows; 0 is maxlen")
    eval_epochs: int = Field(1, ge=1, description="epochs between evaluations on validation")
    validation_metric: str = Field("ndcg@10", description="metric for early stopping and for choosing the best state")
    validation_protocol: ProtocolName = Field(
        "full", description="candidates on validation; the papers use uniform-100"
    )
    validation_users: int = Field(0, ge=0, description="number of validation cases to evaluate on; 0 is all")
    patience: int = Field(20, ge=0, description="evaluations without a better value before stopping; 0: never")
    patience_steps: int = Field(
        1000, ge=0, description="patience also needs this many optimiser steps without a better value"
    )
    max_minutes: float | None = Field(
        None, ge=0, description="training ends by then, if need be within an epoch; 0 is no limit"
    )
    checkpoint_minutes: float = Field(1.0, ge=0, description="minutes between checkpoints; 0 is every step")
    amp: Literal["off", "bf16", "fp16"] = Field("off", description="mixed precision; recent CPUs support bf16 too")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads for training and evaluation; 0 keeps torch's number"
    )
    seed: int = Field(0, ge=0, description="seed of all random draws")
    start_from: str | None = Field(
        None, description="a finished run of the same model whose weights training starts from"
    )
    stage: Literal["train", "fine-tune"] = Field(
        "train", description="fine-tune: only a window's newest item is predicted, as in serving; needs start_from"
    )

    @model_validator(mode="after")
    def _check_stage(self) -> Self:
        if self.stage == "fine-tune" and self.start_from is None:
            raise ValueError("stage fine-tune needs the run to start from: start_from (--start-from RUN)")
        return self

    @field_validator("validation_metric")
    @classmethod
    def _check_metric(cls, name: str) -> str:
        # The name stays as written, since the log of an earlier run uses it.
        parse_metric(name)
        if name.lower() == "rank":
            raise ValueError("must be a metric that is higher for a better model, such as mrr (got 'rank')")
        return name


def _resolve(values: Any) -> Any:
    return model_config(values) if isinstance(values, dict) else values


class RunConfig(Config):
    """All settings of a run. Together with the data they determine its result."""

    model: Annotated[SerializeAsAny[ModelConfig], BeforeValidator(_resolve)] = SASRecConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    split: SplitConfig = SplitConfig()
    evaluate: EvaluateConfig = Field(EvaluateConfig(), validate_default=True)

    @field_validator("evaluate")
    @classmethod
    def _as_the_model(cls, evaluate: EvaluateConfig, info: ValidationInfo) -> EvaluateConfig:
        """Take `query_time` from the model's settings, and keep seen items as candidates if few events are targets.

        A user has often seen what is bought next. A filter that spares the target alone would show it.
        """
        changes = {"query_time": "model" in info.data and info.data["model"].reads_query_time}
        if "split" in info.data and info.data["split"].target_event is not None:
            changes["filter_seen"] = False
        return evaluate.replace(**changes)

    @property
    def validation(self) -> EvaluateConfig:
        """The protocol and metric of validation."""
        train = self.train
        return self.evaluate.replace(
            protocol=train.validation_protocol, metrics=(train.validation_metric,), convention="ensue", list_metrics=()
        )

    @property
    def validation_label(self) -> str:
        """The validation metric's name with its protocol, as logs and cards show it."""
        return self.validation.label(self.train.validation_metric)

    def make_task(self) -> Task:
        """The training task of the stage."""
        return self.model.fine_tuning() if self.train.stage == "fine-tune" else self.model.make_task()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.train.start_from is not None and is_counted(self.model):
            raise ValueError(f"start_from: model {self.model.name} is fitted by counting and has no weights: omit it")
        if self.train.stride > self.model.maxlen:
            raise ValueError(f"stride {self.train.stride} must not exceed maxlen {self.model.maxlen}")
        return self


def differences(a: dict[str, Any], b: dict[str, Any], where: str = "") -> list[str]:
    """The settings in which two (nested) dictionaries differ, as `key: x now, y then`; of two models, the names."""
    keys = sorted(a.keys() | b.keys())
    if "name" in keys and a.get("name") != b.get("name"):
        keys = ["name"]
    changed = []
    for key in keys:
        x, y = a.get(key), b.get(key)
        if isinstance(x, dict) and isinstance(y, dict):
            changed += differences(x, y, f"{where}{key}.")
        elif x != y:
            changed.append(f"{where}{key}: {x!r} now, {y!r} then")
    return changed
