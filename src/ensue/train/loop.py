"""The training loop. All randomness is a function of (seed, epoch, step), so a resumed run gives the same weights.

Under torchrun each process is a rank of one training (see `ensue.train.distributed`). The batch, the decisions and
the weights are those that a single process would have, and only rank 0 writes files.

Suffixes: `W` windows, `B` rows of a batch, `Q` asked events.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.batches.loader import make_loader, take_share
from ensue.batches.tasks import make_windows
from ensue.data.featured import check_columns, columns_of
from ensue.data.split import Cases, Split
from ensue.errors import ConfigError, LostRankError, NotFiniteError, TrainingError
from ensue.evaluation.evaluate import evaluate
from ensue.evaluation.standings import Standings
from ensue.models import Catalogue, Encoder, Model, build_model
from ensue.nn.embedding import dense_gradients, initialise
from ensue.nn.native.library import TORCH, compute, compute_with, computing_with
from ensue.nn.native.usage import Usage
from ensue.nn.ops.dropout import draws_from
from ensue.objectives.objective import Objective
from ensue.rng import stream, torch_seed
from ensue.runs.checkpoint import Checkpoint, load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from ensue.runs.config import RunConfig
from ensue.runs.folder import CHECKPOINTS, LOG, check_same, is_longer
from ensue.runs.log import RunLog, Watcher
from ensue.runtime.devices import autocast, cpu_threads
from ensue.runtime.memory import keep_freed_memory
from ensue.train.averaging import Average
from ensue.train.distributed import broadcast_checkpoint, compare_ranks, evaluate_together, join, sum_gradients, writing
from ensue.train.interrupt import Interrupted, Signals
from ensue.train.optim import learning_rate, make_optimizer
from ensue.train.progress import Progress
from ensue.train.start import take_weights

# Schedules over all epochs of a run.
STRETCHED = ("cosine", "one-cycle")


@dataclass(frozen=True, slots=True)
class Work:
    """The work of this rank in one step.

    Attributes:
        step: number of the step in its epoch.
        targets: number of targets in the whole batch, over all ranks.
        parts: this rank's rows, split into gradient-accumulation chunks; None for a chunk without rows.
    """

    step: int
    targets: int
    parts: list[SequenceBatch | None]


@dataclass(frozen=True)
class TrainResult:
    """The trained model, in its best state by validation, and the progress and log of its training."""

    model: Model
    progress: Progress


class Trainer:
    """Trains one encoder on one split.

    Args:
        config: the run's settings.
        split: the data; only `train` and `validation` are read.
        folder: where checkpoints and the log are written; None writes nothing.
        watchers: observers of the training; with several ranks, only those of rank 0 are used.
    """

    def __init__(
        self, config: RunConfig, split: Split, folder: Path | None = None, watchers: Iterable[Watcher] = ()
    ) -> None:
        self.config, self.split, self.folder = config, split, folder
        train = config.train
        self.world = join(train.device)
        self.device = self.world.device
        if train.batch_parts > train.batch_size:
            raise ConfigError(f"batch_parts {train.batch_parts} must not exceed batch_size {train.batch_size}")
        keep_freed_memory()
        model = build_model(config.model, Catalogue.of_store(split.train.store))
        initialise(model, train.seed)
        model.study(split.train)
        self.model = model.to(self.device)
        self.trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.objective = Objective(config.objective, split.train)
        shares = self.world.size * train.batch_parts
        self.objective.check(model, shares)
        task = config.make_task()
        windows = make_windows(split.train, config.model.maxlen, task.window or train.window, train.stride or None)
        self.loader = make_loader(windows, task, train.batch_size, train.seed, shares)
        self.optimizer = make_optimizer(self.model, train)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=train.amp == "fp16")
        # Drawn once for the whole run.
        self.validation = split.validation.sample(train.validation_users, stream(train.seed, "validation cases"))
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self.average = Average(train)
        self.log = RunLog(None, [])
        self.watchers: tuple[Watcher, ...] = ()
        self.watch(*watchers)
        self.last_saved = time.monotonic()
        self.signals = Signals()
        # Whether a schedule over all epochs was stretched by a larger number of epochs.
        self.is_stretched = False
        # What computed the checkpoint, if it cannot compute here.
        self.computed_by = ""

    @property
    def targets(self) -> int:
        """Training targets of one epoch."""
        windows = self.loader.windows
        return int((windows.stop_W - windows.start_W - 1).sum())

    def watch(self, *watchers: Watcher) -> None:
        """Add observers of the training; with several ranks, only those of rank 0 are used."""
        if self.world.is_main:
            self.watchers += watchers

    def run(self, finish: bool = False) -> TrainResult:
        """Train to the last epoch or until patience runs out, starting from the folder's checkpoint if there is one.

        On INT, TERM or HUP, and when another rank is lost, a checkpoint is written before the error is raised.

        Args:
            finish: train no further; return the best state of the folder's checkpoint.

        Raises:
            TrainingError: the checkpoint is of other data or settings, the loss is not finite, a rank is lost,
                another training writes into the folder, or there is no checkpoint to finish.
            ArtefactError: the folder contains files that ensue did not create.
            Interrupted: a signal ended the training.
        """
        with writing(self.world, self.folder), cpu_threads(self.config.train.threads), computing_with(), self.signals:
            return self._run(finish)

    def work(self, epoch: int, first_step: int = 0) -> Iterator[Work]:
        """This rank's work in each step of an epoch from `first_step` on: batches and negatives, on the CPU."""
        train, world = self.config.train, self.world
        size = world.size * train.batch_parts
        for step, rows_B, batch in self.loader.epoch(epoch, first_step):
            batch = self.objective.draw(rows_B, batch, stream(train.seed, "negatives", epoch, step))
            parts = [take_share(batch, number, size) for number in range(world.rank, size, world.size)]
            yield Work(step, len(batch.asked_Q), parts)

    def _run(self, finish: bool) -> TrainResult:
        world = self.world
        compare_ranks(world, {"data": self.split.train.store.fingerprint, **self.config.model_dump(mode="json")})
        checkpoint = broadcast_checkpoint(world, world.on_main(self._load))
        if checkpoint is not None:
            self._restore(checkpoint)
        elif finish:
            raise TrainingError(f"{self.folder}: no checkpoint to finish: train without --finish (finish=True) first")
        elif (start := self.config.train.start_from) is not None:
            world.on_main(lambda: take_weights(start, self.model, self.split.train.store))
        world.broadcast_state(self.model)
        path = self.folder / LOG if self.folder is not None and world.is_main else None
        self.log = RunLog(path, self.progress.records, self.watchers)
        if not finish:
            self._train()
        with self.average.applied(self.model):
            state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.best or state)
        self.model.eval()
        return TrainResult(self.model, self.progress)

    def _train(self) -> None:
        progress, train = self.progress, self.config.train
        for watcher in self.watchers:
            watcher.start(self.loader.steps, train.num_epochs, progress.epoch, progress.step, self.log.records)
        try:
            while not progress.finished and progress.epoch < train.num_epochs:
                self._epoch()
            if not progress.finished:
                with self.signals.whole():
                    progress.finished, progress.stopped_by = True, "num_epochs"
                    self.world.on_main(self._save)
        except (Interrupted, LostRankError):
            with self.signals.whole():
                self.average.remove(self.model)
                self._save()
            raise
        finally:
            for watcher in self.watchers:
                watcher.finish()

    def _epoch(self) -> None:
        progress, train, steps = self.progress, self.config.train, self.loader.steps
        started = time.monotonic() - progress.seconds
        usage = Usage()
        self.model.train()
        for work in self.work(progress.epoch, progress.step):
            self._step(progress.epoch, work)
            progress.seconds, progress.compute = time.monotonic() - started, str(usage)
            for watcher in self.watchers:
                watcher.step(progress.epoch, work.step, progress.loss_sum / progress.targets)
            if progress.step < steps and self._agree(progress.is_time_up(train)):
                break
            if progress.step < steps and self._is_time_to_save():
                self._save()
        epoch = progress.epoch + 1
        with self.signals.whole():
            self.average.after_epoch(self.model, epoch)
        record = progress.record(self._rate(progress.epoch, progress.step - 1), steps)
        record["compute"] = f"{progress.compute}{self.computed_by}"
        standings, is_late = None, self._agree("steps" in record or progress.is_out_of_time(train, record))
        if epoch % train.eval_epochs == 0 or epoch == train.num_epochs or is_late:
            standings = self._validate(record)
        # The results of an evaluation and the epoch's number change together, so a checkpoint has both or neither.
        with self.signals.whole():
            if standings is not None:
                self._judge(float(standings.metric(train.validation_metric).mean()), epoch)
            if is_late and not progress.finished and epoch < train.num_epochs:
                progress.finished, progress.stopped_by = True, "max_minutes"
            progress.next_epoch()
            self.log.add(record)
            progress.records = self.log.records
            if progress.finished or self._is_time_to_save():
                self._save()

    def _agree(self, answer: bool) -> bool:
        """The answer of rank 0 to a question of time; without a limit no rank needs to ask."""
        return bool(self.config.train.max_minutes and self.world.broadcast_json(answer))

    def _step(self, epoch: int, work: Work) -> None:
        """Compute the gradients, take one optimiser step and count it."""
        loss_sum, norm = self._gradients(epoch, work)
        with self.signals.whole():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.model.step_taken()
            self.average.after_step(self.model)
            self.progress.add_step(work.step, loss_sum, work.targets, norm)

    def _gradients(self, epoch: int, work: Work) -> tuple[float, float]:
        """Compute the gradients of one step; return the loss summed over the batch's targets, and the gradient norm."""
        config, world, step = self.config.train, self.world, work.step
        purpose = "dropout" if world.is_main else f"dropout {world.rank}"
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(epoch, step)
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), device=self.device)
        with draws_from(torch_seed(config.seed, purpose, epoch, step), self.device):
            for number, part in enumerate(work.parts):
                part_sum = self._loss_sum(part)
                loss_sum += part_sum.detach()
                # This chunk's share of the mean over all targets, and of the penalty; the gradients are summed.
                objective = part_sum / work.targets
                if config.l2_emb and number == 0:
                    objective = objective + config.l2_emb / world.size * self._item_norms()
                scaled = self.scaler.scale(objective)
                if scaled.requires_grad:
                    scaled.backward()  # type: ignore[no-untyped-call]
        dense_gradients(self.trainable)
        # From here on every rank has the same numbers and so makes the same decisions.
        value = sum_gradients(world, self.trainable, loss_sum)
        if not math.isfinite(value):
            raise self._not_finite("loss", value, epoch, step)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm(p.grad for p in self.trainable if p.grad is not None)
        # With fp16 the scaler skips such a step and lowers its scale.
        if config.amp != "fp16" and not math.isfinite(float(norm)):
            raise self._not_finite("gradient norm", float(norm), epoch, step)
        if config.clip_norm:
            nn.utils.clip_grads_with_norm_(self.trainable, config.clip_norm, norm)
        return value, float(norm)

    def _rate(self, epoch: int, step: int) -> float:
        """The learning rate of a step."""
        steps = self.loader.steps
        return learning_rate(self.config.train, epoch * steps + step, steps, self.progress.reductions)

    def _item_norms(self) -> Tensor:
        """The sum of squares of all item vectors; zero for a model that has none."""
        if not isinstance(self.model, Encoder):
            return torch.zeros((), device=self.device)
        return self.model.item_vectors().square().sum()

    def _loss_sum(self, batch: SequenceBatch | None) -> Tensor:
        """The loss summed over a chunk's targets: a scalar; zero for a chunk without rows."""
        if batch is None:
            return torch.zeros((), device=self.device)
        with autocast(self.config.train.amp, self.device):
            return self.objective(self.model, batch.to(self.device)).sum()

    def _not_finite(self, what: str, value: float, epoch: int, step: int) -> NotFiniteError:
        # The step was not taken, so the weights are still those of the last good step.
        self.world.on_main(self._save)
        kept = "" if self.folder is None else f"; the state before this step is saved in {self.folder / 'checkpoints'}"
        return NotFiniteError(
            f"training stopped: the {what} is {value} at epoch {epoch + 1}, step {step + 1}{kept}. "
            f"Try a smaller lr (now {self.config.train.lr}), clip_norm = 1, or amp = off."
        )

    def _standings(self, cases: Cases) -> Standings:
        """The standings of the current model on some cases, under the validation protocol."""
        settings = self.config.validation
        with self.average.applied(self.model):
            return evaluate_together(
                self.world, cases, lambda own: evaluate(self.model, own, settings, self.split.train)
            )

    def _validate(self, record: dict[str, Any]) -> Standings | None:
        """Evaluate on validation and add the metric to the epoch's record; None without cases."""
        train = self.config.train
        if len(self.validation) == 0:
            return None
        started = time.monotonic()
        standings = self._standings(self.validation)
        record[f"validation {self.config.validation_label}"] = float(standings.metric(train.validation_metric).mean())
        record["validation seconds"] = round(time.monotonic() - started, 3)
        return standings

    def _judge(self, value: float, epoch: int) -> None:
        """Keep the state if it is the best on validation; end training if patience has run out."""
        progress = self.progress
        if progress.judge(value, epoch, self.config.train.plateau_evaluations):
            with self.average.applied(self.model):
                self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        elif progress.is_out_of_patience(self.config.train, self.loader.steps):
            progress.finished, progress.stopped_by = True, "patience"

    def _is_time_to_save(self) -> bool:
        return time.monotonic() - self.last_saved >= 60 * self.config.train.checkpoint_minutes

    def _save(self) -> None:
        if self.folder is None or not self.world.is_main:
            return
        average = self.average
        progress = replace(self.progress, records=self.log.records, averaged=average.count)
        progress.averaged_epoch = average.epoch
        tensors = {
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{f"best.{name}": tensor for name, tensor in self.best.items()},
            **{f"average.{name}": tensor for name, tensor in average.values.items()},
            **optimizer_tensors(self.optimizer, self.model),
            **{f"carried.{name}": tensor for name, tensor in self.model.carried.items()},
        }
        state = {
            "config": self.config.model_dump(mode="json"),
            "fingerprint": self.split.train.store.fingerprint,
            "columns": columns_of(self.split.train.store),
            "threads": torch.get_num_threads(),
            "compute": compute().name,
            "scaler": self.scaler.state_dict(),
            "progress": vars(progress),
        }
        number = 2 * (progress.epoch * (self.loader.steps + 1) + progress.step) + progress.finished
        with self.signals.whole():
            save_checkpoint(self.folder / CHECKPOINTS, Checkpoint(tensors, state), number)
        self.last_saved = time.monotonic()

    def _load(self) -> Checkpoint | None:
        return None if self.folder is None else load_checkpoint(self.folder / CHECKPOINTS)

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        store = self.split.train.store
        then = RunConfig.parse(state["config"], f"checkpoint in {self.folder}")
        check_same(self.folder, self.config, store.fingerprint, then, state["fingerprint"])
        check_columns(self.folder, store, state.get("columns", {}))
        self.model.load_state_dict(checkpoint.part("model"))
        self.best = checkpoint.part("best")
        self.model.carried = {name: tensor.to(self.device) for name, tensor in checkpoint.part("carried").items()}
        restore_optimizer(self.optimizer, self.model, checkpoint.part("optimizer"))
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress.of_checkpoint(state)
        self.average.restore(checkpoint.part("average"), self.progress, self.device)
        if is_longer(self.config.train, then.train):
            self.progress.continue_beyond(self.config.train, self.loader.steps)
            self.average.continue_beyond(self.progress.epoch)
            self.is_stretched = self.config.train.schedule in STRETCHED and bool(self.progress.epoch)
        # The last bits of sums depend on the number of threads, so use the checkpoint's number, but never more threads
        # than cores.
        if not self.config.train.threads and state["threads"] <= (os.cpu_count() or 1):
            torch.set_num_threads(state["threads"])
        # They depend on the instruction set too. Checkpoints of versions without the native library do not name one.
        name = state.get("compute", TORCH)
        if not compute_with(name, "as the checkpoint"):
            self.computed_by = f"; the checkpoint: {name}"
