"""One `fit` for all callers: runs that are taken, continued, replaced and finished early."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from ensue.data.split import Split
from ensue.data.store import SequenceStore
from ensue.errors import ArtefactError, OtherRunError, TrainingError
from ensue.files import MANIFEST
from ensue.recommender import Recommender
from ensue.runs.checkpoint import numbered
from ensue.runs.config import RunConfig
from ensue.runs.folder import CHECKPOINTS, LOG, NEXT
from ensue.runs.load import load_run
from ensue.runs.log import Records, Watcher, epochs_of, read_log
from ensue.runs.run import Run
from ensue.train.fit import Fitted, fit
from ensue.train.loop import Trainer

Tiny = Callable[..., RunConfig]


class StopAfter:
    """A watcher that ends the training after some epochs, as a kill would."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None: ...

    def step(self, epoch: int, step: int, loss: float) -> None:
        if epoch >= self.epochs:
            raise KeyboardInterrupt

    def record(self, record: dict[str, Any]) -> None: ...

    def finish(self) -> None: ...


@pytest.fixture(name="store")
def _store(split: Split) -> SequenceStore:
    return split.train.store


def stopped(config: RunConfig, store: SequenceStore, folder: Path, epochs: int, overwrite: bool = False) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(config, store, folder, [StopAfter(epochs)], overwrite=overwrite)


def same(a: Run, b: Run) -> bool:
    other = b.model.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.model.state_dict().items())


def story(fitted: Fitted) -> Records:
    return [{key: value for key, value in record.items() if "seconds" not in key} for record in fitted.log]


def no_training(config: RunConfig, split: Split, folder: Path | None, watchers: Iterable[Watcher]) -> Trainer:
    raise AssertionError("trained")


def test_a_larger_number_of_epochs_continues_a_finished_run(tiny: Tiny, store: SequenceStore, tmp_path: Path) -> None:
    """In every bit as if it had been asked for at first; the first run answers until the longer one is whole."""
    expected = fit(tiny(num_epochs=5, patience=0), store, tmp_path / "whole")
    first = fit(tiny(num_epochs=2, patience=0), store, tmp_path / "run")
    stopped(tiny(num_epochs=5, patience=0), store, tmp_path / "run", epochs=3)
    assert same(load_run(tmp_path / "run"), first.run)
    assert len(read_log(tmp_path / "run" / LOG)) == 2
    stopped(tiny(num_epochs=5, patience=0), store, tmp_path / "run", epochs=4)
    longer = fit(tiny(num_epochs=5, patience=0), store, tmp_path / "run")
    assert longer.is_new
    assert story(longer) == story(expected)
    assert same(load_run(tmp_path / "run"), expected.run)
    assert not (tmp_path / "run" / NEXT).exists()
    assert not fit(tiny(num_epochs=5, patience=0), store, tmp_path / "run", begin=no_training).is_new
    with pytest.raises(OtherRunError, match=r"train\.num_epochs: 2 now, 5 then"):
        fit(tiny(num_epochs=2, patience=0), store, tmp_path / "run")


def test_a_larger_number_of_epochs_continues_an_interrupted_run(
    tiny: Tiny, store: SequenceStore, tmp_path: Path
) -> None:
    stopped(tiny(num_epochs=3, patience=0), store, tmp_path / "run", epochs=1)
    longer = fit(tiny(num_epochs=5, patience=0), store, tmp_path / "run")
    assert same(longer.run, fit(tiny(num_epochs=5, patience=0), store).run)


def test_a_run_that_its_time_stopped_goes_on_when_it_is_given_more(
    tiny: Tiny, store: SequenceStore, tmp_path: Path
) -> None:
    first = fit(tiny(num_epochs=3, max_minutes=1e-9), store, tmp_path)
    assert len(epochs_of(first.log)) == 1
    # A command that does not name the limit, which was set by the data, finds the run finished.
    assert not fit(tiny(num_epochs=3), store, tmp_path).is_new
    longer = fit(tiny(num_epochs=3, max_minutes=0), store, tmp_path)
    assert len(epochs_of(longer.log)) == 3


def test_a_run_that_patience_stopped_goes_on(tiny: Tiny, store: SequenceStore, tmp_path: Path) -> None:
    """With more patience as if it had had it at first; with more epochs alone, patience counts anew."""
    short = fit(tiny(num_epochs=30, patience=1, lr=0.3), store, tmp_path)
    count = len(short.log)
    assert count < 30
    longer = fit(tiny(num_epochs=30, patience=3, lr=0.3), store, tmp_path)
    assert story(longer) == story(fit(tiny(num_epochs=30, patience=3, lr=0.3), store))
    more = fit(tiny(num_epochs=40, patience=3, lr=0.3), store, tmp_path)
    assert len(more.log) >= len(longer.log) + 1


def test_a_run_without_checkpoints_cannot_be_continued(tiny: Tiny, store: SequenceStore, tmp_path: Path) -> None:
    recommender = Recommender.from_config(tiny(num_epochs=1)).fit(store)
    recommender.save(tmp_path)
    with pytest.raises(OtherRunError, match="no checkpoint to continue from"):
        fit(tiny(num_epochs=2), store, tmp_path)
    assert not fit(tiny(num_epochs=1), store, tmp_path, begin=no_training).is_new


