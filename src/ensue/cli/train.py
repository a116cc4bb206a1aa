"""`ensue train`: fit a model and write a run folder. Every field of the settings is a flag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ensue.cli.doctor import SPLIT_NAMES
from ensue.cli.flags import Flag, flags_of
from ensue.cli.hints import recommend_after_item
from ensue.cli.sources import check_outside, data_words, open_data
from ensue.errors import ConfigError
from ensue.terminal.memory import explain_memory_errors
from ensue.terminal.output import Screen

if TYPE_CHECKING:
    from ensue.data.store import SequenceStore
    from ensue.train.fit import Fitted


Data = Annotated[
    list[str], typer.Argument(metavar="DATA...", help="A store folder, or a log: files, a folder, a pattern.")
]
ModelName = Annotated[
    str | None, typer.Option("--model", help="The model's name; by default the settings are chosen from the data.")
]
Preset = Annotated[str | None, typer.Option("--preset", help="Settings to start from; see ensue presets.")]
SettingsFile = Annotated[Path | None, typer.Option("--config", help="A TOML file of settings to start from.")]


def flags(words: Sequence[str] = ()) -> list[Flag]:
    """The flags of all settings of a run: model, objective, training, split and evaluation.

    The help lists the settings of the model named on the command line, with that model's defaults; without a name, the
    settings common to all models. The flags of other models are accepted but not listed.

    Args:
        words: the command line.
    """
    from ensue.data.split import SplitConfig
    from ensue.evaluation.protocol import EvaluateConfig
    from ensue.models import MODELS
    from ensue.objectives.objective import ObjectiveConfig
    from ensue.runs.config import TrainConfig

    named = _model_of(words)
    configs = {name: MODELS[name].config for name in MODELS}
    if named in configs:
        configs = {named: configs[named], **configs}
    by_name: dict[str, Flag] = {}
    for model, config in configs.items():
        for flag in flags_of(config, f"Model {model}", skip={"name", *by_name}):
            is_shared = all(flag.name in each.model_fields for each in configs.values())
            is_listed = model == named or (named is None and is_shared)
            panel = flag.panel if named is not None else "Every model (ensue train --model NAME --help lists a model's)"
            by_name[flag.name] = replace(flag, panel=panel, hidden=not is_listed)
    return [
        *by_name.values(),
        *flags_of(ObjectiveConfig, "Objective"),
        *flags_of(TrainConfig, "Training"),
        *flags_of(SplitConfig, "Split", rename=SPLIT_NAMES),
        *flags_of(EvaluateConfig, "Evaluation", skip={"query_time", "rerank"}),
    ]


def _model_of(words: Sequence[str]) -> str | None:
    """The model named on a command line, directly or through a preset; None if there is none."""
    from ensue.recipes import RECIPES

    for flag in ("--model", "--preset"):
        given = [word.partition("=")[2] for word in words if word.startswith(f"{flag}=")]
        given += [value for word, value in pairwise(words) if word == flag]
        if given and flag == "--model":
            return given[-1]
        if given and given[-1] in RECIPES:
            return str(RECIPES[given[-1]].make()["model"]["name"])
    return None


def run(
    screen: Screen,
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The run folder; an interrupted training in it is resumed.")],
    settings: dict[str, Any],
    model: ModelName = None,
    preset: Preset = None,
    config: SettingsFile = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in the folder when the new one is complete.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Train no further: write the run from the best state so far.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write RUN/tensorboard (extra log).")] = False,
    devices: Annotated[
        int, typer.Option("--devices", min=1, help="Number of processes, each with a GPU or a share of the cores.")
    ] = 1,
    budget: Annotated[
        float | None, typer.Option("--budget", help="Minutes that training may take; reduces the epochs to fit.")
    ] = None,
) -> dict[str, Any]:
    """Train a model and write a run folder. The same command resumes an interrupted training.

    With a larger --num-epochs (or --patience) a finished run is continued.

    Without a preset, a file of settings or a model, settings are chosen from the data; given settings take precedence.
    """
    from ensue.cli.launch import fit_in_ranks
    from ensue.cli.training import ADVICE, FitOptions, fit_shown, interruption_reported, tensorboard_of
    from ensue.recipes import configure, plan
    from ensue.runs.folder import NEXT, interrupted
    from ensue.train.distributed import join, ranks

    settled = configure(model, preset, settings, config)
    rank, size = ranks()
    if size > 1 and devices not in (1, size):
        raise ConfigError(f"--devices {devices} in a group of {size} processes: omit it under torchrun")
    if overwrite:
        check_outside(data, out)
    if rank > 0:
        screen.as_json, screen.console = False, Console(quiet=True)
    store = open_data(data, screen)
    work = out / NEXT if overwrite else out
    planned = explain_memory_errors(ADVICE)(plan)(settled, store, work, budget, devices == 1)
    for line in planned.lines:
        screen.say(line)
    chosen = planned.config
    world = join(chosen.train.device)
    if tensorboard:
        tensorboard_of(out)  # raises here, before any work, if tensorboard is not installed
    options = FitOptions(overwrite, finish, tensorboard)
    with interruption_reported(lambda: interrupted(out)):
        if devices > size:
            fitted = fit_in_ranks(screen, chosen, store, data, out, devices, options)
        else:
            fitted = fit_shown(screen, chosen, store, out, options)
    return report(screen, fitted, store, data, out) if world.is_main else {}


def report(screen: Screen, fitted: Fitted, store: SequenceStore, data: Sequence[str], out: Path) -> dict[str, Any]:
    """Print where the run is and the next command; return the object that --json prints."""
    from ensue.data.split import make_split
    from ensue.runs.lock import LOCK
    from ensue.runs.log import best_of, epochs_of

    config, log = fitted.run.config, epochs_of(fitted.log)
    files = sorted(path.name for path in out.iterdir() if path.is_file() and path.name != LOCK)
    screen.say(f"{'written' if fitted.is_new else 'already trained'}: {out} ({', '.join(files)})")
    if len(make_split(store, config.split).test):
        screen.next("ensue evaluate", out, *([] if fitted.run.store is not None else data_words(data)))
    else:
        screen.next(*recommend_after_item(out, config.model, store.item_ids.decode([1])[0]))
    best = best_of(log, config.validation_label)
    return {
        "run": str(out),
        "model": config.model.name,
        "epochs": len(log),
        "seconds": round(sum(record["seconds"] for record in log), 3),
        "loss": log[-1]["loss"] if log else None,
        "validation": None if best is None else {config.validation_label: best[0]},
        "trained": fitted.is_new,
        "files": files,
    }
