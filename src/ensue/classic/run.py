"""The classic program: read the data, print the model, then train it or evaluate a given one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch

from ensue.classic.arguments import Arguments, parse
from ensue.classic.data import read_data
from ensue.classic.settings import REPORTED, check, classic_config, describe, resolve, whole_config
from ensue.classic.start import Start, check_same_start, open_start, other_norms, split_for
from ensue.data.split import Split, make_split
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError, EnsueError
from ensue.evaluation.evaluate import evaluate
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.standings import Standings
from ensue.files import MANIFEST
from ensue.models import CountedModel, Model
from ensue.plots import learning_curve
from ensue.recommender import Recommender
from ensue.runs.checkpoint import Checkpoint
from ensue.runs.config import RunConfig
from ensue.runs.folder import STORE, interrupted
from ensue.runs.log import Records, Watcher, best_of, epochs_of
from ensue.runs.swap import claimed
from ensue.terminal.memory import explain_memory_errors
from ensue.terminal.output import Screen
from ensue.train.distributed import World, join
from ensue.train.fit import Fitted, fit
from ensue.train.interrupt import Interrupted
from ensue.train.loop import Trainer

Say = Callable[[str], None]
T = TypeVar("T")
INTERRUPTED = 130
# Validation cases for choosing among the normalisations of a file: the right one scores far better than the others.
TRIAL_CASES = 1000
# Seconds between two exchanges while ranks work; far below the timeout of an exchange.
PULSE = 20.0


def main(words: Sequence[str] | None = None) -> int:
    """Run one classic command line.

    Args:
        words: the arguments; those of the process by default.

    Returns:
        The exit status: 0, 1 for an error, 2 for a wrong flag or setting, 130 after Ctrl-C.
    """
    arguments = parse(words)
    try:
        with explain_memory_errors("lower --batch_size, --maxlen or --hidden_units"):
            _run(arguments)
    except KeyboardInterrupt as stop:
        after = "" if arguments.inference_only else f": {interrupted(_folder(arguments))}"
        return _fail(f"interrupted{after}", stop.status if isinstance(stop, Interrupted) else INTERRUPTED)
    except ConfigError as error:
        return _fail(str(error), 2)
    except (EnsueError, OSError) as error:
        return _fail(str(error), 1)
    return 0


def _fail(message: str, status: int) -> int:
    sys.stdout.flush()
    print(f"main.py: {message}", file=sys.stderr)
    return status


def _run(arguments: Arguments) -> None:
    check(arguments)
    device = device_of(arguments)
    world = join(device)
    say: Say = Screen().say if world.is_main else lambda _: None
    store, what = _read(world, arguments.dataset)
    folder = _folder(arguments)
    path = _start_path(arguments, folder)
    start = None if path is None else open_start(arguments, path, store)
    if start is None:
        resolved = resolve(arguments, store.times is not None)
        config = classic_config(arguments, resolved, device, _amp(arguments, world))
        say(f"model: {describe(config.model)}")
        say(f"defaults: the {'newer' if resolved.newer else 'older'} command line's, for {resolved.reason}")
    else:
        model = {**start.config.model_dump(), "dropout_rate": arguments.dropout_rate}
        if isinstance(start.model, CountedModel):
            model = start.config.model_dump()
        config = whole_config(arguments, model, device, _amp(arguments, world))
        say(f"model: {describe(config.model)}; from {start.origin}")
    for warning in _warnings(arguments, device, world) if world.is_main else ():
        print(f"main.py: warning: {warning}", file=sys.stderr)
    say(what)
    if not arguments.inference_only:
        _train(world, config, store, folder, start, say)
    elif start is not None and world.is_main:
        _infer(arguments, config.evaluate, start, store, world, say)


def _read(world: World, dataset: str) -> tuple[SequenceStore, str]:
    """`read_data` on every rank, rank 0 first: it downloads missing data, which may take hours."""
    first = patiently(world, lambda: read_data(dataset) if world.is_main else None)
    return patiently(world, lambda: first or read_data(dataset))


def patiently(world: World, work: Callable[[], T]) -> T:
    """Do some work on every rank, and return when all ranks are done, however long that takes.

    The ranks exchange a message every `PULSE` seconds, so that those that are done do not time out.

    Raises:
        EnsueError: the work failed on rank 0. Every rank raises this error, with the reason.
    """
    if world.size == 1:
        return work()
    pool = ThreadPoolExecutor(1)
    job = pool.submit(work)
    pool.shutdown(wait=False)
    while int(world.sum(torch.tensor([len(wait([job], PULSE).done)]))) < world.size:
        pass
    world.on_main(job.result)
    return job.result()


def _folder(arguments: Arguments) -> Path:
    return Path(f"{arguments.dataset}_{arguments.train_dir}")


def device_of(arguments: Arguments) -> str:
    """The requested device, or the CPU if a GPU is requested but none is available."""
    wants_gpu = arguments.device.startswith("cuda")
    return "cpu" if wants_gpu and not torch.cuda.is_available() else arguments.device


def _warnings(arguments: Arguments, device: str, world: World) -> list[str]:
    warnings = []
    if device != arguments.device:
        warnings.append(f"--device={arguments.device}, but this machine has no CUDA GPU: computing on the CPU")
    if arguments.multi_gpu and world.size == 1:
        warnings.append(
            "--multi_gpu, but this is a single process: start it with torchrun --nproc-per-node N main.py ..."
        )
    return warnings


def _amp(arguments: Arguments, world: World) -> str:
    if not arguments.use_amp:
        return "off"
    on_gpu = world.device.type == "cuda"
    return "fp16" if on_gpu and not torch.cuda.is_bf16_supported() else "bf16"


def _start_path(arguments: Arguments, folder: Path) -> Path | None:
    if arguments.state_dict_path is not None:
        return Path(arguments.state_dict_path)
    if not arguments.inference_only:
        return None
    if not (folder / MANIFEST).is_file():
        raise ConfigError(f"--inference_only needs --state_dict_path, since {folder} contains no trained run")
    return folder


class LossLines:
    """A watcher that prints the loss of the epochs between evaluations.

    Attributes:
        say: prints a line.
        evaluated: the epoch that was evaluated last; its line is already printed.
    """

    def __init__(self, say: Say) -> None:
        self.say, self.evaluated = say, 0

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        """Print nothing."""

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Print nothing."""

    def record(self, record: dict[str, Any]) -> None:
        """Print the epoch's loss, unless the trainer has printed its evaluation."""
        if record["epoch"] != self.evaluated:
            self.say(f"epoch:{record['epoch']}, loss: {record['loss']:.4f}")

    def finish(self) -> None:
        """Print nothing."""


