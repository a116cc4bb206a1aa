"""The recipes, and the configuration that follows from a model's name, a recipe and single settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensue.errors import ConfigError, nearest
from ensue.models import MODELS, model_config
from ensue.registry import Registry
from ensue.runs.config import RunConfig

Values = dict[str, dict[str, Any]]
# Flat names of fields whose own name another section uses too: plain `seed` is the training's.
FLAT_NAMES = {("split", "seed"): "split_seed"}
# Fields that no setting gives: the model says whether the time of a request is read, and re-ranking its candidates.
FOLLOWED = {("evaluate", "query_time"), ("evaluate", "rerank")}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings by section, with their purpose and measured results.

    Attributes:
        name: name of the recipe.
        summary: what the recipe is, with its source.
        expected: measured score and time, with the data and machine.
        command: the command that measured them, except for the path of the data.
        make: returns the settings.
    """

    name: str
    summary: str
    expected: str
    command: str
    make: Callable[[], Values]


RECIPES: Registry[Recipe] = Registry("preset")


def recipe(name: str) -> Callable[[Callable[[], Values]], Callable[[], Values]]:
    """Register a recipe whose docstring ends with `Expect: ...` and `Command: ...`."""

    def put(make: Callable[[], Values]) -> Callable[[], Values]:
        text, _, command = (make.__doc__ or "").partition("Command:")
        summary, _, expected = text.partition("Expect:")
        summary, expected, command = (" ".join(part.split()) for part in (summary, expected, command))
        RECIPES.register(name)(Recipe(name, summary, expected, command, make))
        return make

    return put


def sections(model: str) -> dict[str, dict[str, str]]:
    """Section -> flat name -> field, for a run with this model; each flat name occurs in only one section."""
    fields = {"model": {name: name for name in MODELS[model].config.model_fields if name != "name"}}
    for section in ("objective", "train", "split", "evaluate"):
        annotation = RunConfig.model_fields[section].annotation
        assert annotation is not None
        names = [name for name in annotation.model_fields if (section, name) not in FOLLOWED]
        fields[section] = {FLAT_NAMES.get((section, name), name): name for name in names}
    return fields


def run_config(model: str | None, preset: str | None, settings: dict[str, Any], file: Path | None = None) -> RunConfig:
    """The configuration of a model or preset, with single settings changed.

    Args:
        model: a model's name; by default the preset's, or "sasrec".
        preset: a recipe's name, or None.
        settings: field -> value, by flat names; the split's seed is `split_seed`.
        file: a TOML file of settings to start from instead of a preset.

    Raises:
        ConfigError: an unknown model, preset or field, a value out of range, or both a preset and a file.
    """
    if preset is not None and file is not None:
        raise ConfigError(f"give either preset {preset!r} or the settings file {file}, not both")
    start = f"preset {preset!r}" if file is None else str(file)
    values: Values = {}
    if preset is not None:
        values = {key: dict(part) for key, part in RECIPES[preset].make().items()}
    elif file is not None:
        values = RunConfig.read_toml(file).model_dump(mode="json", exclude_none=True)
    chosen = values.setdefault("model", {})
    if model is not None and (preset or file) and chosen.get("name", "sasrec") != model:
        raise ConfigError(f"{start} is for model {chosen.get('name')!r}, not {model!r}")
    chosen["name"] = chosen.get("name", "sasrec") if model is None else model
    return completed(values, settings)


def completed(values: Values, settings: dict[str, Any]) -> RunConfig:
    """The configuration of settings by section, with single settings changed.

    Args:
        values: settings by section; the section `model` has a name. They are changed.
        settings: field -> value, by flat names.

    Raises:
        ConfigError: an unknown field, or a value out of range.
    """
    name = values["model"]["name"]
    known = {flat: (section, field) for section, fields in sections(name).items() for flat, field in fields.items()}
    for flat, value in settings.items():
        if flat not in known:
            others = [other for other in MODELS if flat in sections(other)["model"]]
            hint = f"it is a setting of {', '.join(others)}" if others else nearest(flat, known)
            raise ConfigError(f"unknown setting {flat!r} of model {name!r}: {hint}")
        section, field = known[flat]
        values.setdefault(section, {})[field] = value
    return RunConfig.parse({**values, "model": model_config(values["model"])})


