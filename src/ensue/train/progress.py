"""The progress of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

from ensue.runs.config import TrainConfig


@dataclass
class Progress:
    """The progress of a training; a checkpoint stores all of it.

    Attributes:
        epoch: completed epochs.
        step: completed steps of the current epoch.
        loss_sum: sum of the loss over the targets of the epoch so far; `targets` is their number.
        norm_sum: sum of the gradient norms of `norm_steps` steps of the epoch so far; `norm_max` is the largest.
        best: the best value of the validation metric, after `best_epoch` epochs.
        evaluations_without_better: evaluations since `best_epoch`.
        reductions: how often evaluations without a better value have reduced the rate of schedule `plateau`.
        averaged: number of weights in the average.
        averaged_epoch: average swa: the newest epoch in it.
        finished: whether training has ended; `stopped_by` names the setting that ended it.
        seconds: duration of the epoch so far.
        compute: what computed the epoch's newest step.
        records: the log so far.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    targets: int = 0
    norm_sum: float = 0.0
    norm_steps: int = 0
    norm_max: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    evaluations_without_better: int = 0
    reductions: int = 0
    averaged: int = 0
    averaged_epoch: int = 0
    finished: bool = False
    stopped_by: str = ""
    seconds: float = 0.0
    compute: str = ""
    records: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of_checkpoint(cls, state: dict[str, Any]) -> Self:
        """The progress in a checkpoint's state."""
        saved = dict(state["progress"])
        if "positions" in saved:  # the name in checkpoints of version 0.1
            saved["targets"] = saved.pop("positions")
        return cls(**saved)

    def add_step(self, step: int, loss_sum: float, targets: int, norm: float) -> None:
        """Count a completed step."""
        self.step = step + 1
        self.loss_sum += loss_sum
        self.targets += targets
        # A step whose gradient overflows float16 is skipped.
        if math.isfinite(norm):
            self.norm_sum += norm
            self.norm_steps += 1
            self.norm_max = max(self.norm_max, norm)

    def record(self, lr: float, steps: int) -> dict[str, Any]:
        """The epoch's log record: `lr` is the learning rate of its last step, `steps` the length of a whole epoch."""
        cut = {} if self.step == steps else {"steps": self.step}
        return {
            "epoch": self.epoch + 1,
            "loss": self.loss_sum / self.targets,
            "lr": lr,
            "gradient norm": self.norm_sum / max(1, self.norm_steps),
            "largest gradient norm": self.norm_max,
            "seconds": round(self.seconds, 3),
            **cut,
        }

    def next_epoch(self) -> None:
        """Count the current epoch as completed and reset its sums."""
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum, self.targets, self.seconds = 0.0, 0, 0.0
        self.norm_sum, self.norm_steps, self.norm_max = 0.0, 0, 0.0

    def judge(self, value: float, epoch: int, plateau: int) -> bool:
        """Count an evaluation after `epoch` epochs; return whether its value is the best so far.

        Every `plateau` evaluations without a better value count as one reduction of the rate.
        """
        if self.best is None or value > self.best:
            self.best, self.best_epoch, self.evaluations_without_better = value, epoch, 0
            return True
        self.evaluations_without_better += 1
        self.reductions += self.evaluations_without_better % plateau == 0
        return False

    def is_out_of_patience(self, config: TrainConfig, steps: int) -> bool:
        """Whether enough evaluations and enough steps (`steps` per epoch) have passed without a better value."""
        count = self.evaluations_without_better
        return 0 < config.patience <= count and count * config.eval_epochs * steps >= config.patience_steps

    def is_time_up(self, config: TrainConfig) -> bool:
        """Whether the epoch must be cut here: `max_minutes` have passed, but for an evaluation."""
        if not config.max_minutes:
            return False
        spent, evaluation = self._spent(self.records)
        return spent + self.seconds + evaluation > 60 * config.max_minutes

    def is_out_of_time(self, config: TrainConfig, record: dict[str, Any]) -> bool:
        """Whether one more epoch like the one of `record`, and an evaluation, would end after `max_minutes`."""
        if not config.max_minutes:
            return False
        spent, evaluation = self._spent([*self.records, record])
        # The epoch of `record` is evaluated if it is the last one.
        return bool(spent + record["seconds"] + 2 * evaluation > 60 * config.max_minutes)

    def _spent(self, records: list[dict[str, Any]]) -> tuple[float, float]:
        """The seconds that the epochs in `records` and their evaluations took, and those of the slowest evaluation."""
        evaluations = [each.get("validation seconds", 0.0) for each in records]
        return sum(each["seconds"] for each in records) + sum(evaluations), max(evaluations, default=0.0)

    def continue_beyond(self, config: TrainConfig, steps: int) -> None:
        """Continue a finished training with larger limits; if patience has run out, start counting it again."""
        self.finished, self.stopped_by = False, ""
        if self.is_out_of_patience(config, steps):
            self.evaluations_without_better = 0
