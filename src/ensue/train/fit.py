"""Fit a model to data: what the command line, `Recommender.fit`, the ranks and the classic program all call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ensue.data.split import Split, make_split
from ensue.data.store import SequenceStore
from ensue.data.transitions import fit_popularity
from ensue.models import Catalogue, Model, build_model, fit_counted, is_counted
from ensue.runs.config import RunConfig
from ensue.runs.folder import LOG
from ensue.runs.load import is_finished, load_run
from ensue.runs.log import Records, Watcher, read_log
from ensue.runs.run import Run, item_table
from ensue.runs.save import save_run
from ensue.train.distributed import World, join, writing
from ensue.train.loop import Trainer

# Makes the trainer of some settings and data that writes into a folder.
Begin = Callable[[RunConfig, Split, Path | None, Iterable[Watcher]], Trainer]


@dataclass(frozen=True)
class Fitted:
    """A fitted run.

    Attributes:
        run: the run.
        log: the records of its training.
        is_new: whether it was fitted now; False for a finished run that was in the folder.
    """

    run: Run
    log: Records
    is_new: bool


def fit(
    config: RunConfig,
    store: SequenceStore,
    folder: Path | None = None,
    watchers: Iterable[Watcher] = (),
    begin: Begin = Trainer,
) -> Fitted:
    """Fit the model on the training part of the split; the best state on validation is kept.

    A finished run of the same data and settings in the folder is returned as it is. An interrupted training there
    resumes. Under torchrun every rank calls this, and rank 0 alone reads and writes the folder.

    Args:
        config: the run's settings.
        store: the data.
        folder: the run folder, new or empty at first; the run is saved there. None keeps nothing on disk.
        watchers: objects that follow the training.
        begin: makes the trainer, for programs that extend it.

    Raises:
        ConfigError: the model needs more memory than there is, or the device does not exist.
        DataError: there is nothing to train on.
        OtherRunError: the folder holds a run of other data or settings.
        TrainingError: another training writes there, a rank is lost, or the loss is not finite.
        ArtefactError: the folder contains files that ensue did not create.
    """
    split, counted = make_split(store, config.split), is_counted(config.model)
    world = join("cpu" if counted else config.train.device)
    is_done = folder is not None and world.on_main(lambda: is_finished(folder, config, store.fingerprint))
    if folder is not None and world.broadcast_json(is_done):
        return _finished(world, config, split, folder)
    log: Records = []
    if counted:
        run = _run_of(config, _counted(config, split), split)
        _save(world, folder, run, log)
    else:
        trainer = begin(config, split, folder, watchers)
        with writing(world, folder):
            result = trainer.run()
            run, log = _run_of(config, result.model, split), result.progress.records
            _save(world, folder, run, log)
    return Fitted(run, log, is_new=True)


def _finished(world: World, config: RunConfig, split: Split, folder: Path) -> Fitted:
    """The finished run in the folder, which rank 0 alone can read."""
    run = world.on_main(lambda: load_run(folder))
    if is_counted(config.model):
        run = run or _run_of(config, _counted(config, split), split)
    else:
        run = run or _run_of(config, build_model(config.model, Catalogue.of_store(split.train.store)), split)
        world.broadcast_state(run.model.to(world.device))
    return Fitted(run, world.broadcast_json(read_log(folder / LOG) if world.is_main else []), is_new=False)


def _save(world: World, folder: Path | None, run: Run, log: Records) -> None:
    if folder is not None:
        world.on_main(lambda: save_run(folder, run, log))


def _counted(config: RunConfig, split: Split) -> Model:
    return fit_counted(config.model, Catalogue.of_store(split.train.store), split.train)


def _run_of(config: RunConfig, model: Model, split: Split) -> Run:
    store = split.train.store
    items = item_table(store, fit_popularity(split.train))
    return Run(config, model.eval(), store.item_ids, items, store.fingerprint, store.folder)
