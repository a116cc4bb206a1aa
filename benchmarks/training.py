"""What optimisers, schedules, averages of weights and label smoothing are worth: equal epochs, several seeds.

    python benchmarks/training.py run --data ml-100k --seeds 0 1 2
    python benchmarks/training.py report

Each row of the table changes one setting of the base, a recipe with a fixed number of epochs. Both are trained with the
same seeds and judged on the same users. Runs are kept in build/training; an interrupted one is resumed. `report` writes
docs/results/training.json and docs/results/training_table.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from quality import ROOT, Printer, open_store

from ensue.data.arrays import FloatArray
from ensue.evaluation.contrast import contrast
from ensue.files import write_json, write_text
from ensue.recipes import run_config
from ensue.recommender import Recommender
from ensue.runs.results import read_metrics, table_path

RUNS, RESULTS = ROOT / "build" / "training", ROOT / "docs" / "results"
PRESET = "sasrec-ce-small"
FIXED = {"num_epochs": 15, "eval_epochs": 3, "patience": 0, "schedule": "constant", "warmup_steps": 50}
CHANGES: dict[str, dict[str, Any]] = {
    "base": {},
    "cosine": {"schedule": "cosine"},
    "one-cycle": {"schedule": "one-cycle", "warmup_steps": 0},
    "exponential": {"schedule": "exponential", "step_epochs": 5},
    "plateau": {"schedule": "plateau", "plateau_evaluations": 1},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.01},
    "lion, a fifth of the rate": {"optimizer": "lion", "lr": 0.0003, "beta2": 0.99},
    "rmsprop": {"optimizer": "rmsprop"},
    "adagrad, 10 times the rate": {"optimizer": "adagrad", "lr": 0.015},
    "ema": {"average": "ema", "average_decay": 0.99},
    "swa": {"average": "swa", "average_start": 0.6},
    "label smoothing 0.1": {"label_smoothing": 0.1},
}
METRIC = "ndcg@10"


def folder_of(data: str, change: str, seed: int) -> Path:
    """The run folder of one training."""
    return RUNS / data / change.replace(" ", "-").replace(",", "") / f"seed{seed}"


def run(options: argparse.Namespace) -> None:
    """Train and evaluate all that is missing."""
    torch.set_num_threads(options.threads)
    store = open_store(options.data)
    for seed in options.seeds:
        for change, values in CHANGES.items():
            folder = folder_of(options.data, change, seed)
            given = {**FIXED, **values, "seed": seed, "threads": options.threads}
            config = run_config(None, PRESET, given)
            recommender = Recommender.from_config(config).fit(store, folder, [Printer(f"{change}, seed {seed}")])
            if f"test/{config.evaluate.key}" not in read_metrics(folder):
                recommender.evaluate(store, "test", config.evaluate, folder)


def values_of(data: str, change: str) -> dict[int, FloatArray]:
    """The test metric of every user, by seed."""
    values = {}
    for path in sorted((RUNS / data / folder_of(data, change, 0).parent.name).glob("seed*/metrics.json")):
        (entry,) = read_metrics(path.parent).values()
        values[int(path.parent.name.removeprefix("seed"))] = (
            pl.read_parquet(table_path(path.parent, entry), glob=False)[METRIC].to_numpy().astype(np.float64)
        )
    return values


def report(_: argparse.Namespace) -> None:
    """Write the table of all runs."""
    lines = [
        f"| data | change | seeds | {METRIC} | difference from the base [95 %] | p |",
        "|---|---|---:|---:|---|---:|",
    ]
    output = []
    for data in sorted(path.name for path in RUNS.iterdir()):
        base = values_of(data, "base")
        for change in CHANGES:
            own = values_of(data, change)
            seeds = sorted(own.keys() & base.keys())
            if not seeds:
                continue
            result = contrast([own[seed] for seed in seeds], [base[seed] for seed in seeds])
            effect = result.effect
            row = {"data": data, "change": change, "settings": CHANGES[change], "seeds": seeds, **result.as_dict()}
            output.append(row)
            cells = "| |" if change == "base" else f"| {effect} | {result.p['t']:.2g} |"
            lines.append(f"| {data} | {change} | {len(seeds)} | {result.mean_a:.4f} {cells}")
    write_json(RESULTS / "training.json", output)
    write_text(RESULTS / "training_table.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="train and evaluate")
    running.add_argument("--data", default="ml-100k")
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.add_argument("--threads", type=int, default=1)
    running.set_defaults(command=run)
    commands.add_parser("report", help="write the table").set_defaults(command=report)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
