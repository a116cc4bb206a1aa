"""Training with a display, as `ensue train`, its ranks and `ensue demo` share it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ensue.cli.live import training_display
from ensue.terminal.memory import memory_told
from ensue.terminal.output import Screen, duration

if TYPE_CHECKING:
    from ensue.data.split import Split
    from ensue.data.store import SequenceStore
    from ensue.runs.config import RunConfig
    from ensue.runs.log import Records, Watcher
    from ensue.train.distributed import World
    from ensue.train.fit import Fitted
    from ensue.train.loop import Trainer

ADVICE = "work on a batch in parts (--batch-parts), or lower --batch-size or --maxlen"


@memory_told(ADVICE)
def fit_shown(
    screen: Screen,
    config: RunConfig,
    store: SequenceStore,
    out: Path,
    tensorboard: bool = False,
    overwrite: bool = False,
) -> Fitted:
    """Train into a folder with a display, or take the finished run of these settings that is there.

    Under torchrun every rank calls this, and rank 0 shows and writes.

    Args:
        screen: where messages go.
        config: the settings.
        store: the data.
        out: the run folder.
        tensorboard: write RUN/tensorboard.
        overwrite: replace the run that is there.

    Raises:
        EnsueError: as `fit`, or memory ran out.
    """
    from ensue.models import is_counted
    from ensue.plots import learning_curve
    from ensue.runs.folder import interrupted
    from ensue.train.distributed import join
    from ensue.train.fit import fit
    from ensue.train.loop import Trainer

    def begin(config: RunConfig, split: Split, folder: Path | None, watchers: Iterable[Watcher]) -> Trainer:
        trainer = Trainer(config, split, folder, watchers)
        _announce(screen, trainer, out)
        trainer.watch(training_display(trainer.targets, screen), *extra)
        return trainer

    world = join(config.train.device)
    extra = tensorboard_of(out) if tensorboard and world.is_main else []
    if overwrite:
        make_way(config, store, out, world)
    try:
        fitted = fit(config, store, out, begin=begin)
    except KeyboardInterrupt:
        screen.say(interrupted(out), "yellow")
        raise
    if world.is_main and not is_counted(config.model):
        if fitted.is_new:
            _summary(screen, config, fitted.log)
        learning_curve(fitted.log, out, replace=fitted.is_new)
    return fitted


def tensorboard_of(out: Path) -> list[Watcher]:
    """The watcher that writes RUN/tensorboard."""
    from ensue.runs.folder import TENSORBOARD
    from ensue.train.tensorboard import TensorBoardWatcher

    return [TensorBoardWatcher(out / TENSORBOARD)]


def _announce(screen: Screen, trainer: Trainer, out: Path) -> None:
    """Print what is trained on which data."""
    from ensue.runs.checkpoint import numbered
    from ensue.runs.folder import CHECKPOINTS

    store = trainer.split.train.store
    resumes = f"; goes on from the checkpoint in {out}" if numbered(out / CHECKPOINTS) else ""
    screen.say(
        f"{trainer.config.model.name} on {store.num_users:,} users, {store.num_items:,} items, "
        f"{store.num_events:,} events{resumes}"
    )
    if not len(trainer.split.validation):
        screen.say("no validation cases: training does not stop early, and the last state is kept", "yellow")


def _summary(screen: Screen, config: RunConfig, records: Records) -> None:
    """Print how long training took, why it ended, and the best epoch."""
    from ensue.runs.log import best_of, epochs_of

    log, name = epochs_of(records), config.validation_label
    seconds = sum(record["seconds"] + record.get("validation seconds", 0.0) for record in log)
    text = f"{len(log)} epochs in {duration(seconds)}"
    best = best_of(log, name)
    if best is not None:
        text += f"; best validation {name} {best[0]:.4f} at epoch {best[1]}, and that state is kept"
    if len(log) < config.train.num_epochs:
        text += f"; stopped after {config.train.patience} evaluations without a better one"
    screen.say(text)


def make_way(config: RunConfig, store: SequenceStore, out: Path, world: World) -> None:
    """Remove the run in a folder for another, once all that the other needs was made and its first loss computed.

    Raises:
        EnsueError: the settings or the data do not do; the run is still there.
        ArtefactError: the folder holds something that ensue did not write; nothing is removed.
        TrainingError: a training writes into the folder.
    """
    from ensue.data.split import make_split
    from ensue.models import Catalogue, fit_counted, is_counted
    from ensue.runs.folder import remove_run
    from ensue.train.loop import Trainer

    split = make_split(store, config.split)
    if is_counted(config.model):
        fit_counted(config.model, Catalogue.of_store(store), split.train)
    else:
        Trainer(config, split).rehearse()
    world.on_main(lambda: remove_run(out))
