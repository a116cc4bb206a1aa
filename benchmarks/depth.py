"""The depth study: do hyper-connection residuals prevent the losses that come with depth?

    python benchmarks/depth.py run --data ml-100k --depths 2 4 8 16 --seeds 0 1 2
    python benchmarks/depth.py report

Depth x residual, full softmax, the same number of epochs for all. Every run folder has the log (loss, gradient norms),
the test result, the per-user ranks and the gains; a finished run is not repeated. Runs are kept in build/depth.
`report` adds them to the published runs in docs/results/depth.json (a local run replaces a published one of the same
cell and seed), and writes the tables docs/results/depth_table.md and the plots docs/results/depth-*.

Suffix: `B` test cases.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality import ROOT, cell, merge, open_store, two_commands

from ensue.batches.batch import history_batch
from ensue.data.split import Sequences, make_split
from ensue.errors import NotFiniteError
from ensue.files import write_json, write_text
from ensue.introspect import gain_report
from ensue.plots.figure import new_figure, save
from ensue.recipes import run_config
from ensue.recommender import Recommender

RUNS, RESULTS = ROOT / "build" / "depth", ROOT / "docs" / "results"
RESIDUALS = ("plain", "gated", "hc", "mhc", "mhc_lite")
SETTINGS = {
    "hidden_units": 32,
    "maxlen": 50,
    "dropout_rate": 0.2,
    "loss": "ce",
    "lr": 0.002,
    "schedule": "cosine",
    "warmup_steps": 50,
    "patience": 0,
}
BUDGETS = {
    "ml-100k": {"num_epochs": 15, "batch_size": 64},
    "ml-1m-sasrec": {"num_epochs": 12, "batch_size": 128},
}
GAIN_ROWS = 64


def run(options: argparse.Namespace) -> None:
    """Train the missing runs of the grid."""
    torch.set_num_threads(options.threads)
    store = open_store(options.data)
    for seed in options.seeds:
        for depth in options.depths:
            for residual in options.residuals:
                values = {"num_blocks": depth, "residual": residual, "seed": seed, "threads": options.threads}
                about = {"data": options.data, **values}
                folder = RUNS / run_name(about)
                if not (folder / "depth.json").exists():
                    budget = {"eval_epochs": 5, **BUDGETS[options.data]}
                    one(store, {**SETTINGS, **budget, **values}, folder, about)


def run_name(about: dict[str, Any]) -> str:
    """The name of a run folder: the cell of the grid and the seed."""
    return f"{about['data']}-{about['num_blocks']}-{about['residual']}-seed{about['seed']}"


def one(store: Any, settings: dict[str, Any], folder: Path, about: dict[str, Any]) -> None:
    """Run one cell of the grid with one seed; a run whose loss becomes NaN or infinite is a result too."""
    recommender = Recommender.from_config(run_config("sasrec", None, settings))
    started = time.process_time()
    try:
        recommender.fit(store, folder)
    except NotFiniteError as error:
        write_json(folder / "depth.json", {**about, "failed": str(error)})
        return
    seconds = time.process_time() - started
    metrics, _ = recommender.evaluate(store, folder=folder)
    run = recommender.run
    assert run is not None
    test = make_split(store, recommender.config.split).test
    histories = Sequences(store, test.users_B, test.start_B, test.stop_B)
    gains = gain_report(
        run.model, history_batch(histories, np.arange(min(GAIN_ROWS, len(test))), run.config.model.maxlen)
    )
    composite = None if gains.composite is None else asdict(gains.composite)
    mixing = gains.sublayers[-1].mixing
    log = recommender.log
    result = {
        **about,
        "metrics": metrics,
        "cpu_seconds_per_epoch": seconds / len(log),
        "loss": log[-1]["loss"],
        "gradient_norm": float(np.mean([record["gradient norm"] for record in log])),
        "largest_gradient_norm": max(record["largest gradient norm"] for record in log),
        "stream_norm": gains.sublayers[-1].stream_norm,
        "composite_gain": composite,
        "similarity": None if mixing is None else mixing.similarity,
        "off_diagonal": None if mixing is None else mixing.off_diagonal,
        "parameters": sum(p.numel() for p in run.model.parameters()),
    }
    write_json(folder / "depth.json", result)
    print(folder.name, f"{metrics['ndcg@10']:.4f}", f"{result['cpu_seconds_per_epoch']:.1f} s", flush=True)


def report(_: argparse.Namespace) -> None:
    """Write the tables and plots of all runs, local and published."""
    path = RESULTS / "depth.json"
    published = json.loads(path.read_text()) if path.exists() else []
    local = [json.loads(path.read_text()) for path in RUNS.glob("*/depth.json")]
    results = list(merge({run_name(r): r for r in published}, {run_name(r): r for r in local}).values())
    write_json(path, results)
    text = []
    for data in sorted({r["data"] for r in results}):
        here = [r for r in results if r["data"] == data]
        depths = sorted({r["num_blocks"] for r in here})
        text += [
            f"**{data}**",
            "",
            "| blocks | residual | seeds | NDCG@10 | HR@10 | largest gradient norm | stream norm | ",
        ]
        text[-1] += "composite gain | stream similarity | CPU s / epoch |"
        text.append("|---:|---|---:|---|---|---:|---:|---:|---:|---:|")
        for depth in depths:
            for residual in RESIDUALS:
                runs = [r for r in here if r["num_blocks"] == depth and r["residual"] == residual]
                if runs:
                    text.append(row(depth, residual, runs))
        text.append("")
        draw(data, here, depths)
    write_text(RESULTS / "depth_table.md", "\n".join(text) + "\n")
    print("\n".join(text))


def row(depth: int, residual: str, runs: list[dict[str, Any]]) -> str:
    """A row of the table."""
    good = [r for r in runs if "failed" not in r]
    seeds = str(len(runs)) if len(good) == len(runs) else f"{len(runs)} ({len(runs) - len(good)} not finite)"
    if not good:
        return f"| {depth} | {residual} | {seeds} | - | - | - | - | - | - | - |"

    def mean(name: str, form: str) -> str:
        values = [r[name] for r in good if r[name] is not None]
        return format(float(np.mean(values)), form) if values else "-"

    gains = [r["composite_gain"]["forward"] for r in good if r["composite_gain"]]
    cells = [cell(np.array([r["metrics"][name] for r in good])) for name in ("ndcg@10", "hr@10")]
    cells += [mean("largest_gradient_norm", ".2f"), mean("stream_norm", ".1f")]
    cells += [
        f"{np.mean(gains):.3f}" if gains else "-",
        mean("similarity", ".4f"),
        mean("cpu_seconds_per_epoch", ".1f"),
    ]
    return f"| {depth} | {residual} | {seeds} | " + " | ".join(cells) + " |"


def draw(data: str, results: list[dict[str, Any]], depths: list[int]) -> None:
    """NDCG@10 by depth, a line per residual, a dot per run."""
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    for number, residual in enumerate(RESIDUALS):
        runs = [r for r in results if r["residual"] == residual and "failed" not in r]
        means = [np.mean([r["metrics"]["ndcg@10"] for r in runs if r["num_blocks"] == d] or [np.nan]) for d in depths]
        axes.plot(depths, means, color=f"C{number}", label=residual, marker="o", markersize=4)
        axes.scatter([r["num_blocks"] for r in runs], [r["metrics"]["ndcg@10"] for r in runs], color=f"C{number}", s=8)
    axes.set(xscale="log", xticks=depths, xticklabels=depths, xlabel="blocks", ylabel="NDCG@10, test, full ranking")
    axes.minorticks_off()
    axes.set_title(f"{data}: depth and residual")
    axes.legend()
    save(figure, RESULTS, f"depth-{data}")


def main() -> None:
    """The command line."""
    parser, runner = two_commands(__doc__, run, report)
    runner.add_argument("--data", choices=sorted(BUDGETS), required=True)
    runner.add_argument("--depths", type=int, nargs="+", default=[2, 4, 8, 16])
    runner.add_argument("--residuals", nargs="+", choices=RESIDUALS, default=list(RESIDUALS))
    runner.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
