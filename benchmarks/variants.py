"""The cost of time attention and hyper-connections: paired epochs of SASRec and of each variant.

    python benchmarks/variants.py --data ml-1m-sasrec --threads 2 --pairs 3

Every run is a separate process, SASRec and the variant alternate, and the ratio is taken for each pair. The time of an
epoch is the median step time over `--steps` steps after a warm-up, times the number of steps, so that a short burst of
other work on the machine has little effect. Peak memory is `ru_maxrss`. Results are written to
docs/results/variants.json and variants.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from quality import ROOT, open_store

from ensue.data.split import make_split
from ensue.evaluation.evaluate import evaluate
from ensue.files import write_json, write_text
from ensue.models import Encoder
from ensue.recipes import run_config
from ensue.train.loop import Trainer

RESULTS = ROOT / "docs" / "results"
VARIANTS: dict[str, dict[str, Any]] = {
    "tisasrec": {"name": "tisasrec"},
    "tisasrec, log bias": {"name": "tisasrec", "relation": "bias", "buckets": "log"},
    "sasrec + gated": {"residual": "gated"},
    "sasrec + hc": {"residual": "hc"},
    "sasrec + mhc": {"residual": "mhc"},
    "sasrec + mhc_lite": {"residual": "mhc_lite"},
    "tisasrec + mhc": {"name": "tisasrec", "residual": "mhc"},
}
WARM_UP = 3


def one(options: argparse.Namespace) -> None:
    """Time the steps of one variant and print a JSON line."""
    values = {**json.loads(options.one), "hidden_units": options.hidden_units}
    name = values.pop("name", "sasrec")
    store = open_store(options.data)
    config = run_config(name, None, {"loss": "bce", "threads": options.threads, "device": "cpu", **values})
    trainer = Trainer(config, make_split(store, config.split))
    trainer.model.train()
    wall, cpu = [], []
    begin = time.perf_counter(), time.process_time()
    for work in trainer.work(0):
        trainer._step(0, work)
        now = time.perf_counter(), time.process_time()
        wall.append(now[0] - begin[0])
        cpu.append(now[1] - begin[1])
        begin = now
        if work.step + 1 == WARM_UP + options.steps:
            break
    result = {
        "epoch": statistics.median(wall[WARM_UP:]) * trainer.loader.steps,
        "cpu": statistics.median(cpu[WARM_UP:]) * trainer.loader.steps,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    begin_evaluation = time.perf_counter()
    assert isinstance(trainer.model, Encoder)
    evaluate(trainer.model, trainer.split.test, config.evaluate, trainer.split.train)
    print(json.dumps({**result, "evaluation": time.perf_counter() - begin_evaluation}))


def measure(values: dict[str, Any], options: argparse.Namespace) -> dict[str, float]:
    """One run in a separate process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--one", json.dumps(values)]
    for name in ("data", "threads", "steps", "hidden_units"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure every variant against SASRec."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-1m-sasrec")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--hidden-units", type=int, default=50)
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        one(options)
        return
    path = RESULTS / "variants.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in options.variants:
        pairs = [(measure({}, options), measure(VARIANTS[name], options)) for _ in range(options.pairs)]
        key = f"{options.data}, width {options.hidden_units}, {options.threads} threads, {name}"
        about = {"date": datetime.now(UTC).date().isoformat(), "data": options.data, "variant": name}
        results[key] = {**about, "width": options.hidden_units, "threads": options.threads, "pairs": pairs}
        print(line(results[key]), flush=True)
        write_json(path, results)
    write_text(RESULTS / "variants.md", page(results))


def line(result: dict[str, Any]) -> str:
    """A row of the table."""

    def ratio(what: str) -> str:
        ratios = [variant[what] / base[what] for base, variant in result["pairs"]]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    def median(what: str) -> float:
        return float(statistics.median(variant[what] for _, variant in result["pairs"]))

    cells = [
        result["variant"],
        str(result["width"]),
        str(result["threads"]),
        f"{median('epoch'):.1f} s",
        ratio("epoch"),
    ]
    cells += [ratio("cpu"), ratio("memory"), f"{median('evaluation'):.1f} s"]
    return "| " + " | ".join(cells) + " |"


def page(results: dict[str, Any]) -> str:
    """The page."""
    head = [
        "# Cost of time and of streams",
        "",
        "An epoch of each variant compared with one of plain SASRec in paired runs (median, and range over the pairs),",
        "measured by `python benchmarks/variants.py`: batch 128, BCE, one negative, 2 blocks, 1 head, maxlen 200.",
        "",
    ]
    table = ["| variant | width | threads | epoch | epoch ratio | CPU time ratio | peak memory ratio | evaluation |"]
    table += ["|---|---:|---:|---:|---|---|---|---:|", *(line(result) for result in results.values())]
    return "\n".join([*head, *table]) + "\n"


if __name__ == "__main__":
    main()
