"""A disk that is full is an error of the system's kind, and names the file."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from ensue.data.split import Split
from ensue.train.checkpoint import TENSORS, numbered, write_tensors
from ensue.train.config import RunConfig
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


def test_an_error_without_a_number_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tensors: object, path: Path) -> None:
        raise SafetensorError("odd")

    monkeypatch.setattr("ensue.train.checkpoint.save_file", fail)
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
