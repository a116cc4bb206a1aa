"""`ensue train`: fit a model and write a run folder. Every field of the settings is a flag."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from ensue.cli.doctor import SPLIT_NAMES
from ensue.cli.flags import Flag, flags_of
from ensue.cli.hints import recommend_after_item
from ensue.cli.live import training_display
from ensue.cli.sources import open_data
from ensue.errors import ConfigError
from ensue.terminal.memory import memory_told
from ensue.terminal.output import Screen, duration

if TYPE_CHECKING:
    from ensue.data.store import SequenceStore
    from ensue.recommender import Recommender
    from ensue.runs.config import RunConfig
    from ensue.runs.log import Watcher
    from ensue.train.distributed import World


ADVICE = "work on a batch in parts (--batch-parts), or lower --batch-size or --maxlen"


def flags() -> list[Flag]:
    """Every setting of a run: those of all models, then objective, training, split and evaluation."""
    from ensue.data.split import SplitConfig
    from ensue.evaluation.protocol import EvaluateConfig
    from ensue.models import MODELS
    from ensue.objectives.objective import ObjectiveConfig
    from ensue.runs.config import TrainConfig

    models = {name: MODELS[name].config for name in MODELS}
    having: dict[str, list[str]] = {}
    for model, config in models.items():
        for name in config.model_fields:
            having.setdefault(name, []).append(model)
    found: dict[str, Flag] = {}
    for model, config in models.items():
        skip = {"name", *found}
        for flag in flags_of(config, f"Model {model}", skip=skip):
            shared = having[flag.name]
            panel = "Every model" if len(shared) == len(models) else f"Model {', '.join(shared)}"
            found[flag.name] = Flag(**{**vars(flag), "panel": panel})
    return [
        *sorted(found.values(), key=lambda flag: flag.panel != "Every model"),
        *flags_of(ObjectiveConfig, "Objective"),
        *flags_of(TrainConfig, "Training"),
        *flags_of(SplitConfig, "Split", rename=SPLIT_NAMES),
        *flags_of(EvaluateConfig, "Evaluation", skip={"query_time"}),
    ]


def run(
    screen: Screen,
    data: Annotated[Path, typer.Argument(help="A store folder (see ensue prepare), or a log file.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder; an interrupted run there goes on.")],
    settings: dict[str, Any],
    model: Annotated[
        str | None, typer.Option("--model", help="sasrec (default), tisasrec, markov, popularity.")
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Settings to start from; see ensue presets.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file of settings to start from.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in the folder.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write RUN/tensorboard (extra log).")] = False,
    devices: Annotated[
        int, typer.Option("--devices", min=1, help="Processes that train together; a GPU or a share of the cores each.")
    ] = 1,
    budget: Annotated[
        float | None, typer.Option("--budget", help="Minutes that training may take: fewer epochs, to fit.")
    ] = None,
) -> dict[str, Any]:
    """Train a model and write a run folder. The same command resumes a run that was interrupted.

    Without a preset, a file of settings or a model, the data decides what is trained; settings that are given win.
    """
    from ensue.cli.launch import fit_in_ranks
    from ensue.recipes import configure, plan
    from ensue.recommender import Recommender
    from ensue.train.distributed import join, ranks

    settled = configure(model, preset, settings, config)
    rank, size = ranks()
    if size > 1 and devices not in (1, size):
        raise ConfigError(f"--devices {devices} in a group of {size} processes: leave it out under torchrun")
    if overwrite and data.resolve().is_relative_to(out.resolve()):
        raise ConfigError(f"--overwrite of {out} with the data {data} in it: choose another folder for the run")
    if rank > 0:
        screen.as_json, screen.console = False, Console(quiet=True)
    store = open_data(data, screen)
    planned = memory_told(ADVICE)(plan)(settled, store, None if overwrite else out, budget, devices == 1)
    for line in planned.lines:
        screen.say(line)
    chosen = planned.config
    world = join(chosen.train.device)
    recommender = Recommender.from_config(chosen)
    watchers = tensorboard_of(out, tensorboard and world.is_main)
    if devices > size:
        recommender, fresh = fit_in_ranks(screen, recommender, store, data, out, devices, tensorboard, overwrite)
    else:
        recommender, fresh = fit(screen, recommender, store, out, watchers, overwrite)
    return report(screen, recommender, fresh, store, data, out) if world.is_main else {}


def tensorboard_of(out: Path, wanted: bool) -> list[Watcher]:
    """The watcher that writes RUN/tensorboard, if it is wanted."""
    if not wanted:
        return []
    from ensue.runs.folder import TENSORBOARD
    from ensue.train.tensorboard import TensorBoardWatcher

    return [TensorBoardWatcher(out / TENSORBOARD)]


def report(
    screen: Screen, recommender: Recommender, fresh: bool, store: SequenceStore, data: Path, out: Path
) -> dict[str, Any]:
    """Say where the run is and what to do next; the object that --json prints."""
    from ensue.data.split import make_split
    from ensue.runs.lock import LOCK
    from ensue.runs.log import best_of, epochs_of

    assert recommender.run is not None
    chosen, log = recommender.config, epochs_of(recommender.log)
    files = sorted(path.name for path in out.iterdir() if path.is_file() and path.name != LOCK)
    screen.say(f"{'written' if fresh else 'already trained'}: {out} ({', '.join(files)})")
    if len(make_split(store, chosen.split).test):
        screen.next("ensue evaluate", out, *([] if recommender.run.store is not None else ["--data", data]))
    else:
        screen.next(*recommend_after_item(out, chosen.model, store.item_ids.decode([1])[0]))
    best = best_of(log, chosen.validation_label)
    return {
        "run": str(out),
        "model": chosen.model.name,
        "epochs": len(log),
        "seconds": round(sum(record["seconds"] for record in log), 3),
        "loss": log[-1]["loss"] if log else None,
        "validation": None if best is None else {chosen.validation_label: best[0]},
        "trained": fresh,
        "files": files,
    }


@memory_told(ADVICE)
def fit(
    screen: Screen,
    recommender: Recommender,
    store: SequenceStore,
    out: Path,
    watchers: list[Watcher],
    overwrite: bool = False,
) -> tuple[Recommender, bool]:
    """Train into a folder with a display, or take what is there when it is this very run, finished.

    Under torchrun every rank calls this, and rank 0 looks into the folder, shows and writes.

    Args:
        screen: where to say things.
        recommender: the settings.
        store: the data.
        out: the run folder.
        watchers: who follows, beside the display.
        overwrite: replace the run that is there.

    Returns:
        The fitted recommender (not fitted on other ranks if the run was there), and whether anything was trained.

    Raises:
        ConfigError: the model needs more memory than there is.
        OtherRunError: the folder holds a run of other data or settings.
        TrainingError: another training writes there, or memory ran out.
        ArtefactError: the folder holds something else.
    """
    from ensue.models import is_counted
    from ensue.plots import learning_curve
    from ensue.runs.folder import interrupted
    from ensue.train.distributed import join

    config = recommender.config
    world = join(config.train.device)
    if overwrite:
        make_way(config, store, out, world)
    done = world.on_main(lambda: finished(recommender, store, out))
    if world.broadcast_json(done is not None):
        return done or recommender, False
    display = training_display(_announce(screen, config, store, out), screen)
    try:
        recommender.fit(store, out, [display, *watchers])
    except KeyboardInterrupt:
        screen.say(interrupted(out), "yellow")
        raise
    if world.is_main and not is_counted(config.model):
        _summary(screen, recommender)
        learning_curve(recommender.log, out)
    return recommender, True


def _announce(screen: Screen, config: RunConfig, store: SequenceStore, out: Path) -> int:
    """Say what is going to be trained on what; the targets of one epoch, 0 for a model that only counts.

    Raises:
        ConfigError: the model needs more memory than there is.
        DataError: nothing to train on.
    """
    from ensue.batches.tasks import make_windows
    from ensue.data.split import make_split
    from ensue.models import Catalogue, check_fits, is_counted
    from ensue.runs.checkpoint import numbered
    from ensue.runs.folder import CHECKPOINTS

    check_fits(config.model, Catalogue.of_store(store))
    train, split = config.train, make_split(store, config.split)
    events = 0
    if not is_counted(config.model):
        window = config.model.make_task().window or train.window
        windows = make_windows(split.train, config.model.maxlen, window, train.stride or None)
        events = int((windows.stop_W - windows.start_W - 1).sum())
    screen.say(
        f"{config.model.name} on {store.num_users:,} users, {store.num_items:,} items, {store.num_events:,} events"
        + (f"; goes on from the checkpoint in {out}" if numbered(out / CHECKPOINTS) else "")
    )
    if events and not len(split.validation):
        screen.say("no validation case is held out: training does not stop early, and the last state is kept", "yellow")
    return events


def _summary(screen: Screen, recommender: Recommender) -> None:
    """How long it took, why it ended, and the best epoch."""
    from ensue.runs.log import best_of, epochs_of

    log, train = epochs_of(recommender.log), recommender.config.train
    seconds = sum(record["seconds"] + record.get("validation seconds", 0.0) for record in log)
    text = f"{len(log)} epochs in {duration(seconds)}"
    name = recommender.config.validation_label
    best = best_of(log, name)
    if best is not None:
        text += f"; best validation {name} {best[0]:.4f} at epoch {best[1]}, and that state is kept"
    if len(log) < train.num_epochs:
        text += f"; stopped after {train.patience} evaluations without a better one"
    screen.say(text)


def finished(recommender: Recommender, store: SequenceStore, out: Path) -> Recommender | None:
    """The run in the folder, if it is complete and of this data and these settings; None if there is none.

    Its learning curve is drawn if it is missing.

    Raises:
        OtherRunError: it is of other data or settings; the differences are named.
        ArtefactError: the folder holds something else.
    """
    from ensue.plots import learning_curve
    from ensue.recommender import Recommender as Loaded
    from ensue.runs.artefact import finished_run
    from ensue.runs.folder import LOG, check_writable
    from ensue.runs.log import read_log

    check_writable(out)
    run = finished_run(out, recommender.config, store.fingerprint)
    if run is None:
        return None
    there = Loaded.from_run(run, read_log(out / LOG))
    learning_curve(there.log, out, anew=False)
    return there


def make_way(config: RunConfig, store: SequenceStore, out: Path, world: World) -> None:
    """Remove the run in a folder for another, once all that the other needs was made and its first loss computed.

    Raises:
        EnsueError: the settings or the data do not do; the run is still there.
        ArtefactError: the folder holds something that ensue did not write; nothing is removed.
        TrainingError: a training writes into the folder.
    """
    from ensue.data.split import make_split
    from ensue.models import Catalogue, CountedModel, build_model, is_counted
    from ensue.runs.folder import remove_run
    from ensue.train.loop import Trainer

    split = make_split(store, config.split)
    if is_counted(config.model):
        cast(CountedModel, build_model(config.model, Catalogue.of_store(store))).fit(split.train)
    else:
        Trainer(config, split).rehearse()
    world.on_main(lambda: remove_run(out))
