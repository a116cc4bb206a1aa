"""Trainings by one, two and three processes, side by side; a script, so that each rank is a fork of a young process.

Prints one JSON object, scenario -> what each rank found, with distances between the weights of the worlds.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

import ensue.train.loop as loop
from ensue.data.split import Split, SplitConfig, make_split
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import EnsueError
from ensue.evaluation.evaluate import evaluate
from ensue.evaluation.protocol import EvaluateConfig
from ensue.models.sasrec import SASRecConfig
from ensue.objectives.objective import ObjectiveConfig
from ensue.runs.checkpoint import load_checkpoint
from ensue.runs.config import RunConfig, TrainConfig
from ensue.runs.log import Records
from ensue.train.distributed import evaluate_together, join

# The worlds in which each objective is trained.
WORLDS = {
    torch.float32: {"bce": (1, 2, 3), "in-batch": (1, 3), "shared": (1, 3), "ce": (1, 2)},
    torch.float64: {"bce": (1, 2)},
}
# 25 windows in batches of 8: the last batch has one row, so that two of three ranks have none.
USERS, BATCH, EPOCHS = 25, 8, 6
OBJECTIVES = {
    "bce": ObjectiveConfig(negatives="mixed", num_negatives=2),
    "in-batch": ObjectiveConfig(negatives="in-batch", loss="bpr-max", num_negatives=3),
    "shared": ObjectiveConfig(loss="sampled-softmax", num_negatives=4, share_negatives=True),
    "ce": ObjectiveConfig(loss="ce"),
}
Work = Callable[[Path, Split], dict[str, Any]]


def config(objective: str = "bce", dropout_rate: float = 0.0, **train: Any) -> RunConfig:
    settings = {
        "num_epochs": EPOCHS,
        "batch_size": BATCH,
        "lr": 0.01,
        "clip_norm": 0.5,
        "l2_emb": 0.01,
        "warmup_steps": 3,
        "schedule": "cosine",
        "eval_epochs": EPOCHS,
        "checkpoint_minutes": 0,
        "device": "cpu",
        **train,
    }
    return RunConfig(
        model=SASRecConfig(maxlen=6, hidden_units=8, num_blocks=2, dropout_rate=dropout_rate),
        objective=OBJECTIVES[objective],
        train=TrainConfig(**settings),
    )


class Follower:
    """Counts what a watcher is told, and ends the run after some steps."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps, self.stop_at = 0, stop_at

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None: ...

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.steps += 1
        if self.steps == self.stop_at:
            raise KeyboardInterrupt

    def record(self, record: dict[str, Any]) -> None: ...

    def finish(self) -> None: ...


def train(settings: RunConfig, folder: Path, split: Split) -> dict[str, Any]:
    """Train; leave the weights beside the folder, one file for each rank."""
    follower, rank = Follower(), join("cpu").rank
    trainer = loop.Trainer(settings, split, folder, [follower])
    result = trainer.run()
    save_file(result.model.state_dict(), folder.with_name(f"{folder.name}-rank{rank}.safetensors"))
    records = [{k: v for k, v in record.items() if "seconds" not in k} for record in result.progress.records]
    return {"records": records, "watched": follower.steps, "wrote": trainer.log.path is not None}


def stopped(settings: RunConfig, folder: Path, split: Split, at: int) -> dict[str, Any]:
    """Train until a watcher of rank 0 ends the run; the other ranks then lose touch."""
    try:
        loop.Trainer(settings, split, folder, [Follower(at)]).run()
    except KeyboardInterrupt:
        return {"ended": "interrupted"}
    except EnsueError as error:
        return {"ended": str(error)}
    return {"ended": "finished"}


def failing(settings: RunConfig, folder: Path, split: Split) -> dict[str, Any]:
    """Train, and give the message that it ends with."""
    try:
        loop.Trainer(settings, split, folder).run()
    except EnsueError as error:
        saved = load_checkpoint(folder / "checkpoints")
        return {"message": str(error), "kind": type(error).__name__, "step": saved and saved.state["progress"]["step"]}
    return {"message": "finished"}


def not_finite(folder: Path, split: Split) -> dict[str, Any]:
    """The loss becomes NaN on rank 1 alone, at the third step."""
    if join("cpu").rank == 1:
        at_step(3, lambda loss_sum: loss_sum * float("nan"))
    return failing(config(), folder, split)


def at_step(number: int, change: Callable[[Tensor], Tensor]) -> None:
    """Change this rank's loss at one step."""
    real, count = loop.Trainer._loss_sum, 0

    def loss_sum(self: Any, *args: Any) -> Tensor:
        nonlocal count
        count += 1
        value: Tensor = real(self, *args)
        return change(value) if count == number else value

    loop.Trainer._loss_sum = loss_sum  # type: ignore[method-assign]


def overflow(folder: Path, split: Split) -> dict[str, Any]:
    """With fp16, a gradient overflows on rank 1 alone, at the second step: no rank may take that step."""
    real, count = loop.dense_gradients, 0

    def spoiled(parameters: Any) -> None:
        nonlocal count
        count += 1
        parameters = list(parameters)
        real(parameters)
        if count == 2 and join("cpu").rank == 1:
            parameters[0].grad[0] = float("inf")

    loop.dense_gradients = spoiled
    settings = config(amp="fp16", clip_norm=0.0, checkpoint_minutes=60)
    trainer = loop.Trainer(settings, split, folder)
    trainer.run()
    steps = {int(slots["step"]) for slots in trainer.optimizer.state.values()}
    save_file(trainer.model.state_dict(), folder.with_name(f"{folder.name}-rank{trainer.world.rank}.safetensors"))
    return {"scale": trainer.scaler.get_scale(), "initial": torch.amp.GradScaler("cpu").get_scale(), "steps": [*steps]}


