"""Shared parts of all runners: the log, the settings, and the measurement of time and memory.

A runner is a separate process in its library's environment; it prints one JSON line. A peer's runner imports this
module but nothing from `ensue`, so that its environment needs only the peer and polars.

Suffix: `R` rows of user and item.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

# SASRec's own settings; only `maxlen` and `dropout_rate` differ between the data sets of the paper.
SETTINGS: dict[str, dict[str, Any]] = {
    "ml-1m-sasrec": {"maxlen": 200, "dropout_rate": 0.2},
    "amazon-games-sasrec": {"maxlen": 50, "dropout_rate": 0.5},
}
COMMON = {"hidden_units": 50, "num_blocks": 2, "num_heads": 1, "batch_size": 128, "lr": 0.001, "negatives": 1}


@dataclass(frozen=True)
class Log:
    """One value per event, grouped by user, oldest first within a user; ids are the data set's own."""

    users: np.ndarray
    items: np.ndarray
    from_end: np.ndarray  # 0 for a user's last event, 1 for the one before, and so on
    count: np.ndarray  # number of events of the event's user

    @property
    def order(self) -> np.ndarray:
        """An artificial time that keeps the order: the number of the event within its user."""
        order: np.ndarray = self.count - 1 - self.from_end
        return order

    def part(self, name: str) -> np.ndarray:
        """Rows of the leave-one-out part `name`: train (all events of users with fewer than 3), history or test."""
        held_out = self.count >= 3
        if name == "train":
            return ~held_out | (self.from_end >= 2)
        if name == "history":
            return ~held_out | (self.from_end >= 1)
        test: np.ndarray = held_out & (self.from_end == 0)
        return test


def data_folder() -> Path:
    """The folder of the logs: ENSUE_DATA, or shared/data beside the repository."""
    return Path(os.environ.get("ENSUE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def read_log(name: str) -> Log:
    """Read `name`/interactions.parquet; the order of its rows is the order of events."""
    frame = (
        pl.read_parquet(data_folder() / name / "interactions.parquet", columns=["user_id", "item_id"])
        .with_row_index("row")
        .sort("user_id", "row")
        .with_columns(
            from_end=pl.len().over("user_id") - 1 - pl.int_range(pl.len()).over("user_id"),
            count=pl.len().over("user_id"),
        )
    )
    columns = (frame[name].cast(pl.Int64).to_numpy() for name in ("user_id", "item_id", "from_end", "count"))
    return Log(*columns)


def arguments() -> argparse.Namespace:
    """The command line of a runner."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", choices=sorted(SETTINGS), default="ml-1m-sasrec")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0, help="stop the epoch after so many steps and extrapolate")
    return parser.parse_args()


class Clock:
    """Wall-clock and processor seconds of named pieces of work, and the peak memory at the end of each.

    Processor seconds (of all threads) distinguish a slow library from a busy machine.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.cpu_seconds: dict[str, list[float]] = {}
        self.peak_mib: dict[str, float] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time the block under `name`."""
        start = self.now()
        yield
        self.add(name, start)

    @staticmethod
    def now() -> tuple[float, float]:
        """Wall-clock and processor time, to be passed to `add` later."""
        return time.perf_counter(), time.process_time()

    def add(self, name: str, start: tuple[float, float], scale: float = 1.0) -> None:
        """Record the time since `start`, times `scale`; the peak memory is that of the whole process so far."""
        wall, processor = self.now()
        self.seconds.setdefault(name, []).append(round((wall - start[0]) * scale, 4))
        self.cpu_seconds.setdefault(name, []).append(round((processor - start[1]) * scale, 4))
        self.peak_mib[name] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def report(library: str, options: argparse.Namespace, clock: Clock, **more: Any) -> None:
    """Print the runner's one JSON line: versions, setting, seconds and peak memory by piece of work."""
    packages = (library, "torch", "numpy")
    print(
        json.dumps(
            {
                "library": library,
                "versions": {name: importlib.metadata.version(name) for name in packages},
                "setting": {"data": options.data, **COMMON, **SETTINGS[options.data]},
                "epochs": options.epochs,
                "threads": options.threads,
                "seed": options.seed,
                "seconds": clock.seconds,
                "cpu_seconds": clock.cpu_seconds,
                "peak_mib": clock.peak_mib,
                **more,
            }
        ),
        flush=True,
    )


def hit_rate(users_R: np.ndarray, items_R: np.ndarray, log: Log) -> float:
    """HR@10 of recommended (user, item) rows against the test events, to check that the model has learned."""
    test = log.part("test")
    target = dict(zip(log.users[test].tolist(), log.items[test].tolist(), strict=True))
    hits = sum(target.get(user) == item for user, item in zip(users_R.tolist(), items_R.tolist(), strict=True))
    return float(round(hits / len(target), 4))