def test_patience_needs_steps_too(tiny: Tiny, store: SequenceStore) -> None:
    """Three steps make an epoch: 12 steps without a better value are four epochs, whatever the patience."""
    by_evaluations = fit(tiny(num_epochs=40, patience=1, lr=0.3), store)
    by_steps = fit(tiny(num_epochs=40, patience=1, patience_steps=12, lr=0.3), store)
    best = [max(range(len(log)), key=lambda i: log[i]["validation ndcg@10"]) + 1 for log in (by_steps.log,)]
    assert len(by_evaluations.log) < len(by_steps.log) == best[0] + 4


def test_finish_writes_the_best_state_so_far(tiny: Tiny, store: SequenceStore, tmp_path: Path) -> None:
    config = tiny(num_epochs=9, patience=0)
    with pytest.raises(TrainingError, match="no checkpoint to finish"):
        fit(config, store, tmp_path / "run", finish=True)
    stopped(config, store, tmp_path / "run", epochs=3)
    with pytest.raises(ArtefactError, match="add --finish"):
        load_run(tmp_path / "run")
    early = fit(config, store, tmp_path / "run", finish=True)
    assert len(early.log) == 3
    assert same(load_run(tmp_path / "run"), fit(tiny(num_epochs=3, patience=0), store).run)
    assert not fit(config, store, tmp_path / "run", finish=True, begin=no_training).is_new
    # The same command without it goes on to the end that was asked for.
    whole = fit(config, store, tmp_path / "run")
    assert len(epochs_of(whole.log)) == 9
    assert same(whole.run, fit(config, store).run)


@pytest.mark.parametrize("model", ["sasrec", "markov"])
def test_a_run_stays_until_its_successor_is_whole(tiny: Tiny, store: SequenceStore, tmp_path: Path, model: str) -> None:
    old = Recommender(model, maxlen=6, num_epochs=1, device="cpu") if model == "sasrec" else Recommender(model)
    old.fit(store, tmp_path)
    assert old.run is not None
    config = tiny(num_epochs=4, lr=0.02)
    with pytest.raises(OtherRunError):
        fit(config, store, tmp_path)
    stopped(config, store, tmp_path, epochs=0, overwrite=True)
    assert not (tmp_path / NEXT).exists()  # nothing was worth keeping
    stopped(config, store, tmp_path, epochs=2, overwrite=True)
    assert same(load_run(tmp_path), old.run)
    (newest,) = numbered(tmp_path / NEXT / CHECKPOINTS)[-1:]
    stopped(config, store, tmp_path, epochs=3, overwrite=True)
    assert numbered(tmp_path / NEXT / CHECKPOINTS)[-1] > newest
    assert same(fit(config, store, tmp_path, overwrite=True).run, fit(config, store).run)
    assert load_run(tmp_path).config == config
    assert not (tmp_path / NEXT).exists()


def test_a_third_run_does_not_take_up_the_second_ones_checkpoint(
    tiny: Tiny, store: SequenceStore, tmp_path: Path
) -> None:
    fit(tiny(num_epochs=1), store, tmp_path)
    stopped(tiny(lr=0.02), store, tmp_path, epochs=2, overwrite=True)
    third = fit(tiny(lr=0.03), store, tmp_path, overwrite=True)
    assert same(third.run, fit(tiny(lr=0.03), store).run)


def test_an_unfinished_run_of_other_settings_is_replaced(tiny: Tiny, store: SequenceStore, tmp_path: Path) -> None:
    stopped(tiny(), store, tmp_path, epochs=1)
    stopped(tiny(lr=0.02), store, tmp_path, epochs=2, overwrite=True)
    assert numbered(tmp_path / CHECKPOINTS)
    assert not (tmp_path / MANIFEST).exists()
    assert same(fit(tiny(lr=0.02), store, tmp_path, overwrite=True).run, fit(tiny(lr=0.02), store).run)
    assert load_run(tmp_path).config.train.lr == 0.02


def test_files_of_others_stop_a_replacement_before_it_starts(tiny: Tiny, store: SequenceStore, tmp_path: Path) -> None:
    fit(tiny(num_epochs=1), store, tmp_path)
    (tmp_path / "notes.txt").write_text("years of work")
    with pytest.raises(ArtefactError, match=r"notes\.txt: ensue did not create this file"):
        fit(tiny(lr=0.02), store, tmp_path, overwrite=True, begin=no_training)


def test_a_whole_successor_takes_its_place_with_the_next_command(
    tiny: Tiny, store: SequenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the last write of the new run and the first removal of the old one, or after that."""
    fit(tiny(num_epochs=1), store, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("ensue.train.fit.swap", lambda _: None)
        second = fit(tiny(lr=0.02), store, tmp_path, overwrite=True)
    assert load_run(tmp_path).config.train.lr == 0.01
    (tmp_path / MANIFEST).unlink()
    assert same(load_run(tmp_path), second.run)
    assert not fit(tiny(lr=0.02), store, tmp_path, begin=no_training).is_new
