"""Training with several processes: the `World` of a rank, and the collective operations that training uses.

Every rank draws the same global batch and takes every size-th row of it (`batches.loader.take_share`). The
randomness, the negatives and the number of targets are therefore the same as with one process. After the backward
pass, the gradients of all ranks are summed in one flat buffer, and every rank takes the same optimiser step.

torch's `DistributedDataParallel` is not used, for three reasons. It averages gradients, but the shares are already
divided by the global count and must be summed. It expects a gradient for every parameter on every rank, but a rank may
have no row of a small last batch. With gloo it gathers sparse gradients, although a dense sum is available. Its
advantage, reducing gradients during the backward pass, is small for models of a few megabytes.

Suffix: `B` cases.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial, reduce
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ensue.data.split import Cases
from ensue.errors import ConfigError, EnsueError, LostRankError, TrainingError
from ensue.evaluation.standings import Standings
from ensue.runs.checkpoint import Checkpoint
from ensue.runs.config import differences
from ensue.runs.swap import claimed
from ensue.runtime.devices import choose_device

T = TypeVar("T")
# How long a rank waits for the others; the longest regular wait is for rank 0 to write a checkpoint.
TIMEOUT = timedelta(minutes=10)
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class World:
    """The processes that train together, as seen by one of them; with one process, every method is trivial.

    Attributes:
        rank: number of this process, 0 .. size - 1; rank 0 writes files and shows progress.
        size: number of processes.
        device: where this rank computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place; the result is bitwise identical on every rank.

        Raises:
            LostRankError: another rank is gone.
        """
        return self._exchange(dist.all_reduce, tensor)

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Copy a tensor from rank 0 to every rank, in place.

        Raises:
            LostRankError: another rank is gone.
        """
        return self._exchange(partial(dist.broadcast, src=0), tensor)

    def broadcast_state(self, model: nn.Module) -> None:
        """Copy a model's tensors from rank 0 to every rank, in place.

        Raises:
            LostRankError: another rank is gone.
        """
        for tensor in model.state_dict().values():
            self.broadcast(tensor)

    def broadcast_json(self, value: Any) -> Any:
        """Return rank 0's value, which must be serialisable as JSON, on every rank.

        Raises:
            LostRankError: another rank is gone.
        """
        if self.size == 1:
            return value
        content = json.dumps(value).encode() if self.is_main else b""
        length = self.broadcast(torch.tensor([len(content)]))
        buffer = torch.zeros(int(length), dtype=torch.uint8)
        if self.is_main:
            buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return json.loads(bytes(self.broadcast(buffer).numpy()))

    def on_main(self, work: Callable[[], T]) -> T | None:
        """Call a function on rank 0 while the others wait; return its result there, and None on the others.

        Raises:
            EnsueError: rank 0 failed. Every rank raises this error, with the reason.
        """
        if self.size == 1:
            return work()
        if self.is_main:
            try:
                result = work()
            except Exception as error:
                self.broadcast_json(f"{type(error).__name__}: {error}")
                raise
            self.broadcast_json(None)
            return result
        failure = self.broadcast_json(None)
        if failure is not None:
            raise EnsueError(f"rank 0 failed: {failure}")
        return None

    def _exchange(self, collective: Callable[[Tensor], Any], tensor: Tensor) -> Tensor:
        if self.size > 1:
            try:
                collective(tensor)
            except RuntimeError as error:
                self._broken(error)
        return tensor

    def _broken(self, error: RuntimeError) -> NoReturn:
        # A regular shutdown of the process group would wait for the lost rank.
        atexit.unregister(_leave)
        # The first sentence of torch's message, without the source location.
        reason = re.sub(r"^\[\S+\] ", "", str(error).strip()).split(". ")[0].split("\n")[0] or type(error).__name__
        raise LostRankError(
            f"rank {self.rank} of {self.size} lost the connection to another rank, which was killed, failed or did not "
            f"answer in time ({reason}). See that rank's own output for the cause; the same command resumes from the "
            "last checkpoint"
        ) from error


def ranks() -> tuple[int, int]:
    """(rank, size) from the process group or from torchrun's environment variables; (0, 1) without either."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def join(device: str = "auto", timeout: timedelta = TIMEOUT) -> World:
    """The world of this process; under torchrun, connect to the other ranks first. Later calls reuse the connection.

    If `OMP_NUM_THREADS` is not set, the ranks of a machine share its cores.

    Args:
        device: as in the settings; with several ranks, `cuda` (and `auto`, where CUDA is available) uses a GPU per
            rank.
        timeout: how long to wait for the others, here and in later exchanges.

    Raises:
        ConfigError: the device does not exist, or there are fewer GPUs than ranks.
        TrainingError: the connection to the other ranks fails.
    """
    rank, size = ranks()
    if size == 1:
        return World(0, 1, choose_device(device))
    chosen = _rank_device(device)
    if not dist.is_initialized():
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, _cores() // int(os.environ.get("LOCAL_WORLD_SIZE", size))))
        # With NCCL too, a lost peer must raise an exception; by default a watchdog would abort the process.
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=timeout)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"rank {rank} of {size} could not connect to the others: {error}") from error
        atexit.register(_leave)
    return World(rank, size, chosen)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def end(status: int) -> NoReturn:
    """End this rank's process with an exit status, without the interpreter's regular shutdown.

    During that shutdown, threads left by torch occasionally abort a rank that has finished ("terminate called without
    an active exception"), and the whole command fails with it.
    """
    atexit.unregister(_leave)
    if status == 0:
        _leave()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_type(name: str, count: int) -> str:
    """The device type of `count` ranks on one machine: "cuda" (one GPU each) or "cpu" (a share of the cores each).

    Raises:
        ConfigError: the name means one particular device, or there are fewer than `count` GPUs.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device {name!r} cannot be shared by several ranks: use auto, cpu or cuda")
    gpus = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and gpus == 0):
        return "cpu"
    if gpus < count:
        raise ConfigError(
            f"{count} ranks need a CUDA device each, but this machine has {gpus}: use fewer ranks or device = cpu"
        )
    return "cuda"


