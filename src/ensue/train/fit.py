"""Fit a model to data: the one entry point of the command line, `Recommender.fit`, ranks and the classic program."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ensue.data.featured import check_columns, columns_of_items, split_with_features
from ensue.data.split import Split
from ensue.data.store import SequenceStore
from ensue.data.transitions import fit_popularity
from ensue.models import Catalogue, Model, build_model, features_of, fit_counted, is_counted
from ensue.runs.checkpoint import numbered
from ensue.runs.config import RunConfig
from ensue.runs.folder import CHECKPOINTS, LOG, NEXT
from ensue.runs.load import load_run
from ensue.runs.log import Records, Watcher, read_log
from ensue.runs.run import Run, item_table
from ensue.runs.save import save_run
from ensue.runs.swap import swap
from ensue.runs.work import find_work, prepare_work
from ensue.train.distributed import World, join, writing
from ensue.train.interrupt import uninterrupted
from ensue.train.loop import Trainer

# Creates a trainer from settings, data, the folder it writes into, and watchers.
Begin = Callable[[RunConfig, Split, Path | None, Iterable[Watcher]], Trainer]


@dataclass(frozen=True)
class Fitted:
    """A fitted run.

    Attributes:
        run: the run.
        log: the records of its training.
        is_new: whether this call produced it; False for a finished run that was already in the folder.
    """

    run: Run
    log: Records
    is_new: bool


def fit(
    config: RunConfig,
    store: SequenceStore,
    folder: Path | None = None,
    watchers: Iterable[Watcher] = (),
    *,
    overwrite: bool = False,
    finish: bool = False,
    begin: Begin = Trainer,
) -> Fitted:
    """Fit the model on the training part of the split; keep the state that is best on validation.

    If the folder contains a finished run of the same data and settings, that run is returned; an interrupted training
    of them is resumed. With a larger `num_epochs` (or patience), both are continued. A run that is continued or
    replaced stays usable in the folder until the new one is complete. Under torchrun every rank calls this function,
    and only rank 0 reads and writes the folder.

    Args:
        config: the run's settings.
        store: the data.
        folder: where the run is saved: a new or empty folder, or one with a run to resume, continue or replace. None
            saves nothing.
        watchers: observers of the training.
        overwrite: replace a run of other settings, or a finished one.
        finish: train no further, and write the run from the best state of the training in the folder.
        begin: creates the trainer; for programs that extend it.

    Raises:
        ConfigError: the model needs more memory than is available, or the device does not exist.
        DataError: the training part has no events to predict.
        OtherRunError: the folder contains a run of other data or settings.
        TrainingError: another training writes there, a rank is lost, the loss is not finite, or there is no checkpoint
            to finish.
        ArtefactError: the folder contains files that ensue did not create.
        Interrupted: a signal ended the training; a checkpoint was written.
    """
    split, counted = split_with_features(store, config.split, features_of(config.model)), is_counted(config.model)
    world = join("cpu" if counted else config.train.device)
    if folder is None:
        model, log = _model_of(config, split, None if counted else begin(config, split, None, watchers), finish)
        return Fitted(_run_of(config, model, split), log, is_new=True)

    def look() -> str | None:
        return find_work(folder, config, store.fingerprint, overwrite, finish)

    place = world.broadcast_json(world.on_main(look))
    if place is None:
        return _finished(world, config, split, folder)
    work = folder / place
    trainer = None if counted else begin(config, split, work, watchers)
    with writing(world, folder):
        try:
            world.on_main(lambda: prepare_work(folder, work, config, store.fingerprint, overwrite))
            model, log = _model_of(config, split, trainer, finish)
            run = _run_of(config, model, split)
            world.on_main(lambda: uninterrupted(lambda: _save(folder, work, run, log)))
        finally:
            if world.is_main and place == NEXT and not numbered(work / CHECKPOINTS):
                shutil.rmtree(work, ignore_errors=True)
    return Fitted(run, log, is_new=True)


def _model_of(config: RunConfig, split: Split, trainer: Trainer | None, finish: bool) -> tuple[Model, Records]:
    """The trained or, without a trainer, counted model, and the log of its training."""
    if trainer is None:
        return _counted(config, split), []
    result = trainer.run(finish)
    return result.model, result.progress.records


def _counted(config: RunConfig, split: Split) -> Model:
    return fit_counted(config.model, Catalogue.of_store(split.train.store), split.train)


def _save(folder: Path, work: Path, run: Run, log: Records) -> None:
    save_run(work, run, log)
    if work != folder:
        swap(folder)


def _finished(world: World, config: RunConfig, split: Split, folder: Path) -> Fitted:
    """The finished run in the folder, which only rank 0 can read."""

    def load() -> Run:
        run = load_run(folder)
        check_columns(folder, split.train.store, columns_of_items(run.items, run.features))
        return run

    run = world.on_main(load)
    if is_counted(config.model):
        run = run or _run_of(config, _counted(config, split), split)
    else:
        run = run or _run_of(config, build_model(config.model, Catalogue.of_store(split.train.store)), split)
        world.broadcast_state(run.model.to(world.device))
    return Fitted(run, world.broadcast_json(read_log(folder / LOG) if world.is_main else []), is_new=False)


def _run_of(config: RunConfig, model: Model, split: Split) -> Run:
    store = split.train.store
    items = item_table(store, fit_popularity(split.train))
    features = () if store.inputs is None else store.inputs.features
    widths = {name: array.shape[1] for name, array in store.vectors.items()}
    data = (store.fingerprint, store.folder, store.num_users, features, widths, store.made)
    return Run(config, model.eval(), store.item_ids, items, *data)
