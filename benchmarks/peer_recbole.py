"""SASRec in RecBole: one JSON line with its epoch time (extrapolated), evaluation time and peak memory.

Run with the interpreter of RecBole's own environment (`python benchmarks/peers.py setup recbole`).

RecBole turns every prefix of every sequence into a separate padded row, so an epoch of ML-1M is about a million rows of
200 items, where the others have 6,040. Therefore `--steps N` times N steps after 5 warm-up steps and multiplies by the
number of steps in an epoch; the line then contains `"extrapolated_from_steps": N`. RecBole's SASRec has no binary
cross-entropy: BPR with one negative is the closest. Its feed-forward width and activation are set to SASRec's.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import torch
from measure import COMMON, SETTINGS, Clock, Log, arguments, read_log, report
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

WARM_UP_STEPS = 5


def write_atomic_file(log: Log, folder: Path) -> None:
    """Write RecBole's input format; users with fewer than 3 events are left out, since its split cannot use them."""
    frame = pl.DataFrame({"user_id:token": log.users, "item_id:token": log.items, "timestamp:float": log.order})
    (folder / "log").mkdir()
    frame.filter(log.count >= 3).write_csv(folder / "log" / "log.inter", separator="\t")


def configuration(options: argparse.Namespace, folder: Path) -> Config:
    """RecBole's settings for the shared settings."""
    setting = SETTINGS[options.data]
    return Config(
        model="SASRec",
        dataset="log",
        config_dict={
            "data_path": str(folder),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
            "MAX_ITEM_LIST_LENGTH": setting["maxlen"],
            "n_layers": COMMON["num_blocks"],
            "n_heads": COMMON["num_heads"],
            "hidden_size": COMMON["hidden_units"],
            "inner_size": COMMON["hidden_units"],
            "hidden_act": "relu",
            "hidden_dropout_prob": setting["dropout_rate"],
            "attn_dropout_prob": setting["dropout_rate"],
            "loss_type": "BPR",
            "train_batch_size": COMMON["batch_size"],
            "learning_rate": COMMON["lr"],
            "use_gpu": False,
            "show_progress": False,
            "seed": options.seed,
            "checkpoint_dir": str(folder / "saved"),
            "metrics": ["Hit", "NDCG"],
            "topk": [10],
            "valid_metric": "NDCG@10",
        },
    )


class TimedSteps:
    """A loader of a few batches for RecBole's own epoch loop; times the steps after the warm-up."""

    def __init__(self, loader: Any, steps: int, clock: Clock) -> None:
        self.loader, self.steps, self.clock = loader, steps, clock
        self.shuffle = loader.shuffle

    def __iter__(self) -> Iterator[Any]:
        batches = itertools.islice(iter(self.loader), WARM_UP_STEPS + self.steps)
        yield from itertools.islice(batches, WARM_UP_STEPS)
        start = self.clock.now()
        yield from batches
        # The loop requests the next batch when the step of the last one has ended.
        self.clock.add("epoch", start, scale=len(self.loader) / self.steps)


def main() -> None:
    """Train part of an epoch, evaluate all users, print the line."""
    options = arguments()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(options.threads)
    clock, log = Clock(), read_log(options.data)
    # RecBole writes its TensorBoard log into the working folder.
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        write_atomic_file(log, Path(name))
        config = configuration(options, Path(name))
        init_seed(config["seed"], config["reproducibility"])
        with clock.measure("prepare"):
            train, _, test = data_preparation(config, create_dataset(config))
        trainer = Trainer(config, SASRec(config, train.dataset))
        more: dict[str, Any] = {"rows": len(train.dataset), "steps_an_epoch": len(train)}
        if options.steps:
            trainer._train_epoch(TimedSteps(train, options.steps, clock), 0)
            more["extrapolated_from_steps"] = options.steps
        else:
            for epoch in range(options.epochs):
                with clock.measure("epoch"):
                    trainer._train_epoch(train, epoch)
        with clock.measure("evaluation"):
            result = trainer.evaluate(test, load_best_model=False)
    rate = float(result["hit@10"]) if not options.steps else None
    report("recbole", options, clock, users=len(test.dataset), hit_rate_10=rate, **more)


if __name__ == "__main__":
    main()
