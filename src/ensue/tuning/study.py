"""A search by Optuna: its samplers and pruners by name, and its trials in a journal that several processes share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ensue.errors import ConfigError, TrainingError
from ensue.runs.lock import locked
from ensue.tuning.space import Axis, Choices, Space
from ensue.tuning.trials import JOURNAL, TRIALS, Ended, Trial, check_about

if TYPE_CHECKING:
    import optuna

SamplerName = Literal["tpe", "gp", "random", "grid"]
PrunerName = Literal["median", "halving", "none"]
# Random trials before a sampler that learns begins, the start of the search among them.
RANDOM_FIRST = 8
# Trials that a pruner lets pass, to learn from.
UNPRUNED = 4


def import_optuna() -> Any:
    """The module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError("ensue tune needs Optuna: pip install 'ensue[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's remarks on its experimental parts, which are named here on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=import_optuna().exceptions.ExperimentalWarning)
        yield


def make_sampler(name: SamplerName, seed: int) -> Any:
    """A sampler. All options are stated, since their defaults differ between releases of Optuna."""
    samplers = import_optuna().samplers
    with _quiet():
        if name in ("random", "grid"):
            # A grid is enqueued: Optuna's own sampler ends a study by a method that trials asked one by one cannot use.
            return samplers.RandomSampler(seed=seed)
        if name == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=RANDOM_FIRST, deterministic_objective=False)
        return samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_FIRST, multivariate=True, constant_liar=True)


def make_pruner(name: PrunerName) -> Any:
    """A pruner: of curves below the median of earlier trials, or outside the best third at 1, 3, 9, ... epochs."""
    pruners = import_optuna().pruners
    if name == "none":
        return pruners.NopPruner()
    if name == "halving":
        return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3, min_early_stopping_rate=0)
    return pruners.MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=0, interval_steps=1)


