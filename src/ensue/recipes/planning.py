"""The settings of a training and its estimated duration, before it starts; for the command line and `Recommender`."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ensue.data.featured import split_with_features
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError, counted
from ensue.models import Catalogue, check_fits, features_of, is_counted
from ensue.recipes.auto import Choice, chooses, settle
from ensue.recipes.estimate import Estimate, estimate
from ensue.recipes.presets import run_config
from ensue.runs.checkpoint import load_checkpoint
from ensue.runs.config import RunConfig
from ensue.runs.folder import CHECKPOINTS, CONFIG, check_writable
from ensue.train.distributed import ranks

# (store, epochs) -> the settings of a run on the store; None for the given or chosen number of epochs.
Configure = Callable[[SequenceStore, int | None], Choice]


def configure(
    model: str | None, preset: str | None, settings: Mapping[str, Any], file: Path | None = None
) -> Configure:
    """A function that completes the given settings from the data, if `ensue.recipes.auto.chooses` allows it.

    Args:
        model: a model's name, or None.
        preset: a recipe's name, or None.
        settings: field -> value, by flat names.
        file: a TOML file of settings to start from, or None.

    Raises:
        ConfigError: as `run_config`. A wrong setting is reported here, before the data is read.
    """
    run_config(model, preset, dict(settings), file)

    def configured(store: SequenceStore, epochs: int | None) -> Choice:
        given = dict(settings) if epochs is None else {**settings, "num_epochs": epochs}
        if chooses(model, preset, file):
            return settle(store, model, given)
        return Choice(run_config(model, preset, given, file))

    return configured


def fixed(config: RunConfig) -> Configure:
    """A function that returns a complete configuration for any data."""

    def configured(store: SequenceStore, epochs: int | None) -> Choice:
        if epochs is None:
            return Choice(config)
        return Choice(config.replace(train=config.train.replace(num_epochs=epochs)))

    return configured


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a run, and lines that explain them.

    Attributes:
        config: the run's settings.
        lines: the choice and its reason, for display; empty if nothing was chosen or measured.
    """

    config: RunConfig
    lines: tuple[str, ...]


def plan(
    configure: Configure, store: SequenceStore, folder: Path | None, budget: float | None = None, measured: bool = True
) -> Plan:
    """Determine a run's settings; measure its duration if the settings were chosen or a budget is given.

    If the folder already contains a run, finished or not, it continues with its own number of epochs: a budget applies
    only to a new training.

    Args:
        configure: returns the settings for a store.
        store: the data.
        folder: the run folder; None for a run that starts from the beginning in any case.
        budget: minutes that training and its evaluations on validation may take; the number of epochs is reduced to
            fit. The budget, or else the stated time, becomes the setting `max_minutes`.
        measured: whether to measure; False skips it.

    Raises:
        ConfigError: the budget is too short for one epoch or cannot be measured with several processes, or the model
            does not fit into memory.
        DataError: the training part has no events to predict.
        ArtefactError: the folder contains files that ensue did not create.
    """
    if budget is not None and not (isinstance(budget, int | float) and budget > 0):
        raise ConfigError(f"budget must be above 0 minutes (got {budget})")
    choice = configure(store, None)
    if is_counted(choice.config.model) or not (choice.what or budget):
        return _plan_of(choice, "")
    check_fits(choice.config.model, Catalogue.of_store(store))
    if not measured or ranks()[1] > 1:
        if budget is not None:
            raise ConfigError("a budget needs a single process; with several, set num_epochs instead")
        return _plan_of(choice, "")
    earlier = None if folder is None else _settings_in(folder)
    if earlier is not None:
        choice = choice if budget is None else configure(store, earlier.train.num_epochs)
        return _plan_of(_limited(choice, earlier.train.max_minutes), "")
    cost = estimate(choice.config, split_with_features(store, choice.config.split, features_of(choice.config.model)))
    if budget is not None:
        choice = within(configure, store, choice, cost, 60 * budget)
    stated = max(1, math.ceil(cost.total(choice.config.train) / 60)) if budget is None else budget
    return _plan_of(_limited(choice, stated), _time(cost, choice.config))


def within(configure: Configure, store: SequenceStore, choice: Choice, cost: Estimate, seconds: float) -> Choice:
    """The choice with as many epochs as fit into a time, at most its own.

    Raises:
        ConfigError: the time is too short for one epoch and its evaluation.
    """
    while (total := cost.total(choice.config.train)) > seconds:
        epochs = choice.config.train.num_epochs
        if epochs == 1:
            raise ConfigError(
                f"one epoch and its evaluation take about {total / 60:.1f} minutes, more than the budget of "
                f"{seconds / 60:.3g}: raise it, or use a smaller model or less data"
            )
        choice = configure(store, max(1, min(epochs - 1, int(epochs * seconds / total))))
    return choice


def planned(configure: Configure, store: SequenceStore, folder: Path | None, budget: float | None = None) -> RunConfig:
    """The settings of `plan`, whose lines are printed on standard error. Errors are those of `plan`."""
    settled = plan(configure, store, folder, budget)
    for line in settled.lines if ranks()[0] == 0 else ():
        print(line, file=sys.stderr)
    return settled.config


def _settings_in(folder: Path) -> RunConfig | None:
    """The settings of the run in a folder, finished or not; None if there is none."""
    check_writable(folder)
    if (folder / CONFIG).is_file():
        return RunConfig.read_toml(folder / CONFIG)
    checkpoint = load_checkpoint(folder / CHECKPOINTS)
    return None if checkpoint is None else RunConfig.parse(checkpoint.state["config"], f"checkpoint in {folder}")


def _limited(choice: Choice, max_minutes: float | None) -> Choice:
    """The choice with a limit of its time, unless the settings have one, so that it does not exceed the stated time."""
    train = choice.config.train
    if train.max_minutes is not None:
        return choice
    return replace(choice, config=choice.config.replace(train=train.replace(max_minutes=max_minutes)))


def _plan_of(choice: Choice, time: str) -> Plan:
    lines = (f"chosen: {choice.what}", f"because: {choice.why}{time}") if choice.what else (time,) if time else ()
    return Plan(choice.config, tuple(line.removeprefix("; ") for line in lines))


def _time(cost: Estimate, config: RunConfig) -> str:
    train = config.train
    ends = ", less if patience ends training" if train.patience else ""
    return (
        f"; measured here: {cost.epoch:.1f} s per epoch, at most {minutes(cost.total(train))} for "
        f"{counted(train.num_epochs, 'epoch')}{ends}"
    )


def minutes(seconds: float) -> str:
    """A duration as text, rounded up to minutes.

    >>> minutes(61), minutes(20), minutes(7300)
    ('2 minutes', '1 minute', '2 h 2 min')
    """
    whole = max(1, -int(-seconds // 60))
    if whole >= 60:
        return f"{whole // 60} h {whole % 60} min"
    return f"{whole} minute{'s' if whole > 1 else ''}"
