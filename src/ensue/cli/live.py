"""The display of a training: a live display on a terminal, otherwise one line per epoch."""

from __future__ import annotations

import time
from typing import Any

from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ensue.runs.log import Records, epochs_of
from ensue.terminal.output import Screen, duration, sparkline

VALIDATION = "validation "


class TrainingState:
    """A watcher that tracks the state and speed of a training, which the displays draw.

    Args:
        events: number of training events per epoch, for the rate of events.
    """

    def __init__(self, events: int) -> None:
        self.events = events
        self.steps = self.epochs = self.epoch = self.done = 0
        self.loss = float("nan")
        self.metric = ""
        self.values: list[float] = []
        self.best: tuple[float, int] | None = None
        self.began = self.epoch_began = time.monotonic()
        self.begun_at = 0
        self.epoch_begun_at = 0

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        """Record where training starts or resumes."""
        self.steps, self.epochs, self.epoch, self.done = steps, epochs, epoch, step
        self.began = self.epoch_began = time.monotonic()
        self.begun_at, self.epoch_begun_at = epoch * steps + step, step
        for record in epochs_of(records):
            self._note(record)

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Record a completed step."""
        self.epoch = epoch
        self.done, self.loss = step + 1, loss

    def record(self, record: dict[str, Any]) -> None:
        """Record a completed epoch, with its evaluation if there was one."""
        self.epoch, self.done = record["epoch"], 0
        self.epoch_began, self.epoch_begun_at = time.monotonic(), 0
        self.loss = record.get("loss", self.loss)
        self._note(record)

    def _note(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name.startswith(VALIDATION) and isinstance(value, float) and name != "validation seconds":
                self.metric = name.removeprefix(VALIDATION)
                self.values.append(value)
                if self.best is None or value > self.best[0]:
                    self.best = (value, record["epoch"])

    def finish(self) -> None:
        """Do nothing when training ends."""

    def rate(self) -> float:
        """Steps per second of this epoch; 0 before the first step."""
        seconds = time.monotonic() - self.epoch_began
        return (self.done - self.epoch_begun_at) / seconds if seconds > 0 else 0.0

    def events_rate(self, steps_per_second: float) -> float:
        """Training events per second."""
        return steps_per_second * self.events / self.steps if self.steps else 0.0

    def seconds_left(self) -> tuple[float, float] | None:
        """Seconds to the end of the epoch and of the last epoch, at the pace so far (including evaluations).

        None before the first step.
        """
        now = self.epoch * self.steps + self.done
        if now <= self.begun_at:
            return None
        pace = (time.monotonic() - self.began) / (now - self.begun_at)
        return (self.steps - self.done) * pace, (self.epochs * self.steps - now) * pace


class LiveTraining(TrainingState):
    """A few lines that are redrawn in place."""

    def __init__(self, events: int, screen: Screen) -> None:
        super().__init__(events)
        self.live = Live(
            console=screen.console, get_renderable=self.draw, refresh_per_second=4, transient=True, screen=False
        )

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        """Training starts or resumes."""
        super().start(steps, epochs, epoch, step, records)
        self.live.start()

    def finish(self) -> None:
        """Training ended."""
        self.live.stop()

    def draw(self) -> RenderableType:
        """The current display."""
        rate, left = self.rate(), self.seconds_left()
        grid = Table.grid(padding=(0, 2))
        grid.add_row(
            f"epoch {min(self.epoch + 1, self.epochs)}/{self.epochs}",
            ProgressBar(total=max(self.steps, 1), completed=self.done, width=28),
            f"step {self.done}/{self.steps}",
            f"{rate:.1f} steps/s",
            f"{self.events_rate(rate):,.0f} events/s",
        )
        times = "" if left is None else f"epoch {duration(left[0])}, all at most {duration(left[1])}"
        lines = [Text(f"loss {self.loss:.4f}   left: {times}" if times else "...")]
        if self.values and self.best:
            lines.append(
                Text(
                    f"validation {self.metric} {self.values[-1]:.4f}, best {self.best[0]:.4f} "
                    f"(epoch {self.best[1]})  {sparkline(self.values)}"
                )
            )
        whole = Table.grid()
        whole.add_row(grid)
        for line in lines:
            whole.add_row(line)
        return whole


class PlainTraining(TrainingState):
    """One line per epoch, for pipes and log files."""

    def __init__(self, events: int, screen: Screen) -> None:
        super().__init__(events)
        self.screen = screen

    def record(self, record: dict[str, Any]) -> None:
        """Print the line of a completed epoch."""
        super().record(record)
        seconds = record.get("seconds") or 0.0
        parts = [f"epoch {record['epoch']}/{self.epochs}", f"loss {record['loss']:.4f}"]
        if f"{VALIDATION}{self.metric}" in record and self.best:
            parts.append(
                f"validation {self.metric} {self.values[-1]:.4f} (best {self.best[0]:.4f}, epoch {self.best[1]})"
            )
        if seconds:
            parts.append(f"{self.steps / seconds:.1f} steps/s, {self.events / seconds:,.0f} events/s")
        left = self.seconds_left()
        if left is not None and record["epoch"] < self.epochs:
            parts.append(f"at most {duration(left[1])} left")
        self.screen.say(", ".join(parts))


def training_display(events: int, screen: Screen) -> TrainingState:
    """The display suitable for the screen."""
    return LiveTraining(events, screen) if screen.live else PlainTraining(events, screen)
