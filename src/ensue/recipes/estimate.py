"""An estimate of the duration of a training, measured on its first steps."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensue.data.split import Cases, Split
from ensue.evaluation.evaluate import evaluate
from ensue.evaluation.protocol import EvaluateConfig
from ensue.rng import stream
from ensue.runs.config import RunConfig, TrainConfig
from ensue.runs.log import Records
from ensue.runtime.devices import cpu_threads
from ensue.train.loop import Trainer

# Limits of the measurement, in steps and in seconds. The first steps, which allocate memory, are not counted.
WARM_UP, STEPS, SECONDS = 2, 12, 10.0
# Number of validation cases ranked, from which the duration of a whole evaluation is estimated.
CASES = 512
# The same for an evaluation by another protocol than validation's, which may be much slower.
FEW_CASES = 32
# A margin makes the estimate an upper bound, since the speed of a machine varies over an hour.
MARGIN = 1.25


@dataclass(frozen=True, slots=True)
class Estimate:
    """The duration of a run in seconds, including the margin.

    Attributes:
        epoch: seconds of one epoch of training.
        validation: seconds of one evaluation on validation.
        test: seconds of the evaluation on test.
    """

    epoch: float
    validation: float
    test: float = 0.0

    def total(self, train: TrainConfig) -> float:
        """Seconds of all epochs and evaluations with these settings, without early stopping."""
        return train.num_epochs * self.epoch + math.ceil(train.num_epochs / train.eval_epochs) * self.validation


def estimate(config: RunConfig, split: Split) -> Estimate:
    """Measure the first steps of a training and the ranking of some validation cases; nothing is saved.

    Args:
        config: the run's settings; the model must be one that is trained, not counted.
        split: the data.

    Raises:
        DataError: the training part has no events to predict.
        TrainingError: the loss of these steps is not finite.
    """
    stopwatch = Stopwatch()
    # Every epoch has at least one step, so enough steps are taken before the only evaluation, after epoch STEPS.
    short = config.train.replace(num_epochs=STEPS, eval_epochs=STEPS)
    trainer = Trainer(config.replace(train=short), split, None, [stopwatch])
    with suppress(EnoughError):
        trainer.run()
    validation = _ranking(trainer, trainer.validation, config.validation, CASES)
    test = validation
    if config.validation.key != config.evaluate.key:
        test = _ranking(trainer, trainer.validation, config.evaluate, FEW_CASES)
    test *= len(split.test) / max(1, len(trainer.validation))
    return Estimate(MARGIN * stopwatch.seconds_per_epoch(), MARGIN * validation, MARGIN * test)


def _ranking(trainer: Trainer, cases: Cases, protocol: EvaluateConfig, count: int) -> float:
    """Seconds of ranking all cases, measured on `count` of them; 0 without cases."""
    if not len(cases):
        return 0.0
    train = trainer.config.train
    sample = _some(cases, train.seed, count)
    with cpu_threads(train.threads):
        started = time.perf_counter()
        evaluate(trainer.model, sample, protocol, trainer.split.train)
    return (time.perf_counter() - started) * len(cases) / len(sample)


def _some(cases: Cases, seed: int, count: int) -> Cases:
    if len(cases) <= count:
        return cases
    return cases.take(np.sort(stream(seed, "estimate").choice(len(cases), count, replace=False)))


class EnoughError(Exception):
    """Raised by the stopwatch to end a training whose speed is being measured."""


class Stopwatch:
    """A watcher that times the steps of a training and ends it.

    Attributes:
        steps: steps per epoch.
        seconds: duration of each step so far.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.seconds: list[float] = []
        self.began = 0.0

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        """Note the start of training."""
        self.steps, self.began = steps, time.perf_counter()

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Record the duration of a step, and end the training after enough steps.

        Raises:
            EnoughError: enough steps were measured.
        """
        now = time.perf_counter()
        self.seconds.append(now - self.began)
        self.began = now
        if len(self.seconds) >= STEPS or (len(self.seconds) > WARM_UP and sum(self.seconds) >= SECONDS):
            raise EnoughError

    def record(self, record: dict[str, Any]) -> None:
        """Do nothing."""
        self.began = time.perf_counter()

    def finish(self) -> None:
        """Do nothing."""

    def seconds_per_epoch(self) -> float:
        """The steps per epoch times the mean duration of the steps after the first ones."""
        return self.steps * sum(self.seconds[WARM_UP:]) / len(self.seconds[WARM_UP:])