class ClassicTrainer(Trainer):
    """A trainer that prints the classic program's line after each evaluation and may start from given weights.

    Test figures are only printed: the best state is chosen by validation NDCG@10.
    """

    def __init__(
        self,
        config: RunConfig,
        split: Split,
        folder: Path | None,
        watchers: Iterable[Watcher],
        start: Start | None,
        say: Say,
    ) -> None:
        self.lines = LossLines(say)
        super().__init__(config, split, folder, [self.lines, *watchers])
        self.say, self.given = say, start
        if start is not None:
            self.model.load_state_dict(start.model.state_dict())
            self.progress.epoch = start.epoch
            # The record is part of the checkpoints, so a resumed run still names the weights it started from.
            self.progress.records = [start.record()]

    def _restore(self, checkpoint: Checkpoint) -> None:
        # Compare settings first: if they differ, the message must name them.
        super()._restore(checkpoint)
        check_same_start(cast(Path, self.folder), self.given, self.progress.records)
        self.say(f"resuming from the checkpoint in {self.folder}")

    def _validate(self, record: dict[str, Any]) -> Standings | None:
        standings = super()._validate(record)
        seconds = sum(past["seconds"] for past in epochs_of(self.log.records)) + record["seconds"]
        test = self._standings(self.split.test) if len(self.split.test) else None
        parts = [_part(title(name, self.config.evaluate), of) for name, of in (("valid", standings), ("test", test))]
        self.lines.evaluated = record["epoch"]
        self.say(f"epoch:{record['epoch']}, time: {seconds:f}(s), {', '.join(parts)}")
        return standings


def _part(name: str, standings: Standings | None) -> str:
    if standings is None:
        return f"{name} (no user has 3 events)"
    return figures(name, *(float(standings.metric(metric).mean()) for metric in REPORTED))


def title(part: str, protocol: EvaluateConfig) -> str:
    """The part's name; with the protocol's key if the model reads the target's time, which is another protocol."""
    return f"{part} {protocol.key}" if protocol.query_time else part


