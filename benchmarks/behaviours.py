"""Purchases from all events against purchases alone, on the same users, items and targets.

python benchmarks/behaviours.py LOG.parquet --users 6000 --out build/behaviours

The log has the columns user_id, item_id, timestamp and event. Kept are users with three or more purchases, and items
that one of them buys; all models rank the same items for the same targets.

Suffix: `B` cases.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import polars as pl

from ensue.data.interactions import Columns
from ensue.data.prepare import prepare
from ensue.evaluation.significance import compare
from ensue.recommender import Recommender

TRAIN: dict[str, Any] = {
    "hidden_units": 64,
    "maxlen": 50,
    "dropout_rate": 0.4,
    "loss": "sampled-softmax",
    "num_negatives": 1024,
    "share_negatives": True,
    "batch_size": 256,
    "lr": 0.003,
    "patience": 0,
    "max_minutes": 0,
    "threads": 1,
    "device": "cpu",
}
METRICS = ("hr@10", "ndcg@10")


def kept(log: pl.DataFrame, target: str, users: int) -> pl.DataFrame:
    """The events of the first users with three or more purchases, on items that one of them buys."""
    bought = log.filter(pl.col("event") == target)
    counts = bought.group_by("user_id").len().filter(pl.col("len") >= 3).sort("user_id").head(users)
    few = log.join(counts.select("user_id"), on="user_id", how="semi", maintain_order="left")
    items = few.filter(pl.col("event") == target).select("item_id").unique()
    return few.join(items, on="item_id", how="semi", maintain_order="left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("log", type=Path)
    parser.add_argument("--target", default="buy")
    parser.add_argument("--users", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    log = kept(pl.read_parquet(chosen.log), chosen.target, chosen.users)
    columns = Columns(user="user_id", item="item_id", time="timestamp", features=("event",))
    models: dict[str, tuple[pl.DataFrame, dict[str, Any]]] = {
        "alone": (log.filter(pl.col("event") == chosen.target), {}),
        "all events": (log, {"target_event": chosen.target}),
        "all events, kinds": (log, {"target_event": chosen.target, "features": ("event",), "pair_bias": "event"}),
    }
    results: dict[str, dict[str, Any]] = {}
    values: dict[str, pl.DataFrame] = {}
    for name, (events, settings) in models.items():
        store = prepare(events, columns=columns)[0]
        recommender = Recommender("sasrec", **TRAIN, num_epochs=chosen.epochs, eval_epochs=4, **settings).fit(store)
        config = recommender.config.evaluate.replace(filter_seen=False)
        standings = recommender.evaluate(store, config=config)[1]
        users = store.users.decode(standings.users_B + 1)
        table = pl.DataFrame({"user": users, **{metric: standings.metric(metric) for metric in METRICS}})
        values[name] = table.sort("user")
        results[name] = {"events": store.num_events, "items": store.num_items, "cases": len(users)}
    common = values["alone"].select("user")
    for name, table in values.items():
        paired = common.join(table, on="user", how="inner", maintain_order="left")
        assert len(paired) == len(common)
        for metric in METRICS:
            results[name][metric] = compare(paired[metric], values["alone"][metric]).as_dict()
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "behaviours.json").write_text(json.dumps(results, indent=1) + "\n")
    for name, result in results.items():
        print(name, {metric: f"{result[metric]['mean_a']:.4f}" for metric in METRICS}, result["ndcg@10"]["effect"])


if __name__ == "__main__":
    main()
