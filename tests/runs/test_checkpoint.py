"""Checkpoints on a disk that is full, and on one whose power fails."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from disk import Disk, Tree
from safetensors import SafetensorError

from ensue.data.split import Split
from ensue.runs.checkpoint import TENSORS, Checkpoint, load_checkpoint, numbered, save_checkpoint
from ensue.runs.config import RunConfig
from ensue.runs.tensors import read_tensors, write_tensors
from ensue.train.loop import Trainer


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Writing more than `limit` bytes to a file fails, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with small_files(1000), pytest.raises(OSError, match=r"model\.safetensors") as caught:
        write_tensors({"a": torch.zeros(10_000)}, tmp_path / "model.safetensors")
    assert caught.value.errno == errno.EFBIG


def test_an_error_without_a_number_is_reported_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tensors: object, path: Path) -> None:
        raise SafetensorError("odd")

    monkeypatch.setattr("ensue.runs.tensors.save_file", fail)
    with pytest.raises(OSError, match=r"model: cannot be written \(odd\)"):
        write_tensors({}, tmp_path / "model")


def test_a_full_disk_costs_no_checkpoint(tiny: Callable[..., RunConfig], split: Split, tmp_path: Path) -> None:
    class Full:
        def start(self, *_: object) -> None: ...

        def step(self, epoch: int, step: int, loss: float) -> None:
            if step == 2:
                limit.__enter__()

        def record(self, *_: object) -> None: ...

        def finish(self) -> None:
            limit.__exit__(None, None, None)

    limit = small_files(1000)
    with pytest.raises(OSError, match=TENSORS):
        Trainer(tiny(), split, tmp_path, [Full()]).run()
    assert len(numbered(tmp_path / "checkpoints")) == 2
    resumed = Trainer(tiny(), split, tmp_path).run().model.state_dict()
    whole = Trainer(tiny(), split).run().model.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def checkpoint(number: int) -> Checkpoint:
    return Checkpoint({"model.a": torch.full((3,), float(number))}, {"number": number})


def loaded_number(tree: Tree, folder: Path) -> int | None:
    """The checkpoint that a training would go on from, on the disk that a power cut left."""
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    loaded = load_checkpoint(folder / "checkpoints")
    if loaded is None:
        return None
    number: int = loaded.state["number"]
    assert bool((loaded.tensors["model.a"] == number).all())
    return number


def after_cuts(disk: Disk, scratch: Path) -> tuple[set[int | None], set[int | None]]:
    """What can be found after a cut during the save, and after one when it has returned."""
    during = {loaded_number(tree, scratch / str(number)) for number, tree in enumerate(disk.cuts)}
    return during, {loaded_number(tree, scratch / f"end{number}") for number, tree in enumerate(disk.left())}


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_power_cut_leaves_the_old_checkpoint_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for number in range(1, before + 1):
        save_checkpoint(run / "checkpoints", checkpoint(number), number)
    with monkeypatch.context() as patched:
        disk = Disk(patched, run)
        save_checkpoint(run / "checkpoints", checkpoint(before + 1), before + 1)
    during, after = after_cuts(disk, tmp_path)
    assert during == {before or None, before + 1}
    assert after == {before + 1}


SYNCED = {
    "tensors": lambda path: path.name == TENSORS,
    "names in the checkpoint": lambda path: path.name.endswith("2.tmp") and path.is_dir(),
    "the checkpoint's name": lambda path: path.name == "checkpoints",
}


@pytest.mark.parametrize("removed", SYNCED)
def test_a_checkpoint_without_one_of_its_fsyncs_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: str
) -> None:
    run = tmp_path / "run"
    save_checkpoint(run / "checkpoints", checkpoint(1), 1)
    with monkeypatch.context() as patched:
        disk = Disk(patched, run, SYNCED[removed])
        save_checkpoint(run / "checkpoints", checkpoint(2), 2)
    assert 1 in after_cuts(disk, tmp_path)[1]


def test_the_folder_of_the_first_checkpoint_is_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        disk = Disk(patched, tmp_path, lambda path: path == tmp_path)
        save_checkpoint(tmp_path / "checkpoints", checkpoint(1), 1)
    assert None in after_cuts(disk, tmp_path / "after")[1]


def test_a_transposed_tensor_is_read_back_as_it_was(tmp_path: Path) -> None:
    """safetensors 0.8 writes memory order under the logical shape of a numpy array; tensors must be made contiguous."""
    transposed = torch.arange(6.0).view(3, 2).T
    write_tensors({"weight": transposed}, tmp_path / "t.safetensors")
    assert torch.equal(read_tensors(tmp_path / "t.safetensors", {"weight": transposed})["weight"], transposed)
