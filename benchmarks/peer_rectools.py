"""SASRec in RecTools: one JSON line with its epoch time, top-10 of all users and peak memory.

Run with the interpreter of RecTools' own environment (`python benchmarks/peers.py setup rectools`).
"""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd
import torch
from measure import COMMON, SETTINGS, Clock, Log, arguments, hit_rate, read_log, report
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet

CLOCK = Clock()  # RecTools deep-copies the trainer with its callbacks, so the clock of a callback would be lost


class EpochClock(Callback):
    """Time each training epoch from its first batch request to its last optimiser step."""

    start = (0.0, 0.0)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.start = CLOCK.now()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        CLOCK.add("epoch", self.start)


def frame(log: Log, part: str) -> Dataset:
    """RecTools' dataset of a part of the log; the order of events becomes distinct seconds."""
    rows = log.part(part)
    table = pd.DataFrame(
        {
            Columns.User: log.users[rows],
            Columns.Item: log.items[rows],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(log.order[rows], unit="s"),
        }
    )
    return Dataset.construct(table)


def main() -> None:
    """Train, recommend for every user, print the line."""
    options = arguments()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    seed_everything(options.seed)
    setting = SETTINGS[options.data]
    log = read_log(options.data)
    train, history = frame(log, "train"), frame(log, "history")

    def trainer() -> Trainer:
        return Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=options.epochs,
            min_epochs=options.epochs,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=False,
            callbacks=[EpochClock()],
        )

    model = SASRecModel(
        n_blocks=COMMON["num_blocks"],
        n_heads=COMMON["num_heads"],
        n_factors=COMMON["hidden_units"],
        dropout_rate=setting["dropout_rate"],
        session_max_len=setting["maxlen"],
        loss="BCE",
        n_negatives=COMMON["negatives"],
        lr=COMMON["lr"],
        batch_size=COMMON["batch_size"],
        epochs=options.epochs,
        item_net_block_types=(IdEmbeddingsItemNet,),
        get_trainer_func=trainer,
    )
    with CLOCK.measure("fit"):
        model.fit(train)
    test = log.part("test")
    with CLOCK.measure("top10"):
        # RecTools gives no recommendations to users without a trained item in their history; they count as misses.
        table = model.recommend(
            users=log.users[test],
            dataset=history,
            k=10,
            filter_viewed=True,
            on_unsupported_targets="ignore",
        )
    rate = hit_rate(table[Columns.User].to_numpy(), table[Columns.Item].to_numpy(), log)
    report("rectools", options, CLOCK, users=table[Columns.User].nunique(), hit_rate_10=rate)


if __name__ == "__main__":
    main()
