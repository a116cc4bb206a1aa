"""Train and measure the models of a bench, within its budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ensue.data.featured import split_with_features
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError, EnsueError, counted
from ensue.leaderboard.budget import shares
from ensue.leaderboard.measure import measured
from ensue.leaderboard.state import RUNS, Row, State
from ensue.models import Catalogue, check_fits, features_of, is_counted
from ensue.recipes.auto import Choice
from ensue.recipes.estimate import Estimate, estimate
from ensue.recipes.planning import Configure, within
from ensue.recipes.suited import suited
from ensue.recommender import Recommender
from ensue.runs.config import RunConfig
from ensue.runs.log import epochs_of
from ensue.runtime.memory import begin_peak
from ensue.terminal.output import duration
from ensue.train.fit import Fitted

Fit = Callable[[RunConfig, SequenceStore, Path], Fitted]


@dataclass(frozen=True)
class Plan:
    """The settings of a model, and the seconds that it needs.

    Attributes:
        configure: gives the settings for a number of epochs.
        choice: the settings of the recipe.
        cost: the measured duration of its steps; None for a model that is counted.
        need: seconds of training and evaluation; 0 for a model that is counted.
    """

    configure: Configure
    choice: Choice
    cost: Estimate | None
    need: float


@dataclass
class Bench:
    """Models on one data set.

    Attributes:
        store: the data.
        folder: of the bench; each model has a run folder in `runs`.
        state: what was done so far.
        settings: settings of every model, by flat names.
        budget: seconds for everything.
        fit: trains a model into a folder.
        tell: prints a line.
    """

    store: SequenceStore
    folder: Path
    state: State
    settings: Mapping[str, Any]
    budget: float
    fit: Fit
    tell: Callable[[str], None]
    _began: float = field(default_factory=time.monotonic)

    def run(self, names: list[str]) -> None:
        """Train and measure every model that is not finished; a refused one is tried again."""
        self._began = time.monotonic() - self.state.spent
        waiting = [self.state.rows[name] for name in names if self.state.rows[name].status != "finished"]
        if len(waiting) < len(names):
            self.tell(f"finished before: {', '.join(name for name in names if name not in {r.name for r in waiting})}")
        begun = [row for row in waiting if row.status == "begun"]
        for number, row in enumerate(begun, 1):
            self._attempt(row, f"{number} of {len(waiting)}", self._resume)
        plans = self._plans([row for row in waiting if row not in begun])
        needs = {name: plan.need for name, plan in plans.items()}
        for name in sorted(needs, key=needs.__getitem__):
            share = shares(needs, self.budget - self._spent())[name]
            del needs[name]
            number = len(waiting) - len(needs)
            self._attempt(
                self.state.rows[name], f"{number} of {len(waiting)}", partial(self._begin, plans[name], share)
            )

    def _spent(self) -> float:
        return time.monotonic() - self._began

    def _save(self) -> None:
        self.state.spent = self._spent()
        self.state.save(self.folder)

    def _plans(self, rows: list[Row]) -> dict[str, Plan]:
        """The plans of rows; one that cannot use the data or the protocol is refused."""
        plans: dict[str, Plan] = {}
        for number, row in enumerate(rows, 1):
            try:
                plans[row.name] = self._plan(row, f"{number} of {len(rows)}")
            except EnsueError as error:
                self._refuse(row, error)
        return plans

    def _plan(self, row: Row, about: str) -> Plan:
        configure = suited(row.name, self.settings)
        choice = configure(self.store, None)
        config = choice.config
        row.recipe = choice.what.partition(":")[0]
        if config.evaluate.key != self.state.about["protocol"]:
            raise ConfigError(
                f"reads the time of the request, so its protocol is {config.evaluate.key}, "
                f"not {self.state.about['protocol']}"
            )
        if config.model.reads_times and self.store.times is None:
            raise ConfigError("reads the times of events, and the data has none: ensue prepare LOG --time COLUMN")
        if is_counted(config.model):
            return Plan(configure, choice, None, 0.0)
        check_fits(config.model, Catalogue.of_store(self.store))
        cost = estimate(config, split_with_features(self.store, config.split, features_of(config.model)))
        need, epochs = cost.total(config.train) + 2 * cost.test, config.train.num_epochs
        self.tell(
            f"measured {about}: {row.name}, {row.recipe}: at most {duration(need)} for {counted(epochs, 'epoch')}"
        )
        return Plan(configure, choice, cost, need)

    def _attempt(self, row: Row, about: str, work: Callable[[Row], Fitted]) -> None:
        """Train and measure one model."""
        left = max(0.0, self.budget - self._spent())
        self.tell(f"{about}: {row.name}, {row.recipe}; {duration(self._spent())} used, {duration(left)} left")
        begin_peak()
        began = time.monotonic()
        try:
            fitted = work(row)
            records = epochs_of(fitted.log)
            trained = sum(record["seconds"] + record.get("validation seconds", 0.0) for record in records)
            trained = trained if records else time.monotonic() - began
            results = measured(Recommender.from_run(fitted.run, fitted.log), self.store, self.folder / RUNS / row.name)
        except KeyboardInterrupt:
            self._save()
            raise
        except EnsueError as error:
            self._refuse(row, error)
            return
        row.results = {"epochs": len(records), "train_seconds": round(trained, 3), **results}
        row.status = "finished"
        self._save()

    def _begin(self, plan: Plan, share: float, row: Row) -> Fitted:
        config = plan.choice.config
        if plan.cost is not None:
            seconds = share - 2 * plan.cost.test
            if seconds <= 0:
                raise ConfigError(
                    f"ranking all cases twice takes about {duration(2 * plan.cost.test)}, and its share of the budget "
                    f"is {duration(share)}: raise --budget, or use --protocol uniform-100"
                )
            config = within(plan.configure, self.store, plan.choice, plan.cost, seconds).config
            if config.train.max_minutes is None:
                config = config.replace(train=config.train.replace(max_minutes=seconds / 60))
        row.status, row.reason, row.config = "begun", "", config.model_dump(mode="json")
        self._save()
        return self.fit(config, self.store, self.folder / RUNS / row.name)

    def _resume(self, row: Row) -> Fitted:
        assert row.config is not None
        return self.fit(RunConfig.parse(row.config), self.store, self.folder / RUNS / row.name)

    def _refuse(self, row: Row, error: EnsueError) -> None:
        row.status, row.reason = "refused", str(error).removeprefix("setting ")
        self.tell(f"{row.name} is left out: {row.reason}")
        self._save()
