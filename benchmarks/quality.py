"""Quality runs: a recipe on a dataset with several seeds, and the table of all runs. Run folders are kept.

    python benchmarks/quality.py run --data ml-1m-sasrec --preset sasrec-paper --seeds 1 2 3
    python benchmarks/quality.py run --data ml-100k --seeds 1                 # the recipe that the data chooses
    python benchmarks/quality.py run --sessions --data diginetica-srgnn --preset stan --seeds 0
    python benchmarks/quality.py report

With --sessions the data's own split of sessions is used (its feature `split`), and the next item after every prefix of
a test session is ranked among all items, including those of the prefix: P@20 and MRR@20 as in SR-GNN.

An interrupted run is resumed; a finished one is not repeated. Run folders (settings, seed, data fingerprint, per-user
results) stay in build/quality. `report` adds them to the published runs in docs/results/quality.json and writes
quality_table.md and sessions_table.md; a local run replaces a published one of the same settings and seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ensue.data.store import SequenceStore
from ensue.datasets.catalog import load_dataset
from ensue.errors import ArtefactError
from ensue.evaluation.significance import t_interval
from ensue.files import write_json, write_text
from ensue.recipes import configure
from ensue.recommender import Recommender
from ensue.runs.log import Records, epochs_of, read_log
from ensue.runs.results import kept_metrics, read_metrics

ROOT = Path(__file__).resolve().parents[1]
RUNS, RESULTS = ROOT / "build" / "quality", ROOT / "docs" / "results"
Command = Callable[[argparse.Namespace], None]
Key = tuple[str, str, str, int]  # data, preset, the settings changed, seed
# The label of runs whose recipe was chosen from the data.
CHOSEN = "chosen"
REPORTED = ("hr@10", "ndcg@10")
# Suffixes of a metric: plain, and with the time of the request.
PROTOCOLS = (("", "|qtime"), ("|uni100", "|uni100|qtime"))
SESSIONS = {"split": "session", "split_feature": "split", "filter_seen": False, "metrics": ("hr@20", "mrr@20")}
OF_SESSIONS = ("hr@20|seen", "mrr@20|seen")


def open_store(name: str) -> SequenceStore:
    folder = ROOT / "build" / "data" / name
    try:
        return SequenceStore.open(folder)
    except ArtefactError:
        return load_dataset(name, folder)


def run(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    store = open_store(options.data)
    settings = dict(pair.split("=", 1) for pair in options.set)
    label = options.preset or CHOSEN
    for seed in options.seeds:
        name = "-".join([options.data, label, *(f"{k}={v}" for k, v in settings.items()), f"seed{seed}"])
        folder = RUNS / name
        given = {**(SESSIONS if options.sessions else {}), **settings, "seed": seed, "threads": options.threads}
        config = configure(None, options.preset, given)(store, None).config
        started = time.monotonic()
        recommender = Recommender.from_config(config).fit(store, folder, [Printer(name)])
        for protocol in ("full",) if options.sessions else ("full", "uniform-100"):
            evaluation = config.evaluate.replace(protocol=protocol)
            if f"test/{evaluation.key}" not in read_metrics(folder):
                recommender.evaluate(store, "test", evaluation, folder)
        means = {
            k: v for e in read_metrics(folder).values() for k, v in e["metrics"].items() if "@10" in k or "@20|" in k
        }
        about = {"data": options.data, "preset": label, "set": settings, "seed": seed}
        write_json(folder / "quality.json", {**about, "seconds": round(time.monotonic() - started, 1)})
        print(name, json.dumps(means), flush=True)


class Printer:
    """Print each epoch's record on a line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        print(f"{self.name}: {steps} steps an epoch, from epoch {epoch + 1}", flush=True)

    def step(self, epoch: int, step: int, loss: float) -> None:
        pass

    def record(self, record: dict[str, Any]) -> None:
        print(json.dumps(record), flush=True)

    def finish(self) -> None:
        pass


