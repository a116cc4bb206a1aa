"""What every kind of attention, and the linear recurrence `retention`, costs by the length of a history, and is worth.

    python benchmarks/attention.py speed                  # simulated histories of 200, 1,000 and 5,000 events
    python benchmarks/attention.py run --data ml-100k     # trains each kind, with equal settings
    python benchmarks/attention.py report

A row of `speed` is a model of two blocks of width 64. A step is the pass forward and backward over 5,000 events (25
histories of 200, 5 of 1,000, 1 of 5,000), in processor seconds of one thread; its memory is the size of all tensors
that are kept for the gradient. A request is the state of the newest event of one history. Both commands add to
docs/results/attention.json; `report` writes attention_table.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from quality import RESULTS, ROOT, open_store
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ensue.batches.batch import SequenceBatch
from ensue.files import write_json, write_text
from ensue.models import Catalogue, Encoder, build_model, model_config
from ensue.nn.attention import ATTENTIONS
from ensue.nn.embedding import initialise
from ensue.nn.native.library import TORCH, computing_with
from ensue.recommender import Recommender

RUNS = ROOT / "build" / "attention"
LENGTHS, EVENTS, ITEMS, REPEATS = (200, 1_000, 5_000), 5_000, 2_000, 3
SIZE = {"hidden_units": 64, "num_blocks": 2, "dropout_rate": 0.2}
TRAINING: dict[str, Any] = {
    **{"hidden_units": 32, "num_blocks": 1, "dropout_rate": 0.2, "maxlen": 600, "loss": "ce", "lr": 0.002},
    **{
        "num_epochs": 15,
        "batch_size": 32,
        "eval_epochs": 15,
        "patience": 0,
        "max_minutes": 0,
        "schedule": "cosine",
        "window": "last",
    },
}


def kinds() -> list[str]:
    """The names of the rows: kinds of attention of SASRec, and the linear recurrence."""
    return [*ATTENTIONS, "retention"]


def settings_of(kind: str) -> dict[str, Any]:
    """The settings of the model of a row, without its size."""
    return {"name": "sasrec", "attention": kind} if kind in ATTENTIONS else {"name": kind}


def speed(options: argparse.Namespace) -> None:
    """Measure the missing rows."""
    torch.set_num_threads(options.threads)
    rows = read()
    for length in LENGTHS:
        for kind in kinds():
            if f"{kind} {length}" not in rows["speed"]:
                with computing_with(TORCH):
                    rows["speed"][f"{kind} {length}"] = measured = measure(kind, length)
                write_json(RESULTS / "attention.json", rows)
                print(kind, length, measured, flush=True)


def measure(kind: str, length: int) -> dict[str, float]:
    """Seconds of a step and of a request, and the memory that a step keeps."""
    config = model_config({**settings_of(kind), **SIZE, "maxlen": length})
    model = build_model(config, Catalogue(ITEMS))
    assert isinstance(model, Encoder)
    initialise(model, 0)
    rows, rng = EVENTS // length, np.random.default_rng(0)
    items, lengths = rng.integers(1, ITEMS + 1, EVENTS), np.full(rows, length)
    times = np.tile(np.cumsum(rng.integers(60, 86_400, length)), rows)
    batch = SequenceBatch.from_numpy(items, lengths, times)
    one = SequenceBatch.from_numpy(items[:length], lengths[:1], times[:length])
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    def step() -> None:
        torch.autograd.backward(model.encode(batch.asking_all()).square().mean())

    with saved_tensors_hooks(pack, lambda x: x):
        step()
    result = {"step": seconds(step), "mib": sum(kept.values()) / 2**20}
    model.eval()
    with torch.inference_mode():
        result["request"] = seconds(lambda: model.encode(one))
    return result


def seconds(work: Callable[[], object]) -> float:
    """The least processor time of a few calls; one call more is not measured."""
    work()
    taken = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def run(options: argparse.Namespace) -> None:
    """Train the missing rows and evaluate them on the test part."""
    torch.set_num_threads(options.threads)
    rows, store = read(), open_store(options.data)
    for kind in kinds():
        key = f"{kind} {options.data} {options.seed}"
        if key in rows["quality"]:
            continue
        model = settings_of(kind)
        recommender = Recommender(model.pop("name"), **model, **TRAINING, seed=options.seed, threads=options.threads)
        started = time.process_time()
        recommender.fit(store, RUNS / key.replace(" ", "-"))
        spent = time.process_time() - started
        metrics, _ = recommender.evaluate(store)
        rows = read()
        rows["quality"][key] = {"ndcg@10": metrics["ndcg@10"], "hr@10": metrics["hr@10"], "seconds": spent}
        write_json(RESULTS / "attention.json", rows)
        print(key, rows["quality"][key], flush=True)


def read() -> dict[str, dict[str, dict[str, float]]]:
    """The published rows."""
    path = RESULTS / "attention.json"
    return json.loads(path.read_text()) if path.exists() else {"speed": {}, "quality": {}}


def report(_: argparse.Namespace) -> None:
    """Write the tables."""
    rows = read()
    names = [f"{name} {length:,}" for name in ("step, s:", "kept, MiB:", "request, ms:") for length in LENGTHS]
    text = [
        "| | " + " | ".join(names) + " |",
        "|---|" + "---:|" * 3 * len(LENGTHS),
    ]
    for kind in kinds():
        cells = [rows["speed"].get(f"{kind} {length}") for length in LENGTHS]
        forms = (("step", 1, ".3f"), ("mib", 1, ".0f"), ("request", 1_000, ".1f"))
        columns = ["-" if c is None else format(c[name] * by, form) for name, by, form in forms for c in cells]
        text.append(f"| {kind} | " + " | ".join(columns) + " |")
    if rows["quality"]:
        text += ["", "| | data | seed | NDCG@10 | HR@10 | CPU s |", "|---|---|---:|---:|---:|---:|"]
    for key, row in rows["quality"].items():
        kind, data, seed = key.split()
        text.append(f"| {kind} | {data} | {seed} | {row['ndcg@10']:.4f} | {row['hr@10']:.4f} | {row['seconds']:.0f} |")
    write_text(RESULTS / "attention_table.md", "\n".join(text) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    commands = parser.add_subparsers(required=True)
    for command in (speed, run, report):
        commands.add_parser(command.__name__).set_defaults(command=command)
    runner = commands.choices["run"]
    runner.add_argument("--data", required=True)
    runner.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
