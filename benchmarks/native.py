"""Paired comparison of the native library with torch's path: the same work in turn, and the ratio of each pair.

python benchmarks/native.py --data ml-1m-sasrec
python benchmarks/native.py --data ml-1m-sasrec --quality 3 --epochs 10

Both paths take every training step, evaluation and request one after the other in one process, in alternating order, so
that other work on the machine slows both. Times are processor seconds of the process. The table states medians over all
pairs and the quartiles of the ratios. `--quality` trains a model with each path and seed, and states the metrics of the
test part. Results are written to docs/results/native.json and docs/results/native.md.

Suffixes: `B` cases, `P` events.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from measure import COMMON, SETTINGS, read_log
from speed import RESULTS, machine

from ensue.batches.batch import SequenceBatch
from ensue.data.split import Sequences, Split, make_split
from ensue.data.store import SequenceStore
from ensue.evaluation.evaluate import evaluate
from ensue.nn.native.library import TORCH, compute, computing_with
from ensue.retrieval.retriever import Exhaustive, retrieve
from ensue.runs.config import RunConfig
from ensue.train.loop import Trainer

WARM = 2  # pairs that are not counted
LOSSES = {"training step, BCE": "bce", "training step, full softmax": "ce"}


def config_of(options: argparse.Namespace, loss: str, seed: int = 0) -> RunConfig:
    """SASRec's settings for the data set, for any model that has them."""
    names = ("hidden_units", "num_blocks", "num_heads")
    model = {"name": options.model, **SETTINGS[options.data], **{name: COMMON[name] for name in names}}
    if options.width:
        model["hidden_units"] = options.width
    train = {"batch_size": COMMON["batch_size"], "lr": COMMON["lr"], "threads": options.threads, "seed": seed}
    fixed = {"num_epochs": options.epochs, "eval_epochs": options.epochs, "patience": 0}
    return RunConfig.parse({"model": model, "objective": {"loss": loss}, "train": {**train, **fixed}})


def store_of(name: str) -> SequenceStore:
    """A benchmark's log as a store."""
    log = read_log(name)
    counts = np.unique(log.users, return_counts=True)[1]
    items = np.unique(log.items, return_inverse=True)[1]
    return SequenceStore.from_arrays(np.concatenate([[0], np.cumsum(counts)]), (items + 1).astype(np.int32))


