"""Population-based training: members train side by side, and weak ones take over the state of strong ones.

Source: Jaderberg et al., Population Based Training of Neural Networks (2017): truncation selection, and settings
perturbed by a factor of 0.8 or 1.25.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ensue.errors import ConfigError
from ensue.files import read_json, write_json
from ensue.models import is_counted
from ensue.rng import stream
from ensue.runs.checkpoint import Checkpoint, load_checkpoint, numbered, save_checkpoint
from ensue.runs.config import RunConfig
from ensue.runs.folder import CHECKPOINTS
from ensue.runs.log import best_of
from ensue.terminal.output import duration
from ensue.tuning.space import Range, Space, changed, value_of
from ensue.tuning.trials import TRIALS, Search, Trial, check_about

STATE = "population.json"
MEMBERS, GENERATIONS = 6, 8
# This share of the members, the weakest, take over from as many of the strongest.
REPLACED = 1 / 3
FACTORS = (0.8, 1.25)


@dataclass
class Member:
    """A member after its last generation.

    Attributes:
        settings: the varied settings.
        run: its run folder, relative to the search's.
        generation: generations that it has trained.
        value: the value on validation after the last.
        best: the best value of its line.
        seconds: of its training.
        history: the settings of each generation, and the member whose state it began with.
    """

    settings: dict[str, Any]
    run: str = ""
    generation: int = 0
    value: float = 0.0
    best: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Population(Search):
    """A search whose members train side by side. Member 0 keeps the settings of the start, for comparison.

    The space has ranges of fractions only, which change no shape. The learning rate is constant, since the population
    changes it.
    """

    def __post_init__(self) -> None:
        """Check the space.

        Raises:
            ConfigError: the model is counted, or a setting cannot change during training.
        """
        if is_counted(self.config.model):
            raise ConfigError(f"model {self.config.model.name!r} is counted, not trained: use --sampler tpe")
        fixed = [name for name, axis in self.space.items() if not isinstance(axis, Range) or axis.whole]
        if fixed:
            raise ConfigError(
                f"--sampler population varies settings during training, and {fixed[0]} cannot change then: search "
                "fractions such as lr and dropout_rate"
            )
        self.config = changed(self.config, {"patience": 0, "schedule": "constant"})

    def run(self, budget: float, most: int | None = None) -> list[Trial]:
        """Train generations until the time, or the number of generations, is used up; return the members.

        Args:
            budget: seconds for the training of this and all earlier commands.
            most: the largest number of generations.

        Raises:
            OtherRunError: the folder contains a population of something else.
        """
        members = self._members()
        last = min(GENERATIONS, most or GENERATIONS)
        for generation in range(min(member.generation for member in members), last):
            spent = sum(member.seconds for member in members)
            if spent >= budget:
                break
            best = max(member.best for member in members)
            self.tell(
                f"generation {generation + 1} of {last}, best so far {best:.4f}; {duration(spent)} used, "
                f"{duration(budget - spent)} left"
            )
            if generation and all(member.generation == generation for member in members):
                self._select(members, generation)
                self._save(members)
            for number, member in enumerate(members):
                if member.generation == generation:
                    self._train(member, number, generation)
                    self._save(members)
        return [
            Trial(number, member.settings, member.best, "complete", member.seconds, member.run)
            for number, member in enumerate(members)
            if member.generation
        ]

    def importance(self) -> dict[str, float]:
        """Nothing: the settings of a member change while it trains."""
        return {}

    def _members(self) -> list[Member]:
        path = self.folder / STATE
        if path.exists():
            content = read_json(path)
            check_about(self.folder, content["about"], self.about())
            return [Member(**member) for member in content["members"]]
        self.folder.mkdir(parents=True, exist_ok=True)
        start = {name: value_of(self.config, name) for name in self.space}
        rng = stream(self.config.train.seed, "population")
        return [Member(start), *(Member(_drawn(self.space, rng)) for _ in range(MEMBERS - 1))]

    def _save(self, members: list[Member]) -> None:
        kept = {"about": self.about(), "members": [asdict(member) for member in members]}
        write_json(self.folder / STATE, kept)

    def _select(self, members: list[Member], generation: int) -> None:
        """The weakest members, but for the first, take over the state of strong ones, and perturbed settings."""
        rng = stream(self.config.train.seed, "population", generation)
        order = sorted(range(len(members)), key=lambda number: members[number].value)
        count = max(1, int(len(members) * REPLACED))
        for weak in order[:count]:
            strong = members[order[-1 - int(rng.integers(count))]]
            if weak:
                members[weak].settings = _perturbed(strong.settings, self.space, rng)
                members[weak].run = strong.run

    def _train(self, member: Member, number: int, generation: int) -> None:
        train = self.config.train
        epochs = max(1, round(train.num_epochs / GENERATIONS / train.eval_epochs)) * train.eval_epochs
        config = changed(self.config, {**member.settings, "num_epochs": epochs * (generation + 1)})
        run = f"{TRIALS}/{generation:02d}-{number}"
        if generation and not numbered(self.folder / run / CHECKPOINTS):
            self._take_over(self.folder / member.run, self.folder / run, config)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in member.settings.items())
        self.tell(f"member {number}: {shown}")
        began = time.monotonic()
        log = self.fit(config, self.store, self.folder / run, []).log
        label = f"validation {config.validation_label}"
        best = best_of(log, config.validation_label)
        member.value = next((record[label] for record in reversed(log) if label in record), 0.0)
        member.best = 0.0 if best is None else best[0]
        member.seconds += time.monotonic() - began
        member.history.append({"settings": dict(member.settings), "from": member.run})
        member.run, member.generation = run, generation + 1

    def _take_over(self, parent: Path, run: Path, config: RunConfig) -> None:
        """Begin a run with the newest checkpoint of another, under other settings."""
        newest = load_checkpoint(parent / CHECKPOINTS)
        assert newest is not None
        then = RunConfig.parse(newest.state["config"])
        own = config.replace(train=config.train.replace(num_epochs=then.train.num_epochs))
        state = {**newest.state, "config": own.model_dump(mode="json")}
        save_checkpoint(
            run / CHECKPOINTS, Checkpoint(newest.tensors, state), int(numbered(parent / CHECKPOINTS)[-1].name)
        )


def _drawn(space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """Settings drawn from the ranges."""
    drawn = {}
    for name, axis in space.items():
        assert isinstance(axis, Range)
        low, high = (np.log(axis.low), np.log(axis.high)) if axis.log else (axis.low, axis.high)
        value = float(rng.uniform(low, high))
        drawn[name] = float(np.exp(value)) if axis.log else value
    return drawn


def _perturbed(settings: dict[str, Any], space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """Settings times 0.8 or 1.25, within the ranges."""
    result = {}
    for name, axis in space.items():
        assert isinstance(axis, Range)
        result[name] = min(axis.high, max(axis.low, settings[name] * FACTORS[int(rng.integers(2))]))
    return result