@recipe("sasrec-paper")
def sasrec_paper() -> Values:
    """SASRec as published for MovieLens-1M (Kang & McAuley 2018): BCE, one negative, width 50, post-norm.

    Two settings differ from the paper: a cosine schedule, and sliding windows over all events instead of each user's
    newest 200 (`--window last --num-epochs 300`, the same number of steps: .821 and .595).

    Expect: ML-1M, uniform-100: HR@10 .824, NDCG@10 .602 (3 seeds); 210 epochs of 12 s on one core
    Command: ensue train data/ml-1m --preset sasrec-paper --out runs/sasrec-paper
    """
    return {
        "model": {"name": "sasrec", "norm": "post"},
        "objective": {"loss": "bce"},
        "train": {
            "num_epochs": 210,
            "window": "sliding",
            "schedule": "cosine",
            "eval_epochs": 5,
            "patience": 0,
            "validation_protocol": "uniform-100",
        },
        "evaluate": {"protocol": "uniform-100"},
    }


@recipe("sasrec-paper-sparse")
def sasrec_paper_sparse() -> Values:
    """SASRec as published for Amazon and Steam: BCE, width 50, maxlen 50, pre-norm.

    Three settings differ from the paper: a cosine schedule, eight negatives instead of one, and dropout 0.6 instead of
    0.5 (`--num-negatives 1 --dropout-rate 0.5 --num-epochs 300`: .737 and .536).

    Expect: Amazon Games, uniform-100: HR@10 .746, NDCG@10 .548 (3 seeds); 80 epochs of 4 s on one core
    Command: ensue train data/games --preset sasrec-paper-sparse --out runs/sasrec-paper-sparse
    """
    values = sasrec_paper()
    return {
        **values,
        "model": {"name": "sasrec", "maxlen": 50, "dropout_rate": 0.6, "norm": "pre"},
        "objective": {**values["objective"], "num_negatives": 8},
        "train": {**values["train"], "num_epochs": 80, "window": "last"},
    }


@recipe("sasrec-ce")
def sasrec_ce() -> Values:
    """SASRec with the full softmax over whole histories, for catalogues of up to a few hundred thousand items.

    Expect: ML-1M, full: HR@10 .321, NDCG@10 .188 (3 seeds); 30 epochs of 60 s on one core, 45 with bf16
    Command: ensue train data/ml-1m --preset sasrec-ce --out runs/sasrec-ce
    """
    return {
        "model": {"name": "sasrec", "hidden_units": 128, "num_heads": 2, "dropout_rate": 0.2, "norm": "post"},
        "objective": {"loss": "ce"},
        "train": {
            "num_epochs": 30,
            "eval_epochs": 3,
            "patience": 0,
            "window": "sliding",
            "lr": 0.0015,
            "schedule": "cosine",
            "warmup_steps": 200,
        },
    }


@recipe("sasrec-ce-small")
def sasrec_ce_small() -> Values:
    """SASRec with the full softmax over whole histories, for few users with long histories.

    Expect: ML-100K, full: HR@10 .211, NDCG@10 .113 (1 seed); 60 epochs of 2 s on one core with bf16
    Command: ensue train data/ml-100k --preset sasrec-ce-small --out runs/sasrec-ce-small
    """
    values = sasrec_ce()
    return {
        **values,
        "model": {**values["model"], "maxlen": 100, "hidden_units": 64, "num_heads": 1},
        # A tenth of the steps on ML-100K.
        "train": {**values["train"], "num_epochs": 60, "batch_size": 64, "warmup_steps": 144},
    }


@recipe("sasrec-ce-sparse")
def sasrec_ce_sparse() -> Values:
    """SASRec with the full softmax for sparse logs (Amazon, most shops): maxlen 50 and dropout 0.5.

    Expect: Amazon Beauty 5-core, full: NDCG@10 .055, Games .065 (3 seeds); 40 epochs of 13 and 30 s
    Command: ensue train data/beauty --preset sasrec-ce-sparse --out runs/sasrec-ce-sparse
    """
    return {
        "model": {"name": "sasrec", "maxlen": 50, "hidden_units": 64, "dropout_rate": 0.5},
        "objective": {"loss": "ce"},
        "train": {"num_epochs": 100, "eval_epochs": 2, "patience": 5},
    }


@recipe("sasrec-sampled")
def sasrec_sampled() -> Values:
    """SASRec with sampled softmax for sparse logs of large catalogues: 4,096 shared negatives, logQ-corrected.

    Expect: Amazon Games, full: NDCG@10 .062 in 37 epochs of 15 s on one core
    Command: ensue train data/games --preset sasrec-sampled --out runs/sasrec-sampled
    """
    return {
        "model": {"name": "sasrec", "maxlen": 50, "hidden_units": 64, "dropout_rate": 0.5},
        "objective": {"loss": "sampled-softmax", "num_negatives": 4096, "share_negatives": True},
        "train": {"num_epochs": 100, "eval_epochs": 2, "patience": 5},
    }


