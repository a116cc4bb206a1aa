"""The settings of a run from the classic flags: the rule for the two generations and the defaults of each model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ensue.classic.arguments import Arguments
from ensue.errors import ConfigError
from ensue.models import ModelConfig
from ensue.runs.config import RunConfig

# Defaults of SASRec.pytorch and of TiSASRec.pytorch where they differ: (maxlen, num_epochs).
DEFAULTS = {"sasrec": (200, 1000), "tisasrec": (50, 201)}
REPORTED = ("ndcg@10", "hr@10")
# An evaluation of validation and test takes half as long as an epoch. For 1000 epochs this is every 20th, as in
# SASRec.pytorch.
EVALUATIONS = 50


@dataclass(frozen=True)
class Resolved:
    """The model that follows from the flags and the data.

    Attributes:
        time: whether it is TiSASRec instead of SASRec.
        mhc: whether it has mHC residuals instead of plain ones.
        newer: whether the defaults are those of the newer generation.
        reason: why that generation applies.
    """

    time: bool
    mhc: bool
    newer: bool
    reason: str

    @property
    def model(self) -> str:
        """The model's name."""
        return "tisasrec" if self.time else "sasrec"


def resolve(arguments: Arguments, timestamps: bool) -> Resolved:
    """Apply the rule for the two generations (`arguments.RULE`).

    Args:
        arguments: the flags.
        timestamps: whether the data has timestamps.

    Raises:
        ConfigError: flags contradict each other, or need timestamps.
    """
    check(arguments)
    time_given = [f"--{name}" for name in ("time_span", "time_unit") if vars(arguments)[name] is not None]
    for name in ["--use_time"] if arguments.use_time else time_given:
        if not timestamps:
            raise ConfigError(f"{name} needs timestamps, but the data has none")
    if timestamps:
        reason = "the data has timestamps"
    elif arguments.no_time or arguments.no_mhc:
        reason = "--no_time is given" if arguments.no_time else "--no_mhc is given"
    else:
        mhc = arguments.use_mhc or bool(_mhc_given(arguments))
        return Resolved(False, mhc, False, "the data has no timestamps and no --no_* flag is given")
    return Resolved(timestamps and not arguments.no_time, not arguments.no_mhc, True, reason)


def check(arguments: Arguments) -> None:
    """Refuse flags that contradict each other, and a training of 0 epochs.

    Raises:
        ConfigError: there are such flags; the message names them.
    """
    if not arguments.inference_only and arguments.num_epochs is not None and arguments.num_epochs < 1:
        raise ConfigError(f"--num_epochs must be 1 or more (got {arguments.num_epochs})")
    time_given = [name for name in ("time_span", "time_unit") if vars(arguments)[name] is not None]
    pairs = [
        (arguments.no_time, "no_time", ["use_time"] if arguments.use_time else time_given),
        (arguments.no_mhc, "no_mhc", ["use_mhc"] if arguments.use_mhc else _mhc_given(arguments)),
    ]
    for given, name, others in pairs:
        if given and others:
            raise ConfigError(f"--{name} and --{others[0]} contradict each other")


def _mhc_given(arguments: Arguments) -> list[str]:
    return [name for name in ("mhc_expansion_rate", "mhc_sinkhorn_iter") if vars(arguments)[name] is not None]


def classic_config(arguments: Arguments, resolved: Resolved, device: str, amp: str) -> RunConfig:
    """The settings of a training run.

    Without `norm_first`, SASRec normalises after each sublayer, as its program does; TiSASRec normalises as its authors
    do; and models with mHC normalise before each sublayer, as the mHC paper defines.

    Args:
        arguments: the flags.
        resolved: the model that they choose.
        device: the device to compute on.
        amp: off, bf16 or fp16.

    Raises:
        ConfigError: a value is out of range.
    """
    maxlen, _ = DEFAULTS[resolved.model]
    after = "original" if resolved.time else "post"
    norm_first = resolved.mhc if arguments.norm_first is None else arguments.norm_first
    model: dict[str, Any] = {
        "name": resolved.model,
        "maxlen": _or(arguments.maxlen, maxlen),
        "hidden_units": _or(arguments.hidden_units, 50),
        "num_blocks": _or(arguments.num_blocks, 2),
        "num_heads": _or(arguments.num_heads, 1),
        "dropout_rate": arguments.dropout_rate,
        "norm": "pre" if norm_first else after,
        "residual": "mhc" if resolved.mhc else "plain",
    }
    names = [*(("mhc_expansion_rate", "mhc_sinkhorn_iter") if resolved.mhc else ())]
    names += ["time_span", "time_unit"] if resolved.time else []
    model |= {name: value for name in names if (value := vars(arguments)[name]) is not None}
    return whole_config(arguments, model, device, amp)


