"""Training with a display, as `ensue train`, its ranks and `ensue demo` share it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensue.cli import INTERRUPTED
from ensue.cli.live import training_display
from ensue.errors import InterruptedTrainingError
from ensue.terminal.memory import memory_told
from ensue.terminal.output import Screen, duration

if TYPE_CHECKING:
    from ensue.data.split import Split
    from ensue.data.store import SequenceStore
    from ensue.runs.config import RunConfig
    from ensue.runs.log import Records, Watcher
    from ensue.train.fit import Fitted
    from ensue.train.loop import Trainer

# From so many items on, a step of the full softmax takes seconds on a CPU.
MANY_ITEMS = 200_000
ADVICE = "work on a batch in parts (--batch-parts), or lower --batch-size or --maxlen"


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What becomes of a run that is in the folder, and what else is written; see `ensue train`.

    Attributes:
        overwrite: replace a run of other settings, or a finished one.
        finish: train no further, and write the run from the best state so far.
        tensorboard: write RUN/tensorboard.
    """

    overwrite: bool = False
    finish: bool = False
    tensorboard: bool = False


@contextmanager
def interruption_reported(out: Path) -> Iterator[None]:
    """Let a signal that ends the training in a folder end as an error that says how to go on.

    Raises:
        InterruptedTrainingError: a signal ended it.
    """
    from ensue.runs.folder import interrupted
    from ensue.train.interrupt import Interrupted

    try:
        yield
    except KeyboardInterrupt as stop:
        status = stop.status if isinstance(stop, Interrupted) else INTERRUPTED
        raise InterruptedTrainingError(f"interrupted: {interrupted(out)}", status) from None


@memory_told(ADVICE)
def fit_shown(
    screen: Screen, config: RunConfig, store: SequenceStore, out: Path, options: FitOptions = FitOptions()
) -> Fitted:
    """Train into a folder with a display, or take the finished run of these settings that is there.

    Under torchrun every rank calls this, and rank 0 shows and writes.

    Args:
        screen: where messages go.
        config: the settings.
        store: the data.
        out: the run folder.
        options: what becomes of a run that is there.

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

    fitted = fit(config, store, out, overwrite=options.overwrite, finish=options.finish, begin=begin)
    if ranks()[0] == 0 and not is_counted(config.model):
        if fitted.is_new:
            _summary(screen, config, fitted.log)
        learning_curve(fitted.log, out, replace=fitted.is_new)
    return fitted


def tensorboard_of(folder: Path) -> Watcher:
    """The watcher that writes `tensorboard` in a run's folder.

    Raises:
        EnsueError: tensorboard is not installed.
    """
    from ensue.runs.folder import TENSORBOARD
    from ensue.train.tensorboard import TensorBoardWatcher

    return TensorBoardWatcher(folder / TENSORBOARD)


class Announcement:
    """A watcher that prints what is trained on which data, when training starts."""

    def __init__(self, screen: Screen, trainer: Trainer) -> None:
        self.screen, self.trainer = screen, trainer

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        """Print the line, and warnings."""
        trainer, say = self.trainer, self.screen.say
        store, config = trainer.split.train.store, trainer.config
        counts = f"{store.num_users:,} users, {store.num_items:,} items, {store.num_events:,} events"
        resumes = f"; goes on from the checkpoint after {epoch} epochs and {step} steps" if epoch or step else ""
        say(f"{config.model.name} on {counts}{resumes}")
        if trainer.is_stretched:
            say(f"the cosine schedule is stretched to {epochs} epochs from here on", "yellow")
        if not len(trainer.split.validation):
            say("no validation cases: training does not stop early, and the last state is kept", "yellow")
        if config.objective.loss == "ce" and store.num_items >= MANY_ITEMS:
            say(
                f"loss ce compares every position with all {store.num_items:,} items, which takes seconds a step: "
                "--loss sampled-softmax is many times faster",
                "yellow",
            )

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Nothing to print."""

    def record(self, record: dict[str, Any]) -> None:
        """Nothing to print."""

    def finish(self) -> None:
        """Nothing to print."""


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
        limits = "a larger --num-epochs, --patience or --max-minutes goes on"
        text += f"; stopped before epoch {config.train.num_epochs}: {limits}"
    screen.say(text)
