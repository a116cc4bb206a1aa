"""Search for better settings: trials within a time, judged on validation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensue.data.split import make_split
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError, DataError, EnsueError
from ensue.evaluation.evaluate import evaluate
from ensue.models import is_counted
from ensue.runs.log import Records, best_of, epochs_of
from ensue.runs.run import Run
from ensue.terminal.output import duration
from ensue.tuning import trials
from ensue.tuning.space import changed, value_of
from ensue.tuning.study import PrunerName, SamplerName, Study

if TYPE_CHECKING:
    import optuna


# A search ends when this number of trials has failed and no other has ended: a trial that fails at once uses no budget.
HOPELESS = 8


class PrunedError(Exception):
    """Ends a training whose curve on validation is too low."""


@dataclass
class Tuner(trials.Search):
    """A search by trials, which a sampler proposes.

    Attributes:
        sampler: proposes settings.
        pruner: stops trials early.
        study: of the last `run`.
    """

    sampler: SamplerName = "tpe"
    pruner: PrunerName = "median"
    study: Study | None = None

    def importance(self) -> dict[str, float]:
        """The share of the variance of the trials' values that each setting explains; empty before `run`."""
        return {} if self.study is None else self.study.importance()

    def run(self, budget: float, most: int | None = None) -> list[trials.Trial]:
        """Run trials until the time or their number is used up, and return all that were begun.

        Several processes may run the same search at once; the time is what their trials take together. The first
        trial, of the start, is never pruned, so the best is never below it. If the first `HOPELESS` trials all fail,
        the search ends.

        Args:
            budget: seconds for the trials of this and all earlier commands.
            most: the largest number of trials.

        Raises:
            DataError: the split has no validation cases.
            OtherRunError: the folder contains a search of something else.
            KeyboardInterrupt: a signal ended a training; the same command resumes it.
        """
        if not len(make_split(self.store, self.config.split).validation):
            raise DataError("tuning needs validation cases, and the split has none: choose another --split")
        self.folder.mkdir(parents=True, exist_ok=True)
        names = {name: value_of(self.config, name) for name in self.space}
        study = Study(self.folder, self.about(), self.space, names, self.sampler, self.pruner, self.config.train.seed)
        self.study = study
        while True:
            done = study.trials()
            left = budget - sum(trial.seconds for trial in done)
            tried = [trial for trial in done if trial.state != "running"]
            is_hopeless = len(tried) >= HOPELESS and all(trial.state == "failed" for trial in tried)
            if is_hopeless or left <= 0 or (most is not None and len(tried) >= most) or study.is_exhausted:
                return done
            best = trials.best_of(done)
            so_far = "" if best is None else f"; best so far {best.value:.4f}"
            self.tell(f"trial {len(done)}{so_far}; {duration(budget - left)} used, {duration(left)} left")
            self._trial(study, left)

    def _trial(self, study: Study, left: float) -> None:
        trial, settings = study.ask()
        began = time.monotonic()
        with study.working(trial, left / 60) as (run, minutes):
            try:
                value = self._value_of(settings, trial, self.folder / run, minutes)
            except PrunedError:
                study.tell(trial, None, "pruned", time.monotonic() - began)
            except KeyboardInterrupt:
                study.put_back(trial.number)
                raise
            except EnsueError as error:
                self.tell(f"failed: {error}")
                study.tell(trial, None, "failed", time.monotonic() - began, str(error))
            else:
                study.tell(trial, value, "complete", time.monotonic() - began)

    def _value_of(self, settings: dict[str, Any], trial: optuna.Trial, run: Path, minutes: float) -> float:
        """Train and return the best value on validation.

        Raises:
            ConfigError: the settings contradict each other, or nothing was evaluated in the time left.
        """
        own = self.config.train.max_minutes
        limit = min(minutes, own) if own else minutes
        counted = is_counted(self.config.model)
        config = changed(self.config, settings if counted else {**settings, "max_minutes": limit})
        self.tell(
            ", ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in settings.items()
            )
        )
        pruning = _Pruning(trial, f"validation {config.validation_label}", spared=run.name == "0000")
        fitted = self.fit(config, self.store, run, [] if counted else [pruning])
        if counted:
            return validated(fitted.run, self.store)
        best = best_of(fitted.log, config.validation_label)
        if best is None:
            raise ConfigError("no epoch was evaluated in the time left")
        return best[0]


def validated(run: Run, store: SequenceStore) -> float:
    """The validation metric of a run, under the protocol that training uses."""
    split = make_split(store, run.config.split)
    standings = evaluate(run.model, split.validation, run.config.validation, split.train)
    return float(standings.metric(run.config.train.validation_metric).mean())


class _Pruning:
    """A watcher that gives the curve on validation to the pruner, and ends the training if it is too low."""

    def __init__(self, trial: optuna.Trial, name: str, spared: bool) -> None:
        self.trial, self.name, self.spared = trial, name, spared

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        """Report the epochs before an interruption."""
        for record in epochs_of(records):
            self.report(record)

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Do nothing."""

    def record(self, record: dict[str, Any]) -> None:
        """Report an epoch.

        Raises:
            PrunedError: its value is too low.
        """
        if self.report(record) and not self.spared and self.trial.should_prune():
            raise PrunedError

    def report(self, record: dict[str, Any]) -> bool:
        """Report the value of an epoch; False if it was not evaluated."""
        if self.name in record:
            self.trial.report(record[self.name], record["epoch"])
        return self.name in record

    def finish(self) -> None:
        """Do nothing."""