def _rank_device(name: str) -> torch.device:
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device_type(name, local_size) == "cpu":
        return CPU
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


@contextmanager
def writing(world: World, folder: Path | None) -> Iterator[None]:
    """Hold `claimed(folder)` on rank 0, for all ranks; do nothing without a folder."""
    with ExitStack() as stack:
        if folder is not None:
            world.on_main(lambda: stack.enter_context(claimed(folder)))
        yield


def sum_gradients(world: World, parameters: Sequence[nn.Parameter], loss_sum: Tensor) -> float:
    """Sum the gradients and the loss of all ranks, in one exchange.

    A parameter without a gradient on some ranks counts as zero there. A parameter without a gradient on every rank
    keeps none: with a zero gradient, the optimiser's momentum would still move it.

    Args:
        world: the ranks.
        parameters: the same on every rank; afterwards their gradients are views of one buffer, bitwise identical on
            all ranks.
        loss_sum: the loss of this rank's positions, a scalar.

    Returns:
        The loss summed over the positions of all ranks.

    Raises:
        LostRankError: another rank is gone.
    """
    if world.size == 1:
        return float(loss_sum.detach())
    sizes = [parameter.numel() for parameter in parameters]
    has_gradient = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.float32)
    dtype = reduce(torch.promote_types, [parameter.dtype for parameter in parameters], torch.float32)
    flat = torch.zeros(sum(sizes) + len(sizes) + 1, dtype=dtype, device=world.device)
    *parts, counts, total = torch.split(flat, [*sizes, len(sizes), 1])
    for parameter, part in zip(parameters, parts, strict=True):
        if parameter.grad is not None:
            part.copy_(parameter.grad.reshape(-1))
    counts.copy_(has_gradient)
    total.copy_(loss_sum.detach())
    world.sum(flat)
    for parameter, part, count in zip(parameters, parts, counts.tolist(), strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype) if count else None
    return float(total)


def compare_ranks(world: World, own: dict[str, Any]) -> None:
    """Check that all ranks train on the same data with the same settings, `own` of this rank.

    Raises:
        TrainingError: this rank differs from rank 0; the message names the differences.
    """
    if world.size == 1:
        return
    changed = differences(own, world.broadcast_json(own))
    if changed:
        raise TrainingError(
            f"rank {world.rank} has other data or settings (now) than rank 0 (then): {'; '.join(changed)}"
        )


def evaluate_together(world: World, cases: Cases, evaluate: Callable[[Cases], Standings]) -> Standings:
    """Evaluate every size-th case on each rank; return the standings of all cases, in order, on every rank.

    Args:
        world: the ranks.
        cases: the same on every rank.
        evaluate: evaluates a subset of the cases.

    Raises:
        LostRankError: another rank is gone.
    """
    if world.size == 1:
        return evaluate(cases)
    counts = torch.zeros(4, len(cases), dtype=torch.int64)
    rows = np.arange(world.rank, len(cases), world.size)
    if len(rows):
        own = evaluate(cases.take(rows))
        table = np.stack((own.better_B, own.equal_B, own.candidates_B, own.repeated_B.astype(np.int64)))
        counts[:, rows] = torch.from_numpy(table)
    better_B, equal_B, candidates_B, repeated_B = world.sum(counts).numpy()
    return Standings(cases.users_B, cases.target_items_B, better_B, equal_B, candidates_B, repeated_B.astype(bool))


def broadcast_checkpoint(world: World, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """Return rank 0's checkpoint on every rank; None if it has none. Only rank 0 needs access to the folder."""
    if world.size == 1:
        return checkpoint
    about = None
    if checkpoint is not None:
        kinds = {name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in checkpoint.tensors.items()}
        about = {"state": checkpoint.state, "kinds": kinds}
    about = world.broadcast_json(about)
    if about is None:
        return None
    tensors = {}
    for name, (dtype, shape) in about["kinds"].items():
        tensor = torch.empty(shape, dtype=getattr(torch, dtype)) if checkpoint is None else checkpoint.tensors[name]
        tensors[name] = world.broadcast(tensor.contiguous())
    return Checkpoint(tensors, about["state"])