class Pairs:
    """Processor seconds of pieces of work, by piece and path."""

    def __init__(self, native: str) -> None:
        self.names = (native, TORCH)
        self.seconds: dict[str, dict[str, list[float]]] = {}

    def time(self, piece: str, works: list[Callable[[], object]]) -> None:
        """Do each piece of work with both paths, in alternating order."""
        seconds = self.seconds.setdefault(piece, {name: [] for name in self.names})
        for number, work in enumerate(works):
            for name in self.names if number % 2 else self.names[::-1]:
                with computing_with(name):
                    start = time.process_time()
                    work()
                    seconds[name].append(time.process_time() - start)

    def rows(self) -> list[dict[str, Any]]:
        """The medians of both paths, the median ratio and its quartiles."""
        result = []
        for piece, seconds in self.seconds.items():
            native, torchs = (seconds[name][WARM:] for name in self.names)
            ratios = [b / a for a, b in zip(native, torchs, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            medians = {"native": statistics.median(native), "torch": statistics.median(torchs)}
            quartiles = {"ratio": round(middle, 2), "quartiles": [round(low, 2), round(high, 2)]}
            result.append({"what": piece, "pairs": len(ratios), **medians, **quartiles})
        return result


def measure(options: argparse.Namespace, split: Split) -> list[dict[str, Any]]:
    """All pieces of one data set."""
    pairs = Pairs(compute().name)
    for piece, loss in LOSSES.items():
        trainer = Trainer(config_of(options, loss), split)
        trainer.model.train()
        works = [work for work, _ in zip(trainer.work(0), range(options.steps + WARM), strict=False)]
        pairs.time(piece, [lambda work=work, trainer=trainer: trainer._step(0, work) for work in works])  # type: ignore[misc]
    model, test = trainer.model.eval(), split.test
    few = test.take(np.arange(min(len(test), options.cases)))
    histories = Sequences(few.store, few.users_B, few.start_B, few.stop_B)
    repeats = options.repeats + WARM
    config = trainer.config.evaluate
    pairs.time("full-ranking evaluation", [lambda: evaluate(model, few, config, split.train)] * repeats)
    pairs.time("top-10 of all users", [lambda: retrieve(Exhaustive(model), histories, 10)] * repeats)

    def requests() -> None:
        with torch.inference_mode():
            for row in range(50):
                items = few.store.items[few.start_B[row] : few.stop_B[row]][-trainer.config.model.maxlen :]
                batch = SequenceBatch.from_lists([items.tolist()])
                seen = torch.zeros_like(batch.items_P), batch.items_P
                Exhaustive(model)(batch, 10, seen)

    pairs.time("50 single requests", [requests] * repeats)
    return pairs.rows()


def quality(options: argparse.Namespace, split: Split) -> list[dict[str, Any]]:
    """The test metrics of a model of each seed and path after the same epochs."""
    native = compute().name
    result = []
    for seed in range(options.quality):
        for name in (native, TORCH):
            config = config_of(options, "bce", seed)
            with computing_with(name):
                start = time.process_time()
                model = Trainer(config, split).run().model
                seconds = time.process_time() - start
                means = evaluate(model, split.test, config.evaluate, split.train).means(config.evaluate)
            metrics = {metric: round(value, 4) for metric, value in means.items()}
            result.append(
                {"seed": seed, "path": name, "epochs": options.epochs, "seconds": round(seconds, 1), **metrics}
            )
            print(result[-1], flush=True)
    return result


def table(result: dict[str, Any]) -> str:
    """One result as Markdown."""
    width = f", width {result['width']}" if result["width"] else ""
    lines = [f"## {result.get('model', 'sasrec')}, {result['data']}{width}", ""]
    lines += [f"`{result['command']}`, {result['date']}; {result['machine']}, {result['threads']} threads.", ""]
    if result.get("rows"):
        lines += ["| | torch, ms | native, ms | ratio | quartiles | pairs |", "|---|---:|---:|---:|---|---:|"]
        for row in result["rows"]:
            low, high = row["quartiles"]
            times = f"{1e3 * row['torch']:.1f} | {1e3 * row['native']:.1f}"
            lines.append(f"| {row['what']} | {times} | {row['ratio']:.2f} | {low:.2f} to {high:.2f} | {row['pairs']} |")
    else:
        names = [name for name in result["quality"][0] if name not in ("seed", "path", "epochs", "seconds")]
        lines += [
            f"| seed | path | epochs | seconds | {' | '.join(names)} |",
            "|---:|---|---:|" + "---:|" * (1 + len(names)),
        ]
        for run in result["quality"]:
            cells = [str(run[name]) for name in ("seed", "path", "epochs", "seconds", *names)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(result: dict[str, Any]) -> None:
    """Replace an earlier result of the same command, and write the page of all results."""
    path = RESULTS / "native.json"
    kept = json.loads(path.read_text()) if path.is_file() else []
    kept = [old for old in kept if old["command"] != result["command"]] + [result]
    path.write_text(json.dumps(kept, indent=1) + "\n")
    head = (
        "# The native library beside torch\n\nEach ratio is torch / native for the same work, done twice in a row.\n\n"
    )
    (RESULTS / "native.md").write_text(head + "\n".join(table(each) for each in kept))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=sorted(SETTINGS), default="ml-1m-sasrec")
    parser.add_argument("--model", default="sasrec", help="such as bert4rec")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40, help="training steps of each loss, with each path")
    parser.add_argument("--cases", type=int, default=2000, help="users of an evaluation")
    parser.add_argument("--repeats", type=int, default=8, help="evaluations with each path")
    parser.add_argument("--width", type=int, default=0, help="hidden_units; 0: the paper's 50")
    parser.add_argument("--quality", type=int, default=0, help="train models of so many seeds instead")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of those models")
    options = parser.parse_args()
    if not compute().is_native:
        sys.exit(f"nothing to compare: {compute()}")
    torch.set_num_threads(options.threads)
    store = store_of(options.data)
    split = make_split(store, config_of(options, "bce").split)
    measured = {"quality": quality(options, split)} if options.quality else {"rows": measure(options, split)}
    result = {
        "command": " ".join(["python benchmarks/native.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        **{
            "model": options.model,
            "data": options.data,
            "width": options.width,
            "threads": options.threads,
            "machine": machine(),
        },
        **measured,
    }
    print(table(result))
    write(result)


if __name__ == "__main__":
    main()
