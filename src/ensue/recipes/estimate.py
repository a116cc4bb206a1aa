"""How long a training takes, measured on its first steps."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensue.data.split import Cases, Split
from ensue.evaluation.evaluate import evaluate
from ensue.rng import stream
from ensue.runs.config import RunConfig, TrainConfig
from ensue.runs.log import Records
from ensue.runtime.devices import cpu_threads
from ensue.train.loop import Trainer

# Steps measured, at most for so many seconds. The first ones, which allocate memory, are not counted.
WARM_UP, STEPS, SECONDS = 2, 12, 10.0
# Validation cases ranked, to measure what ranking all of them takes.
CASES = 512
# The estimate is stated as an upper bound: a machine does not run at one speed for an hour.
MARGIN = 1.25


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run takes, in seconds, margin included.

    Attributes:
        epoch: of one epoch of training.
        validation: of one evaluation on validation.
    """

    epoch: float
    validation: float

    def total(self, train: TrainConfig) -> float:
        """Seconds of all epochs and evaluations of these settings, if nothing ends the training early."""
        return train.num_epochs * self.epoch + math.ceil(train.num_epochs / train.eval_epochs) * self.validation


def estimate(config: RunConfig, split: Split) -> Estimate:
    """Measure the first steps of a training, and the ranking of some validation cases; nothing is kept.

    Args:
        config: the run's settings; the model is not one that only counts.
        split: the data.

    Raises:
        DataError: there is nothing to train on.
        TrainingError: the loss of these steps is not finite.
    """
    stopwatch = Stopwatch()
    # Every epoch has a step, so enough steps are done before the only evaluation, after epoch STEPS.
    short = config.train.replace(num_epochs=STEPS, eval_epochs=STEPS)
    trainer = Trainer(config.replace(train=short), split, None, [stopwatch])
    with suppress(EnoughError):
        trainer.run()
    cases = trainer.validation
    validation = 0.0
    if len(cases):
        sample = _some(cases, config.train.seed)
        with cpu_threads(config.train.threads):
            started = time.perf_counter()
            evaluate(trainer.model, sample, config.validation, split.train)
        validation = (time.perf_counter() - started) * len(cases) / len(sample)
    return Estimate(MARGIN * stopwatch.seconds_per_epoch(), MARGIN * validation)


def _some(cases: Cases, seed: int) -> Cases:
    if len(cases) <= CASES:
        return cases
    return cases.take(np.sort(stream(seed, "estimate").choice(len(cases), CASES, replace=False)))


class EnoughError(Exception):
    """Raised by the stopwatch to end a training that is only measured."""


class Stopwatch:
    """A watcher that times the steps of a training and ends it.

    Attributes:
        steps: steps of an epoch.
        seconds: of each step so far.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.seconds: list[float] = []
        self.began = 0.0

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        """Training starts."""
        self.steps, self.began = steps, time.perf_counter()

    def step(self, epoch: int, step: int, loss: float) -> None:
        """A step is done: note its time, and end the training after enough of them.

        Raises:
            EnoughError: enough steps were measured.
        """
        now = time.perf_counter()
        self.seconds.append(now - self.began)
        self.began = now
        if len(self.seconds) >= STEPS or (len(self.seconds) > WARM_UP and sum(self.seconds) >= SECONDS):
            raise EnoughError

    def record(self, record: dict[str, Any]) -> None:
        """An epoch is done."""
        self.began = time.perf_counter()

    def finish(self) -> None:
        """Training ended."""

    def seconds_per_epoch(self) -> float:
        """Steps of an epoch times the mean of the steps after the warm-up."""
        return self.steps * sum(self.seconds[WARM_UP:]) / len(self.seconds[WARM_UP:])
