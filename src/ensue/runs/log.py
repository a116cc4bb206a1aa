"""What training tells the world: events to watchers, and one JSON line per event in the run's log."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from ensue.files import write_bytes

Records = list[dict[str, Any]]


class Watcher(Protocol):
    """Something that follows training: a live display, TensorBoard, a test."""

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        """Training starts or resumes: steps per epoch, epochs at most, where it stands, and the log so far."""
        ...

    def step(self, epoch: int, step: int, loss: float) -> None:
        """A step is done; `loss` is the epoch's mean so far."""
        ...

    def record(self, record: dict[str, Any]) -> None:
        """A line was added to the log."""
        ...

    def finish(self) -> None:
        """Training ended, well or not."""
        ...


class RunLog:
    """`log.jsonl`: one JSON object per line, appended as things happen.

    On resume the log is cut back to the records that the checkpoint knows, so that it tells one run's story.
    """

    def __init__(self, path: Path | None, records: Records, watchers: Iterable[Watcher] = ()) -> None:
        self.path = path
        self.records = list(records)
        self.watchers = tuple(watchers)
        if path is not None:
            write_bytes(path, b"".join(_line(record) for record in self.records))

    def add(self, record: dict[str, Any]) -> None:
        """Append a record and show it to the watchers."""
        self.records.append(record)
        if self.path is not None:
            with self.path.open("ab") as handle:
                handle.write(_line(record))
                handle.flush()
                os.fsync(handle.fileno())
        for watcher in self.watchers:
            watcher.record(record)


def epochs_of(records: Iterable[dict[str, Any]]) -> Records:
    """The records of epochs; a run with weights from elsewhere also has one of those."""
    return [record for record in records if "epoch" in record]


def best_of(records: Iterable[dict[str, Any]], label: str) -> tuple[float, int] | None:
    """The best validation metric of this label, and the first epoch that had it; None if there was no validation."""
    name = f"validation {label}"
    found = [(record[name], record["epoch"]) for record in epochs_of(records) if name in record]
    return max(found, key=lambda pair: (pair[0], -pair[1]), default=None)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def read_log(path: Path) -> Records:
    """The records of a log; a half-written last line is left out."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]