def lost(folder: Path, split: Split) -> dict[str, Any]:
    """Rank 1 vanishes before its third step."""
    if join("cpu").rank == 1:
        at_step(3, lambda _: os._exit(0))
    return failing(config(), folder, split)


def other_settings(folder: Path, split: Split) -> dict[str, Any]:
    """Rank 1 is started with another learning rate."""
    return failing(config(lr=0.02 if join("cpu").rank == 1 else 0.01), folder, split)


def standings(folder: Path, split: Split) -> dict[str, Any]:
    """What the ranks find together is what each finds alone, for every protocol."""
    world, model = join("cpu"), loop.Trainer(config(), split).model
    same = []
    for protocol in ("full", "uniform-100"):
        settings = EvaluateConfig(protocol=protocol)
        cases: list[int] = []

        def share(part: Any, settings: EvaluateConfig = settings, cases: list[int] = cases) -> Any:
            cases.append(len(part))
            return evaluate(model, part, settings, split.train)

        together = evaluate_together(world, split.test, share)
        alone = evaluate(model, split.test, settings, split.train)
        same.append(all(np.array_equal(getattr(together, name), value) for name, value in vars(alone).items()))
    return {"same": same, "cases": cases, "all": len(split.test)}


def group(size: int, work: Work, folder: Path, split: Split) -> list[dict[str, Any] | None]:
    """Run `work` in `size` forks that find each other as under torchrun; what each returned, None for one that died."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) if size > 1 else None
    children = []
    for rank in range(size):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            try:
                if server is not None:
                    variables = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
                    os.environ.update({name: str(value) for name, value in variables.items()})
                    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(server.port))
                    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
                os.write(write, json.dumps(work(folder, split)).encode())
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(write)
        children.append((child, read))
    outcomes: list[dict[str, Any] | None] = []
    for child, read in children:
        with os.fdopen(read, "rb") as handle:
            said = handle.read()
        os.waitpid(child, 0)
        outcomes.append(json.loads(said) if said else None)
    return outcomes


def distance(a: Path, b: Path, bias_of_keys: bool = True) -> float:
    """The largest difference between two files of weights.

    Softmax takes no notice of the bias of the keys (it adds the same to all scores of a query), so its gradient is
    zero but for rounding, which Adam scales up to a step in float32; it can be left out.
    """
    x, y = load_file(a), load_file(b)
    assert x.keys() == y.keys()
    largest = 0.0
    for name in x:
        apart = (x[name].double() - y[name].double()).abs()
        if name.endswith("qkv.bias") and not bias_of_keys:
            width = len(apart) // 3
            apart = torch.cat((apart[:width], apart[2 * width :]))
        largest = max(largest, float(apart.max()))
    return largest


def same_weights(folder: Path, name: str, size: int) -> bool:
    first = (folder / f"{name}-rank0.safetensors").read_bytes()
    return all((folder / f"{name}-rank{rank}.safetensors").read_bytes() == first for rank in range(1, size))


def equality(folder: Path, split: Split) -> dict[str, Any]:
    """The same run by one process and by more, in both precisions."""
    report: dict[str, Any] = {}
    for dtype, worlds in WORLDS.items():
        torch.set_default_dtype(dtype)
        for objective, sizes in worlds.items():
            one = f"{objective}-1-{dtype}"
            for size in sizes:
                name, settings = f"{objective}-{size}-{dtype}", config(objective, checkpoint_minutes=60)
                outcomes = group(size, lambda p, s, c=settings: train(c, p, s), folder / name, split)
                files = folder / f"{one}-rank0.safetensors", folder / f"{name}-rank0.safetensors"
                report[name] = {
                    "ranks": outcomes,
                    "same": same_weights(folder, name, size),
                    "distance": distance(*files, bias_of_keys=dtype == torch.float64),
                }
    torch.set_default_dtype(torch.float32)
    return report


def resuming(folder: Path, split: Split) -> dict[str, Any]:
    """With dropout, two ranks stopped and resumed; without, resumed by another number of ranks."""
    report: dict[str, Any] = {}
    for name, rate, sizes in (("dropout", 0.3, (2, 2)), ("fewer", 0.0, (2, 1)), ("more", 0.0, (1, 2))):
        settings = config(dropout_rate=rate)
        group(sizes[0], lambda p, s, c=settings: train(c, p, s), folder / f"{name}-whole", split)
        ended = group(sizes[0], lambda p, s, c=settings: stopped(c, p, s, at=7), folder / name, split)
        outcomes = group(sizes[1], lambda p, s, c=settings: train(c, p, s), folder / name, split)
        files = folder / f"{name}-whole-rank0.safetensors", folder / f"{name}-rank0.safetensors"
        apart = distance(*files, bias_of_keys=rate > 0)
        report[name] = {"ended": ended, "ranks": outcomes, "distance": apart}
    report["dropout"]["same"] = same_weights(folder, "dropout", 2)
    return report


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    split = make_split(ordered_sequences(num_users=USERS, num_items=15, length=8), SplitConfig())
    _ = split.train.store.fingerprint
    loop.Trainer(config(num_epochs=1), split).run()  # what torch imports at first use is imported before any fork
    report = {"equality": equality(folder, split), "resuming": resuming(folder, split)}
    report["standings"] = group(3, standings, folder / "standings", split)
    report["not_finite"] = group(2, not_finite, folder / "not-finite", split)
    report["overflow"] = group(2, overflow, folder / "overflow", split)
    report["overflow_same"] = same_weights(folder, "overflow", 2)
    report["lost"] = group(2, lost, folder / "lost", split)
    report["other_settings"] = group(2, other_settings, folder / "other", split)
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
