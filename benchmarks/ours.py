"""SASRec in ensue: one JSON line with epoch time, full evaluation, top-10 of all users and peak memory.

Suffixes: `B` cases, `R` recommendations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from measure import COMMON, SETTINGS, Clock, arguments, hit_rate, read_log, report

from ensue.data.split import Cases, Sequences, make_split
from ensue.data.store import SequenceStore
from ensue.evaluation.evaluate import evaluate
from ensue.nn.model import Model
from ensue.retrieval.retriever import Exhaustive, retrieve
from ensue.runs.config import RunConfig
from ensue.runs.log import Records
from ensue.train.loop import Trainer

NEVER = 10**9


class EpochClock:
    """Time each epoch from the end of the previous one (including its validation) to its last optimiser step."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.steps, self.begin = clock, 0, clock.now()

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        self.steps, self.begin = steps, self.clock.now()

    def step(self, epoch: int, step: int, loss: float) -> None:
        if step + 1 == self.steps:
            self.clock.add("epoch", self.begin)

    def record(self, record: dict[str, Any]) -> None:
        self.begin = self.clock.now()

    def finish(self) -> None:
        """Do nothing."""


def top10(model: Model, cases: Cases) -> tuple[np.ndarray, np.ndarray]:
    """The ten best unseen items of every case: user numbers and item numbers, one row per recommendation."""
    histories = Sequences(cases.store, cases.users_B, cases.start_B, cases.stop_B)
    return np.repeat(cases.users_B, 10), retrieve(Exhaustive(model), histories, 10)[1].ravel()


def main() -> None:
    """Train, evaluate, recommend for every user, print the line."""
    options = arguments()
    setting, clock = SETTINGS[options.data], Clock()
    log = read_log(options.data)
    user_ids, counts = np.unique(log.users, return_counts=True)
    item_ids, items = np.unique(log.items, return_inverse=True)
    store = SequenceStore.from_arrays(np.concatenate([[0], np.cumsum(counts)]), (items + 1).astype(np.int32))
    names = ("hidden_units", "num_blocks", "num_heads")
    train = {
        "num_epochs": options.epochs,
        "batch_size": COMMON["batch_size"],
        "lr": COMMON["lr"],
        "patience": 0,
    }
    config = RunConfig.parse(
        {
            "model": {"name": "sasrec", **setting, **{name: COMMON[name] for name in names}},
            "objective": {"loss": "bce", "num_negatives": COMMON["negatives"]},
            "train": {**train, "eval_epochs": NEVER, "threads": options.threads, "seed": options.seed},
        }
    )
    split = make_split(store, config.split)
    with clock.measure("fit"):
        model = Trainer(config, split, watchers=[EpochClock(clock)]).run().model
    with clock.measure("evaluation"):
        standings = evaluate(model, split.test, config.evaluate, split.train)
    with clock.measure("top10"):
        users_R, items_R = top10(model, split.test)
    rate = hit_rate(user_ids[users_R], item_ids[items_R - 1], log)
    ranked = round(float(standings.metric("hr@10").mean()), 4)
    report("ensue", options, clock, users=len(split.test), hit_rate_10=rate, hit_rate_10_by_rank=ranked)


if __name__ == "__main__":
    main()