class Study:
    """A search in a folder: what Optuna keeps of it.

    Args:
        folder: of the search.
        about: what must not change when it goes on: data, settings, space and metric.
        space: what is varied.
        start: the settings of the first trial.
        sampler: the sampler's name.
        pruner: the pruner's name.
        seed: of the sampler.

    Raises:
        OtherRunError: the folder contains a search of something else.
    """

    def __init__(
        self, folder: Path, about: dict[str, Any], space: Space, start: dict[str, Any], sampler: SamplerName,
        pruner: PrunerName, seed: int,
    ) -> None:  # fmt: skip
        optuna = import_optuna()
        journal = optuna.storages.journal
        self.folder, self.space = folder, space
        with _quiet():
            storage = optuna.storages.JournalStorage(journal.JournalFileBackend(str(folder / JOURNAL)))
        self.study = optuna.create_study(
            storage=storage, study_name="ensue", direction="maximize", load_if_exists=True, pruner=make_pruner(pruner)
        )
        known = self.study.user_attrs.get("about")
        if known is None:
            self.study.set_user_attr("about", about)
        else:
            check_about(folder, known, about)
        if not self.study.trials:
            self.study.enqueue_trial(start)
            for values in product(*(axis.grid() for axis in space.values())) if sampler == "grid" else ():
                self.study.enqueue_trial(dict(zip(space, values, strict=True)), skip_if_exists=True)
        self.is_grid = sampler == "grid"
        # Another process, or the same command again, must not repeat the draws of this one.
        self.study.sampler = make_sampler(sampler, seed + len(self.study.trials))
        self._take_up_the_dead()

    @property
    def is_exhausted(self) -> bool:
        """Whether a grid has been tried whole, or is being tried."""
        return self.is_grid and not any(trial.state.name == "WAITING" for trial in self.study.trials)

    def ask(self) -> tuple[optuna.Trial, dict[str, Any]]:
        """A new trial, and its settings. One that was put back keeps its `run` and `minutes`."""
        with _quiet():
            trial = self.study.ask()
            return trial, {name: _suggested(trial, name, axis) for name, axis in self.space.items()}

    @contextmanager
    def working(self, trial: optuna.Trial, minutes: float) -> Iterator[tuple[str, float]]:
        """Hold a trial's run folder, so that other processes know that it is alive.

        Yields:
            The folder, relative to the search's, and the limit of its training; those of its first attempt, if there
            was one.
        """
        run = trial.user_attrs.get("run", f"{TRIALS}/{trial.number:04d}")
        limit = trial.user_attrs.get("minutes", minutes)
        (self.folder / run).mkdir(parents=True, exist_ok=True)
        with locked(self.folder / run):
            for name, value in (("run", run), ("minutes", limit), ("begun", True)):
                trial.set_user_attr(name, value)
            yield run, limit

    def tell(self, trial: optuna.Trial, value: float | None, state: str, seconds: float, reason: str = "") -> None:
        """End a trial: `complete` with its value, `pruned`, or `failed` for a reason."""
        import optuna

        trial.set_user_attr("seconds", seconds)
        if reason:
            trial.set_user_attr("reason", reason)
        states = optuna.trial.TrialState
        ended = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[state]
        self.study.tell(trial, value if state == "complete" else None, state=ended)

    def put_back(self, number: int) -> None:
        """End an interrupted trial, and enqueue its settings again; its training goes on from its checkpoint."""
        import optuna

        trial = self.study.trials[number]
        self.study.tell(number, state=optuna.trial.TrialState.FAIL)
        self.study.enqueue_trial(trial.params, {name: trial.user_attrs[name] for name in ("run", "minutes")})

    def trials(self) -> list[Trial]:
        """The trials that were begun; of those with the same run folder, the last attempt."""
        by_run = {each.user_attrs["run"]: each for each in self.study.trials if each.user_attrs.get("begun")}
        return [
            Trial(
                int(run.rpartition("/")[2]),
                dict(each.params),
                max(each.intermediate_values.values(), default=None) if each.value is None else each.value,
                _ended(each),
                float(each.user_attrs.get("seconds", 0.0)),
                run,
                str(each.user_attrs.get("reason", "")),
            )
            for run, each in sorted(by_run.items())
        ]

    def importance(self) -> dict[str, float]:
        """The share of the variance of the values that each setting explains; empty with too few trials.

        By fANOVA (Hutter, Hoos & Leyton-Brown, ICML 2014), which is named here because Optuna 5 has another default:
        PED-ANOVA measures what separates the best tenth of the trials, not what explains their values.
        """
        importance = import_optuna().importance
        try:
            shares = importance.get_param_importances(
                self.study, evaluator=importance.FanovaImportanceEvaluator(seed=0)
            )
        except (RuntimeError, ValueError):
            return {}
        return {name: float(share) for name, share in shares.items()}

    def _take_up_the_dead(self) -> None:
        """Put back the trials whose process was killed."""
        for trial in self.study.trials:
            if trial.state.name != "RUNNING" or not trial.user_attrs.get("begun"):
                continue
            with suppress(TrainingError), locked(self.folder / trial.user_attrs["run"]):
                # Another process may have put it back since this list was read.
                if self.study.trials[trial.number].state.name == "RUNNING":
                    self.put_back(trial.number)


def _ended(trial: optuna.trial.FrozenTrial) -> Ended:
    """How a trial ended; one that was put back still has to."""
    ends: dict[str, Ended] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    is_open = trial.state.name == "FAIL" and "reason" not in trial.user_attrs
    return "running" if is_open else ends.get(trial.state.name, "running")


def _suggested(trial: optuna.Trial, name: str, axis: Axis) -> Any:
    if isinstance(axis, Choices):
        return trial.suggest_categorical(name, axis.values)
    if axis.whole:
        return trial.suggest_int(name, int(axis.low), int(axis.high), log=axis.log)
    return trial.suggest_float(name, axis.low, axis.high, log=axis.log)
