"""Training with a display, shared by `ensue train`, its ranks and `ensue demo`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensue.cli import INTERRUPTED
from ensue.cli.live import training_display
from ensue.errors import InterruptedTrainingError, counted
from ensue.terminal.memory import explain_memory_errors
from ensue.terminal.output import Screen, duration

if TYPE_CHECKING:
    from ensue.data.split import Split
    from ensue.data.store import SequenceStore
    from ensue.runs.config import RunConfig
    from ensue.runs.log import Records, Watcher
    from ensue.train.fit import Fitted
    from ensue.train.loop import Trainer

# From this number of items on, a step of the full softmax takes seconds on a CPU.
MANY_ITEMS = 200_000
ADVICE = "raise --batch-parts, or lower --batch-size or --maxlen"


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to treat a run in the folder, and what else to write; see `ensue train`.

    Attributes:
        overwrite: replace a run of other settings, or a finished one.
        finish: train no further, and write the run from the best state so far.
        tensorboard: write RUN/tensorboard.
    """

    overwrite: bool = False
    finish: bool = False
    tensorboard: bool = False


@contextmanager
def interruption_reported(advice: Callable[[], str]) -> Iterator[None]:
    """Replace an interrupt by an error that states how to go on.

    Args:
        advice: returns the text that follows `interrupted: `; called after the interrupt.

    Raises:
        InterruptedTrainingError: a signal ended the work.
    """
    from ensue.train.interrupt import Interrupted

    try:
        yield
    except KeyboardInterrupt as stop:
        status = stop.status if isinstance(stop, Interrupted) else INTERRUPTED
        raise InterruptedTrainingError(f"interrupted: {advice()}", status) from None


@explain_memory_errors(ADVICE)
def fit_shown(
    screen: Screen,
    config: RunConfig,
    store: SequenceStore,
    out: Path,
    options: FitOptions = FitOptions(),
    watchers: Iterable[Watcher] = (),
) -> Fitted:
    """Train into a folder with a display, or load the finished run of these settings in the folder.

    Under torchrun every rank calls this function; only rank 0 shows and writes.

    Args:
        screen: for messages.
        config: the settings.
        store: the data.
        out: the run folder.
        options: how to treat a run in the folder.
        watchers: further observers of the training.

    Raises:
        EnsueError: as `fit`, or memory ran out.
    """
    from ensue.models import is_counted
    from ensue.plots import learning_curve
    from ensue.train.distributed import ranks
    from ensue.train.fit import fit
    from ensue.train.loop import Trainer

    def begin(config: RunConfig, split: Split, folder: Path | None, watchers: Iterable[Watcher]) -> Trainer:
        trainer = Trainer(config, split, folder, watchers)
        trainer.watch(Announcement(screen, trainer), training_display(trainer.targets, screen))
        if options.tensorboard and folder is not None:
            trainer.watch(tensorboard_of(folder))
        return trainer

    fitted = fit(config, store, out, watchers, overwrite=options.overwrite, finish=options.finish, begin=begin)
    if ranks()[0] == 0 and not is_counted(config.model):
        if fitted.is_new:
            _summary(screen, config, fitted.log)
        learning_curve(fitted.log, out, replace=fitted.is_new)
    return fitted


def tensorboard_of(folder: Path) -> Watcher:
    """The watcher that writes the folder `tensorboard` of a run.

    Raises:
        EnsueError: tensorboard is not installed.
    """
    from ensue.runs.folder import TENSORBOARD
    from ensue.train.tensorboard import TensorBoardWatcher

    return TensorBoardWatcher(folder / TENSORBOARD)


class Announcement:
    """A watcher that prints the model and the size of the data when training starts."""

    def __init__(self, screen: Screen, trainer: Trainer) -> None:
        self.screen, self.trainer = screen, trainer

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        """Print the line, and warnings."""
        trainer, say = self.trainer, self.screen.say
        store, config = trainer.split.train.store, trainer.config
        counts = f"{store.num_users:,} users, {store.num_items:,} items, {store.num_events:,} events"
        resumes = (
            f"; resuming from the checkpoint after {counted(epoch, 'epoch')} and {counted(step, 'step')}"
            if epoch or step
            else ""
        )
        say(f"{config.model.name} on {counts}{resumes}")
        if trainer.is_stretched:
            say(f"from here on, the {config.train.schedule} schedule extends over {epochs} epochs", "yellow")
        if not len(trainer.split.validation):
            say("no validation cases: training does not stop early, and the last state is kept", "yellow")
        if config.objective.loss == "ce" and store.num_items >= MANY_ITEMS:
            say(
                f"loss ce compares every position with all {store.num_items:,} items, which takes seconds per step: "
                "--loss sampled-softmax is many times faster",
                "yellow",
            )

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Print nothing."""

    def record(self, record: dict[str, Any]) -> None:
        """Print nothing."""

    def finish(self) -> None:
        """Print nothing."""


def _summary(screen: Screen, config: RunConfig, records: Records) -> None:
    """Print how long training took, why it ended, and the best epoch."""
    from ensue.runs.log import best_of, epochs_of

    log, name = epochs_of(records), config.validation_label
    seconds = sum(record["seconds"] + record.get("validation seconds", 0.0) for record in log)
    text = f"{counted(len(log), 'epoch')} in {duration(seconds)}"
    best = best_of(log, name)
    if best is not None:
        text += f"; best validation {name} {best[0]:.4f} at epoch {best[1]}, whose state is kept"
    if log and "steps" in log[-1]:
        text += f"; the last epoch was cut after {counted(log[-1]['steps'], 'step')}"
    if len(log) < config.train.num_epochs:
        limits = "--num-epochs, --patience or --max-minutes"
        text += f"; stopped before epoch {config.train.num_epochs}: raise {limits} to continue"
    screen.say(text)