def report(_: argparse.Namespace) -> None:
    """Write the table of all runs; for each seed, a run of build/quality replaces the published one."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for (data, preset, changed, seed), run in merge(published_runs(), local_runs()).items():
        about = {"fingerprint": run["fingerprint"], "cases": run["cases"]}
        row = rows.setdefault((data, preset, changed), {"seeds": [], "metrics": {}, "runs": [], **about})
        if row["fingerprint"] != run["fingerprint"]:
            name = f"{data} {preset} {changed}".rstrip()
            sys.exit(
                f"nothing written: the seeds of {name} are of different data, by their fingerprints "
                f"{row['fingerprint']} (seed {row['seeds'][0]}) and {run['fingerprint']} (seed {seed})"
            )
        row["seeds"].append(seed)
        row["runs"].append({"seed": seed, "epochs": run["epochs"], "metrics": run["metrics"]})
        for name, value in run["metrics"].items():
            row["metrics"].setdefault(name, []).append(value)
    table, sessions, output = [], [], []
    for (data, preset, changed), row in rows.items():
        output.append({"data": data, "preset": preset, "set": changed, **row})
        cells = [cell(100 * np.array(row["metrics"].get(name, [])), 2) for name in OF_SESSIONS]
        epochs = "/".join(str(r["epochs"]) for r in row["runs"])
        start = f"| {data} | {preset} {changed} | {len(row['seeds'])} | {epochs} | "
        if OF_SESSIONS[0] in row["metrics"]:
            sessions.append(start + " | ".join(cells) + " |")
            continue
        cells = []
        for plain, timed in PROTOCOLS:
            for metric in REPORTED:
                values = row["metrics"].get(metric + plain)
                with_time = row["metrics"].get(metric + timed, [])
                cells.append(cell(np.array(values)) if values else cell(np.array(with_time)) + " (query time)")
        table.append(start + " | ".join(cells) + " |")
    write_json(RESULTS / "quality.json", output)
    write_text(RESULTS / "quality_table.md", "\n".join([*HEADER, *table]) + "\n")
    if sessions:
        write_text(RESULTS / "sessions_table.md", "\n".join([*SESSION_HEADER, *sessions]) + "\n")
    print("\n".join([*HEADER, *table, *sessions]))


def published_runs() -> dict[Key, dict[str, Any]]:
    """The runs of docs/results/quality.json."""
    path = RESULTS / "quality.json"
    return {
        (row["data"], row["preset"], row["set"], run["seed"]): {
            "fingerprint": row["fingerprint"],
            "cases": row["cases"],
            "epochs": run["epochs"],
            "metrics": run["metrics"],
        }
        for row in (json.loads(path.read_text()) if path.exists() else [])
        for run in row["runs"]
    }


def local_runs() -> dict[Key, dict[str, Any]]:
    """The finished runs of build/quality; two of the same settings and seed, or altered results, are an error."""
    runs: dict[Key, dict[str, Any]] = {}
    folders: dict[Key, Path] = {}
    for path in sorted(RUNS.glob("*/quality.json")):
        about, folder = json.loads(path.read_text()), path.parent
        seed = tomllib.loads((folder / "config.toml").read_text())["train"]["seed"]
        key = (about["data"], about["preset"], " ".join(f"{k}={v}" for k, v in about["set"].items()), seed)
        if key in folders:
            sys.exit(f"nothing written: {folders[key]} and {folder} are the same settings and seed; keep one of them")
        folders[key] = folder
        results = list(kept_metrics(folder, None).values())
        if not results:
            sys.exit(f"nothing written: {folder} is marked as finished but contains no evaluation")
        runs[key] = {
            "fingerprint": results[0]["fingerprint"],
            "cases": results[0]["cases"],
            "epochs": len(epochs_of(read_log(folder / "log.jsonl"))),
            "metrics": {name: value for entry in results for name, value in entry["metrics"].items()},
        }
    return runs


def merge(published: dict[Any, dict[str, Any]], local: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Published and local runs, sorted; a local run replaces a published one, with a message if they differ."""
    for key in sorted(published.keys() & local.keys()):
        if published[key] != local[key]:
            print(f"replaced by the local run: {key}", file=sys.stderr)
    runs = {**published, **local}
    if not runs:
        sys.exit("nothing written: there is no published run and no local one")
    return dict(sorted(runs.items()))


HEADER = [
    "| data | recipe | seeds | epochs | HR@10 full | NDCG@10 full | HR@10 uniform-100 | NDCG@10 uniform-100 |",
    "|---|---|---|---|---|---|---|---|",
]
SESSION_HEADER = ["| data | recipe | seeds | epochs | P@20 | MRR@20 |", "|---|---|---|---|---|---|"]


def cell(values: np.ndarray, digits: int = 4) -> str:
    """The mean, and half the width of the 95 % interval if there are several values."""
    if len(values) == 0:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    interval = t_interval(values)
    return f"{values.mean():.{digits}f} ± {(interval.high - interval.low) / 2:.{digits}f}"


def two_commands(
    text: str | None, run: Command, report: Command
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """A parser with the commands `run` and `report`, and the parser of `run`, to which arguments can be added."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--threads", type=int, default=1)
    runner.set_defaults(command=run)
    commands.add_parser("report").set_defaults(command=report)
    return parser, runner


def main() -> None:
    """The command line."""
    parser, runner = two_commands(__doc__, run, report)
    runner.add_argument("--data", required=True)
    runner.add_argument("--preset", help="a recipe; by default the one chosen from the data")
    runner.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    runner.add_argument("--sessions", action="store_true", help="the data's split of sessions, P@20 and MRR@20")
    runner.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
