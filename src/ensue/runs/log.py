"""The log of a training: one JSON line per event in the run's `log.jsonl`, and the same events for watchers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from ensue.files import write_bytes

Records = list[dict[str, Any]]


class Watcher(Protocol):
    """An observer of training, such as a live display or a TensorBoard writer."""

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        """Training starts or resumes at (`epoch`, `step`), with `steps` per epoch, at most `epochs`, and this log."""
        ...

    def step(self, epoch: int, step: int, loss: float) -> None:
        """A step was completed; `loss` is the epoch's mean so far."""
        ...

    def record(self, record: dict[str, Any]) -> None:
        """A line was added to the log."""
        ...

    def finish(self) -> None:
        """Training ended, successfully or not."""
        ...


class RunLog:
    """`log.jsonl`: one JSON object per line, appended as training proceeds.

    On resume the log is cut back to the records in the checkpoint, so no epoch appears twice.
    """

    def __init__(self, path: Path | None, records: Records, watchers: Iterable[Watcher] = ()) -> None:
        self.path = path
        self.records = list(records)
        self.watchers = tuple(watchers)
        if path is not None:
            write_bytes(path, b"".join(_line(record) for record in self.records))

    def add(self, record: dict[str, Any]) -> None:
        """Append a record and pass it to the watchers."""
        self.records.append(record)
        if self.path is not None:
            with self.path.open("ab") as handle:
                handle.write(_line(record))
                handle.flush()
                os.fsync(handle.fileno())
        for watcher in self.watchers:
            watcher.record(record)


def epochs_of(records: Iterable[dict[str, Any]]) -> Records:
    """The records of epochs. A log also has a record of the source of weights that were not trained here."""
    return [record for record in records if "epoch" in record]


def best_of(records: Iterable[dict[str, Any]], label: str) -> tuple[float, int] | None:
    """The best value of the validation metric with this label, and its first epoch; None without validation."""
    name = f"validation {label}"
    values = [(record[name], record["epoch"]) for record in epochs_of(records) if name in record]
    return max(values, key=lambda pair: (pair[0], -pair[1]), default=None)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def read_log(path: Path) -> Records:
    """The records of a log; an incomplete last line is ignored."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]