def figures(name: str, ndcg: float, hit_rate: float) -> str:
    """A part's figures, formatted as by the original programs."""
    return f"{name} (NDCG@10: {ndcg:.4f}, HR@10: {hit_rate:.4f})"


def _train(world: World, config: RunConfig, store: SequenceStore, folder: Path, start: Start | None, say: Say) -> None:
    if start is not None:
        _check_trainable(start, config)
    store = world.on_main(lambda: _kept_store(folder, store)) or store
    fitted = fit(config, store, folder, begin=partial(ClassicTrainer, start=start, say=say))
    if not fitted.is_new:
        check_same_start(folder, start, fitted.log)
        say(f"already trained: {folder}")
    world.on_main(lambda: _report(fitted, store, folder, say))


def _kept_store(folder: Path, store: SequenceStore) -> SequenceStore:
    """Save the store in the run folder, so that the run refers to its data; return the saved store."""
    if (folder / STORE / MANIFEST).is_file():
        kept = SequenceStore.open(folder / STORE)
        # Data of another run is not touched; `fit` refuses the folder.
        return kept if kept.fingerprint == store.fingerprint else store
    with claimed(folder):
        store.save(folder / STORE)
    return SequenceStore.open(folder / STORE)


def _check_trainable(start: Start, config: RunConfig) -> None:
    if isinstance(start.model, CountedModel):
        raise ConfigError(f"{start.origin} contains a model that is fitted by counting, so training cannot continue it")
    if start.epoch and start.epoch >= config.train.num_epochs:
        raise ConfigError(
            f"{start.file} is already at epoch {start.epoch}: --num_epochs must be larger "
            f"(got {config.train.num_epochs})"
        )


def _report(fitted: Fitted, store: SequenceStore, folder: Path, say: Say) -> None:
    """Draw the training curve, evaluate the kept state, and print its figures."""
    learning_curve(fitted.log, folder)
    recommender = Recommender.from_run(fitted.run, fitted.log)
    if len(make_split(store, fitted.run.config.split).test):
        parts, protocol = [], fitted.run.config.evaluate
        for name, part in (("valid", "validation"), ("test", "test")):
            means, _ = recommender.evaluate(store, part, protocol, folder)
            parts.append(figures(title(name, protocol), *(means[protocol.label(metric)] for metric in REPORTED)))
        best = best_of(fitted.log, fitted.run.config.validation_label)
        epoch = best[1] if best else epochs_of(fitted.log)[-1]["epoch"]
        say(f"best by validation: epoch:{epoch}, {', '.join(parts)}")
    say(f"Done; saved in {folder}")


def _infer(
    arguments: Arguments, protocol: EvaluateConfig, start: Start, store: SequenceStore, world: World, say: Say
) -> None:
    split = split_for(start, store)
    start.model.to(world.device)
    standings = evaluate(start.model, split.test, protocol, split.train)
    say(_part(title("test", protocol), standings))
    if start.activation_assumed:
        say(
            "note: the file does not list its modules, so activation relu is assumed. For a file from before 10 "
            f"October 2020: `ensue import {start.file} --activation none --out RUN`, then --state_dict_path=RUN"
        )
    if start.norm_assumed:
        _doubt_norm(arguments, protocol, start, store, split, world, say)


def _doubt_norm(
    arguments: Arguments,
    protocol: EvaluateConfig,
    start: Start,
    store: SequenceStore,
    split: Split,
    world: World,
    say: Say,
) -> None:
    """Print a note if a file scores far better with another normalisation than the assumed one."""
    here = _trial(start.model, protocol, split, world)
    models = other_norms(arguments, start.file, store)
    others = {norm: _trial(model, protocol, split, world) for norm, model in models.items()}
    best = max(others, key=lambda norm: others[norm])
    # The difference between two wrong normalisations is small.
    if others[best] > here + 0.05:
        say(
            "note: the file does not record how its layers are normalised. Its validation NDCG@10 is "
            f"{others[best]:.4f} with norm {best}, and {here:.4f} here. To use norm {best}: "
            f"`ensue import {start.file} --norm {best} --out RUN`, then --state_dict_path=RUN"
        )


def _trial(model: Model, protocol: EvaluateConfig, split: Split, world: World) -> float:
    cases = split.validation.take(np.arange(min(TRIAL_CASES, len(split.validation))))
    standings = evaluate(model.to(world.device), cases, protocol, split.train)
    return float(standings.metric("ndcg@10").mean())
