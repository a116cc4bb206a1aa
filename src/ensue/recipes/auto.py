"""The choice of a recipe for a data set, used by `ensue train LOG` and `Recommender().fit(data)` without a recipe.

`profile` measures the data, `choose` picks the recipe, and `settle` applies the user's settings. All three are pure:
the same data and settings give the same configuration on every machine. docs/results/defaults.md has the results.

Suffix: `R` rows of a view.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensue.batches.tasks import make_windows
from ensue.data.split import Split, make_split
from ensue.data.store import SequenceStore
from ensue.errors import counted
from ensue.objectives.objective import ObjectiveConfig
from ensue.recipes.presets import run_config
from ensue.runs.config import RunConfig

# The model whose settings are chosen from the data; other models keep their defaults.
MODEL = "sasrec"
# Mean events per user from which histories count as long. MovieLens has 100 to 160, shops and sessions have 3 to 10.
LONG = 30.0
# Number of (input, target) pairs from which a model of width 128 with dropout 0.2 still improves in its last epochs.
MANY_PAIRS = 300_000
# Number of scores (pairs times items) that the full softmax computes in about a minute on one core. For short histories
# with more than that per epoch, the softmax is sampled.
MANY_SCORES = 10e9
# For small data: the minimum number of steps per epoch, if batches of 16 windows allow it, and the minimum total number
# of steps, within 300 epochs.
EPOCH_STEPS, MIN_BATCH, MIN_STEPS, MAX_EPOCHS = 16, 16, 1_000, 300
# Number of rows in which repeats are counted, and the share of repeated events from which the reason mentions it.
SAMPLED_ROWS, SHOWN_REPEATS = 20_000, 0.01


@dataclass(frozen=True, slots=True)
class Profile:
    """The properties of the training part of a split that the choice depends on.

    Attributes:
        users: number of users with training events.
        items: number of items in the catalogue.
        pairs: number of (input, target) pairs in all training histories.
        mean_length: mean number of training events per user.
        repeats: share of events whose item occurs earlier in the same history, among the first 20,000 users.
        has_times: whether events have times.
    """

    users: int
    items: int
    pairs: int
    mean_length: float
    repeats: float = 0.0
    has_times: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A configuration and the reason for it.

    Attributes:
        config: the run's settings.
        what: one line that names the recipe and its main settings; "" if nothing was chosen.
        why: the reason, in one line.
    """

    config: RunConfig
    what: str = ""
    why: str = ""


def chooses(model: str | None, preset: str | None, file: object = None) -> bool:
    """Whether the data decides: no recipe and no file of settings is given, and no model other than SASRec."""
    return preset is None and file is None and model in (None, MODEL)


def profile(split: Split) -> Profile:
    """Measure the properties that the choice depends on."""
    train = split.train
    lengths_R = train.lengths_R
    return Profile(
        users=len(train),
        items=train.store.num_items,
        pairs=int((lengths_R - 1).sum()),
        mean_length=float(lengths_R.mean()) if len(train) else 0.0,
        repeats=_repeats(split),
        has_times=train.store.times is not None,
    )


def _repeats(split: Split) -> float:
    train = split.train
    start_R, stop_R = train.start_R[:SAMPLED_ROWS], train.stop_R[:SAMPLED_ROWS]
    events = distinct = 0
    for start, stop in zip(start_R.tolist(), stop_R.tolist(), strict=True):
        events += stop - start
        distinct += len(np.unique(train.store.items[start:stop]))
    return 1 - distinct / events if events else 0.0


def choose(data: Profile) -> tuple[str, str]:
    """The name of the recipe for a data set, and the reason for it."""
    shape = f"{data.mean_length:.0f} events per user, {data.items:,} items"
    if data.repeats >= SHOWN_REPEATS:
        shape += f", {data.repeats:.0%} of events repeated"
    if data.mean_length >= LONG:
        times = "; times are not read (--preset tisasrec-ce reads them)" if data.has_times else ""
        if data.pairs >= MANY_PAIRS:
            return "sasrec-ce", f"long histories ({shape}), enough of them for width 128{times}"
        return "sasrec-ce-small", f"long histories ({shape}), too few of them for a wide model{times}"
    if data.pairs * data.items <= MANY_SCORES:
        return "sasrec-ce-sparse", f"short histories ({shape})"
    why = f"short histories ({shape}), too many items to score all of them at every event"
    return ("sasrec-sessions" if data.pairs >= MANY_PAIRS else "sasrec-sampled"), why


def settle(store: SequenceStore, model: str | None = None, settings: Mapping[str, Any] | None = None) -> Choice:
    """The configuration of a run without a recipe.

    Given settings take precedence. If a setting of the objective is given (the loss, its negatives), the recipe's
    objective is not used at all: other settings of the objective have their defaults, since the negatives of one loss
    do not suit another.

    Args:
        store: the data.
        model: "sasrec", or None to let the data decide: if no user has two training events, popularity is chosen.
        settings: field -> value, by flat names.

    Raises:
        ConfigError: an unknown setting, or a value out of range.
        DataError: the split needs what the data does not have.
    """
    given = dict(settings or {})
    split = make_split(store, run_config(MODEL, None, given).split)
    data = profile(split)
    if model is None and data.pairs == 0 and not given:
        why = "no user has two training events, so there is no order to learn"
        return Choice(run_config("popularity", None, {}), "popularity", why)
    recipe, why = choose(data)
    if not ObjectiveConfig.model_fields.keys().isdisjoint(given):
        given = {name: field.default for name, field in ObjectiveConfig.model_fields.items()} | given
    config = adapted(run_config(None, recipe, _heads(recipe, given)), split, given)
    return Choice(config, _described(recipe, config), why)


def _heads(recipe: str, given: dict[str, Any]) -> dict[str, Any]:
    """The given settings, with one attention head if a given width is not divisible by the recipe's heads."""
    heads = run_config(None, recipe, {}).model.model_dump()["num_heads"]
    width = given.get("hidden_units")
    if width is None or "num_heads" in given or int(width) % (2 * heads) == 0:
        return given
    return {**given, "num_heads": 1}


def adapted(config: RunConfig, split: Split, given: Mapping[str, Any]) -> RunConfig:
    """The recipe with batch size, epochs, evaluations and warm-up adapted to the data's size or the given epochs."""
    train, task = config.train, config.make_task()
    windows = len(make_windows(split.train, config.model.maxlen, task.window or train.window, train.stride or None))
    changed: dict[str, Any] = {}
    batch = changed["batch_size"] = min(train.batch_size, max(MIN_BATCH, windows // EPOCH_STEPS))
    if "batch_size" in given:
        batch = train.batch_size
    steps = math.ceil(windows / batch)
    epochs = changed["num_epochs"] = max(train.num_epochs, min(MAX_EPOCHS, math.ceil(MIN_STEPS / steps)))
    if "num_epochs" in given:
        epochs = train.num_epochs
    changed["eval_epochs"] = min(train.eval_epochs, max(1, epochs // 10))
    changed["warmup_steps"] = min(train.warmup_steps, steps * epochs // 10)
    return config.replace(train=train.replace(**{name: value for name, value in changed.items() if name not in given}))


def _described(recipe: str, config: RunConfig) -> str:
    model, train = config.model.model_dump(), config.train
    return (
        f"preset {recipe}: {config.objective.loss}, width {model['hidden_units']}, {model['num_blocks']} blocks, "
        f"maxlen {config.model.maxlen}, dropout {model['dropout_rate']}, batches of {train.batch_size}, "
        f"at most {counted(train.num_epochs, 'epoch')}" + (f", patience {train.patience}" if train.patience else "")
    )