def whole_config(arguments: Arguments, model: dict[str, Any], device: str, amp: str = "off") -> RunConfig:
    """The settings of a run of any model: BCE with one negative, uniform-100, about 50 evaluations, no early stopping.

    Args:
        arguments: the flags.
        model: the model's settings.
        device: the device to compute on.
        amp: off, bf16 or fp16.

    Raises:
        ConfigError: a value is out of range.
    """
    _, num_epochs = DEFAULTS["tisasrec" if str(model["name"]).startswith("tisasrec") else "sasrec"]
    num_epochs = _or(arguments.num_epochs, num_epochs)
    train = {
        "num_epochs": num_epochs,
        "batch_size": arguments.batch_size,
        "lr": arguments.lr,
        "l2_emb": arguments.l2_emb,
        "eval_epochs": max(1, num_epochs // EVALUATIONS),
        "validation_metric": "ndcg@10",
        "validation_protocol": "uniform-100",
        "patience": 0,
        "device": device,
        "amp": amp,
    }
    evaluate = {"protocol": "uniform-100", "metrics": REPORTED}
    return RunConfig.parse({"model": model, "train": train, "evaluate": evaluate})


def check_model(arguments: Arguments, model: ModelConfig) -> None:
    """Check that the flags agree with the model of `--state_dict_path`.

    Raises:
        ConfigError: the value of a flag differs from the model's.
    """
    config = model.model_dump()
    is_time, is_mhc = model.name.startswith("tisasrec"), config.get("residual") == "mhc"
    wrong = [
        ("use_time", arguments.use_time and not is_time),
        ("no_time", arguments.no_time and is_time),
        *((name, not is_mhc) for name in (["use_mhc"] if arguments.use_mhc else _mhc_given(arguments))),
        ("no_mhc", arguments.no_mhc and is_mhc),
        ("norm_first", arguments.norm_first is not None and arguments.norm_first != (config.get("norm") == "pre")),
    ]
    names = ["maxlen", "hidden_units", "num_blocks", "num_heads", "time_span", "time_unit"]
    names += ["mhc_expansion_rate", "mhc_sinkhorn_iter"]
    wrong += [(name, (value := vars(arguments)[name]) is not None and value != config.get(name)) for name in names]
    for name, differs in wrong:
        if differs:
            raise ConfigError(
                f"--{name}={vars(arguments)[name]} contradicts --state_dict_path, which is {describe(model)}"
            )


def describe(model: ModelConfig) -> str:
    """Describe a model in one line."""
    config = model.model_dump()
    residual = config.get("residual", "none")
    if residual == "mhc":
        residual = f"mhc ({config['mhc_expansion_rate']} streams, {config['mhc_sinkhorn_iter']} Sinkhorn iterations)"
    name = {"sasrec": "SASRec", "tisasrec": "TiSASRec"}.get(model.name.removesuffix("-padded"), model.name)
    parts = [f"time {'on' if name == 'TiSASRec' else 'off'}", f"residual {residual}"]
    shown = ("norm", "maxlen", "hidden_units", "num_blocks", "num_heads", "dropout_rate", "time_span", "time_unit")
    parts += [f"{key} {config[key]}" for key in shown if key in config]
    parts += [f"activation {config['activation']}"] if config.get("activation", "relu") != "relu" else []
    return f"{name}: {', '.join(parts)}"


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