@recipe("sasrec-sessions")
def sasrec_sessions() -> Values:
    """SASRec with sampled softmax for many short sessions over a large catalogue, where items are often repeated.

    Expect: Diginetica, full: HR@10 .451, NDCG@10 .311 (1 seed); 10 epochs of 80 s on one core with bf16
    Command: ensue train data/diginetica --preset sasrec-sessions --out runs/sasrec-sessions
    """
    values = sasrec_sampled()
    return {
        **values,
        "model": {**values["model"], "hidden_units": 128, "dropout_rate": 0.3},
        "train": {
            "num_epochs": 10,
            "batch_size": 256,
            "patience": 3,
            "validation_users": 20_000,
            "lr": 0.002,
            "schedule": "cosine",
            "warmup_steps": 200,
        },
    }


@recipe("gsasrec")
def gsasrec() -> Values:
    """gSASRec (Petrov & Macdonald, RecSys 2023): generalised BCE, t = 0.75, 256 negatives for each position.

    The authors train for tens of thousands of steps at a constant rate of .001 with dropout 0.5; these settings are for
    1,600 steps.

    Expect: ML-1M, full: HR@10 .307, NDCG@10 .179 (1 seed); 34 epochs of 40 s on one core, bf16
    Command: ensue train data/ml-1m --preset gsasrec --out runs/gsasrec
    """
    return {
        "model": {"name": "sasrec", "hidden_units": 128, "dropout_rate": 0.2},
        "objective": {"loss": "gbce", "num_negatives": 256, "gbce_t": 0.75},
        "train": {
            "num_epochs": 34,
            "eval_epochs": 2,
            "patience": 0,
            "lr": 0.006,
            "schedule": "cosine",
            "warmup_steps": 50,
            "batch_parts": 8,
        },
    }


@recipe("tisasrec-paper")
def tisasrec_paper() -> Values:
    """TiSASRec as published for MovieLens-1M (Li et al. 2020): BCE, one negative, maxlen 50, the authors' norm.

    Two settings differ from the paper: a cosine schedule, and sliding windows over all events instead of each user's
    newest 50 (`--window last --schedule constant --num-epochs 200 --patience 8 --eval-epochs 5`: .804 and .578).

    Expect: ML-1M, uniform-100: HR@10 .823, NDCG@10 .598 (3 seeds); 60 epochs of 23 s on one core
    Command: ensue train data/ml-1m --preset tisasrec-paper --out runs/tisasrec-paper
    """
    return {
        "model": {"name": "tisasrec", "maxlen": 50, "norm": "original"},
        "objective": {"loss": "bce"},
        "train": {
            "num_epochs": 60,
            "window": "sliding",
            "schedule": "cosine",
            "eval_epochs": 3,
            "patience": 0,
            "l2_emb": 2.5e-5,
            "validation_protocol": "uniform-100",
        },
        "evaluate": {"protocol": "uniform-100"},
    }


@recipe("tisasrec-ce")
def tisasrec_ce() -> Values:
    """TiSASRec with the full softmax over whole histories: the settings of sasrec-ce plus time intervals.

    Expect: ML-1M, full: NDCG@10 .009 above sasrec-ce at width 64, 1 head; not run at its own width
    Command: ensue train data/ml-1m --preset tisasrec-ce --out runs/tisasrec-ce
    """
    values = sasrec_ce()
    return {**values, "model": {**values["model"], "name": "tisasrec"}}


@recipe("tisasrec-query-time")
def tisasrec_query_time() -> Values:
    """Log-interval bias and the request's time with the full softmax, for use when the time of the request is known.

    Expect: ML-1M 3,706 items, full+query-time: HR@10 .366, NDCG@10 .220; 30 epochs of 70 s
    Command: ensue train data/ml-1m --preset tisasrec-query-time --out runs/tisasrec-query-time
    """
    values = sasrec_ce()
    time = {"name": "tisasrec", "relation": "bias", "buckets": "log", "query_time": True}
    return {**values, "model": {**values["model"], **time}}


@recipe("demo")
def demo() -> Values:
    """A small SASRec that learns the simulated book club of `ensue demo` within a minute.

    Expect: simulated book club, full: NDCG@10 .325 of a best possible .468; 30 s on one core
    Command: ensue demo
    """
    return {
        "model": {"name": "sasrec", "maxlen": 60, "hidden_units": 64, "dropout_rate": 0.1},
        "objective": {"loss": "ce"},
        "train": {"num_epochs": 25, "batch_size": 64, "lr": 0.004, "eval_epochs": 2, "patience": 4, "threads": 1},
    }
