"""Runs trainings that are killed by SIGKILL at chosen operations; a script, so that each kill meets a young process.

The modules are imported once; every attempt is a fork of this process. An attempt counts the operations that
touch the disk, and the steps; at a given count it kills itself: before the operation, after it, or with a
write half done. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import ensue.runs.tensors as tensors_file
from ensue.data.split import Split, SplitConfig, make_split
from ensue.datasets.simulate import ordered_sequences
from ensue.models.sasrec import SASRecConfig
from ensue.objectives.objective import ObjectiveConfig
from ensue.rng import stream
from ensue.runs.config import RunConfig, TrainConfig
from ensue.runs.log import Records, RunLog
from ensue.train.loop import Trainer

CONFIG = RunConfig(
    model=SASRecConfig(maxlen=6, hidden_units=8, num_blocks=1, dropout_rate=0.3),
    objective=ObjectiveConfig(negatives="mixed", num_negatives=2),
    train=TrainConfig(
        num_epochs=4,
        batch_size=8,
        lr=0.05,
        seed=4,
        warmup_steps=2,
        schedule="cosine",
        clip_norm=1.0,
        l2_emb=0.01,
        checkpoint_minutes=0,
        device="cpu",
    ),
)


class Killer:
    """Counts events and dies at the one with the given number."""

    def __init__(self, at: int | None, report: int) -> None:
        self.at, self.report, self.count = at, report, 0

    def event(self, name: str, half: Callable[[], Any] | None = None) -> None:
        if self.count == self.at:
            if half is not None:
                half()
            os.write(self.report, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def around(self, owner: Any, name: str, half: Callable[..., Any] | None = None) -> None:
        """Make `owner.name` an event before, after, and (where it can be torn) in the middle."""
        real = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.event(f"before {name}")
            if half is not None:
                self.event(f"amid {name}", lambda: half(*args))
            result = real(*args, **kwargs)
            self.event(f"after {name}")
            return result

        setattr(owner, name, wrapped)


class StepWatcher:
    """A kill between two steps."""

    def __init__(self, killer: Killer) -> None:
        self.killer = killer

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        self.killer.event("start")

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.killer.event("step")

    def record(self, record: dict[str, Any]) -> None:
        self.killer.event("record")

    def finish(self) -> None:
        self.killer.event("finish")


def install(killer: Killer) -> None:
    """Patch what writes. Syncs are counted and not made: a killed process loses nothing that the system has."""
    write_bytes = Path.write_bytes

    def half_file(path: Path, content: bytes) -> None:
        write_bytes(path, content[: len(content) // 2])

    def half_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
        save_file(tensors, path)
        write_bytes(path, path.read_bytes()[:100])

    def half_folder(path: Path, *_: Any) -> None:
        for file in sorted(Path(path).glob("*"))[:1]:
            file.unlink()

    def half_line(log: RunLog, record: dict[str, Any]) -> None:
        with log.path.open("ab") as handle:
            handle.write(json.dumps(record).encode()[:9])

    os.fsync = lambda handle: None
    for name in ("fsync", "rename", "replace"):
        killer.around(os, name)
    killer.around(Path, "write_bytes", half_file)
    killer.around(tensors_file, "save_file", half_tensors)
    killer.around(shutil, "rmtree", half_folder)
    killer.around(RunLog, "add", half_line)


def attempt(folder: Path, split: Split, kill_at: int | None) -> str:
    """Train in a fork: the event it was killed at, or "events: N" if it came to its end."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            killer = Killer(kill_at, write)
            install(killer)
            result = Trainer(CONFIG, split, folder, [StepWatcher(killer)]).run()
            save_file(result.model.state_dict(), folder / "final.safetensors")
            os.write(write, f"events: {killer.count}".encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as handle:
        said = handle.read().decode()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if killed == said.startswith("events") or not (killed or os.WEXITSTATUS(status) == 0):
        raise RuntimeError(f"unexpected end: status {status}, said {said!r}")
    return said


def outcome(folder: Path) -> dict[str, Any]:
    """All that must be equal in every bit: weights, the newest checkpoint, and the log but for its clock."""
    newest = max(path for path in (folder / "checkpoints").glob("[0-9]*"))
    state = json.loads((newest / "state.json").read_bytes())
    records = [json.loads(line) for line in (folder / "log.jsonl").read_bytes().splitlines()]
    for record in (*records, *state["progress"]["records"], state["progress"]):
        for key in [key for key in record if "seconds" in key]:
            del record[key]
    return {
        "final": (folder / "final.safetensors").read_bytes().hex(),
        "checkpoint": (newest / "state.safetensors").read_bytes().hex(),
        "state": state,
        "log": records,
        "folders": sorted(path.name for path in (folder / "checkpoints").iterdir()),
    }


def main(folder: Path, trials: int) -> None:
    torch.set_num_threads(1)
    split = make_split(ordered_sequences(num_users=24, num_items=15, length=8), SplitConfig())
    # What is made once is made before any fork: the fingerprint, and the modules that torch imports at first use.
    _ = split.train.store.fingerprint
    Trainer(CONFIG.replace(train=CONFIG.train.replace(num_epochs=1)), split).run()
    # The best epoch is not the last, so that forgetting the best state shows.
    events = int(attempt(folder / "undisturbed", split, None).removeprefix("events: "))
    expected = outcome(folder / "undisturbed")
    if not 1 <= expected["state"]["progress"]["best_epoch"] < CONFIG.train.num_epochs:
        raise RuntimeError("choose settings whose best epoch is not the last")
    kills: list[list[str]] = []
    different: list[int] = []
    for trial in range(trials):
        rng, path = stream(trial, "kills"), folder / f"{trial}"
        # The first within six tenths of the run; the second, counted from there, before its end; some at the start.
        plan = [rng.integers(int(0.6 * events)), rng.integers(int(0.3 * events)), rng.integers(12)][: 2 + trial % 2]
        kills.append([attempt(path, split, int(at)) for at in plan])
        attempt(path, split, None)
        if outcome(path) != expected:
            different.append(trial)
    print(json.dumps({"events": events, "kills": kills, "different": different, "folders": expected["folders"]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
