"""Who may write into a run's folder, and what is removed from it: nothing that ensue did not create."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ensue.data.split import Split
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ArtefactError, TrainingError
from ensue.files import write_manifest
from ensue.runs.config import RunConfig
from ensue.runs.folder import CHECKPOINTS, NEXT, check_writable, interrupted
from ensue.runs.lock import LOCK, locked
from ensue.runs.swap import check_replaceable, claimed, is_swap_pending, swap
from ensue.train.loop import Trainer

Tiny = Callable[..., RunConfig]
HOLDER = """
import sys
from pathlib import Path
from ensue.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["config.toml", "log.jsonl", "card.md", "thesis.txt", "checkpoints/best.pt"])
def test_a_folder_of_others_is_not_written_to(tiny: Tiny, split: Split, tmp_path: Path, name: str) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("years of work")
    before = contents(tmp_path)
    for act in (Trainer(tiny(), split, tmp_path).run, lambda: check_replaceable(tmp_path)):
        with pytest.raises(ArtefactError, match=f"ensue did not create {name.split('/')[0]}"):
            act()
    assert contents(tmp_path) == before


def test_a_store_is_not_written_to(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    ordered_sequences().save(tmp_path)
    before = contents(tmp_path)
    for act in (Trainer(tiny(), split, tmp_path).run, lambda: check_replaceable(tmp_path)):
        with pytest.raises(ArtefactError, match="expected an ensue run, found kind 'store'"):
            act()
    assert contents(tmp_path) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ArtefactError, match="is a file"):
        check_writable(tmp_path / "run")


def test_what_ensue_left_may_be_written_to(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    """An empty folder, one that was only claimed, a process that died at the lock, one with checkpoints alone."""
    for name in ("empty", "claimed", "died"):
        (tmp_path / name).mkdir()
    with claimed(tmp_path / "claimed"):
        pass
    (tmp_path / "died" / LOCK).write_bytes(b"")
    Trainer(tiny(num_epochs=1), split, tmp_path / "older").run()
    (tmp_path / "older" / LOCK).unlink()
    for name in ("empty", "claimed", "died", "older", "absent"):
        Trainer(tiny(num_epochs=1), split, tmp_path / name).run()
        assert (tmp_path / name / CHECKPOINTS).is_dir()


@pytest.mark.parametrize(
    "name", ["notes.txt", "checkpoints/best.pt", "tensorboard/notes", "mine/data", "inspect/x.csv"]
)
def test_a_run_with_something_else_in_it_is_not_removed(tiny: Tiny, split: Split, tmp_path: Path, name: str) -> None:
    Trainer(tiny(num_epochs=1), split, tmp_path).run()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(ArtefactError, match="ensue did not create this file"):
        check_replaceable(tmp_path)
    assert contents(tmp_path) == before


def test_a_link_is_not_followed(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    Trainer(tiny(num_epochs=1), split, tmp_path / "run").run()
    (tmp_path / "run" / CHECKPOINTS).rename(tmp_path / "elsewhere")
    (tmp_path / "run" / CHECKPOINTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtefactError, match=CHECKPOINTS):
        check_replaceable(tmp_path / "run")
    assert len(list((tmp_path / "elsewhere").iterdir())) > 0


def whole_run(folder: Path, model: str) -> None:
    """Something with the form of a whole run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOCK).write_bytes(b"")
    (folder / CHECKPOINTS / "0000000001").mkdir(parents=True)
    for name in ("model.safetensors", f"checkpoints/0000000001/{model}"):
        (folder / name).write_text(model)
    write_manifest(folder, ["model.safetensors"], {"kind": "run", "schema_version": 1})


def old_and_new(folder: Path) -> dict[str, bytes]:
    """A run, all that may lie beside it, and a new one; what the folder is to hold after the swap."""
    whole_run(folder, "old")
    ordered_sequences().save(folder / "store")
    for name in ("card.md", "metrics.json", "per_user-test-full-with-seen+query-time.parquet", "learning_curve.svg"):
        (folder / name).write_text("")
    (folder / ".per_user-test-full.parquet.4711.tmp").write_text("half")
    for name in ("tensorboard/events.out.tfevents.17.host.4.0", "inspect/inspect.json", "inspect/attention_maps.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    whole_run(folder / NEXT, "new")
    return {
        **contents(folder / "store"),
        **{path.replace(f"/{NEXT}", ""): text for path, text in contents(folder / NEXT).items()},
    }


def test_a_swap_replaces_a_run_and_a_store_in_it_stays(tmp_path: Path) -> None:
    expected = old_and_new(tmp_path)
    assert is_swap_pending(tmp_path)
    swap(tmp_path)
    assert contents(tmp_path) | {str(tmp_path / LOCK): b""} == expected
    assert not is_swap_pending(tmp_path)


class CutError(BaseException):
    """A kill."""


def cut_at(patched: pytest.MonkeyPatch, number: int) -> None:
    """Let the operation on files of this number, counted from 0, end in a kill."""
    count = iter(range(10**6))
    for owner, name in ((os, "replace"), (os, "rename"), (Path, "unlink"), (Path, "rmdir"), (shutil, "rmtree")):
        real = getattr(owner, name)

        def counted(*words: Any, real: Any = real, **more: Any) -> Any:
            if next(count) == number:
                raise CutError
            return real(*words, **more)

        patched.setattr(owner, name, counted)


def test_a_swap_that_was_cut_short_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed before each of its operations, and again while it is completed."""
    cuts = 0
    while True:
        folder = tmp_path / str(cuts)
        expected = old_and_new(folder)
        try:
            with monkeypatch.context() as patched:
                cut_at(patched, cuts)
                swap(folder)
            break
        except CutError:
            cuts += 1
        assert is_swap_pending(folder)
        with monkeypatch.context() as patched, suppress(CutError):
            cut_at(patched, 2)
            swap(folder)
        if is_swap_pending(folder):
            swap(folder)
        assert contents(folder) | {str(folder / LOCK): b""} == expected
    assert cuts > 10


def test_checkpoints_remove_only_checkpoints(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINTS / "2024-backup").mkdir(parents=True)
    (tmp_path / LOCK).write_bytes(b"")
    Trainer(tiny(), split, tmp_path).run()
    assert (tmp_path / CHECKPOINTS / "2024-backup").is_dir()


def test_after_a_signal(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINTS / ".0000000001.tmp").mkdir(parents=True)
    assert interrupted(tmp_path) == "the same command starts from the beginning"
    (tmp_path / NEXT / CHECKPOINTS / "0000000001").mkdir(parents=True)
    assert interrupted(tmp_path) == "the same command resumes from the last checkpoint"


def test_two_trainings_do_not_write_into_one_folder(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    """Another process holds the folder; when it is killed the lock goes with it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        before = contents(tmp_path)
        for act in (Trainer(tiny(), split, tmp_path).run, lambda: swap(tmp_path)):
            with pytest.raises(TrainingError, match="another training writes here"):
                act()
        assert contents(tmp_path) == before
        holder.send_signal(signal.SIGKILL)
    Trainer(tiny(num_epochs=1), split, tmp_path).run()


def test_a_thread_may_hold_a_folder_again_and_another_may_not(tmp_path: Path) -> None:
    said: list[str] = []

    def other() -> None:
        try:
            with locked(tmp_path):
                said.append("held")
        except TrainingError as error:
            said.append(str(error))

    def beside() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    with locked(tmp_path):
        with locked(tmp_path):
            pass
        beside()
    beside()
    assert "another training writes here" in said[0]
    assert said[1:] == ["held"]


def test_a_writer_that_waits_comes_after_the_other(tmp_path: Path) -> None:
    said: list[str] = []

    def other() -> None:
        with locked(tmp_path, seconds=60):
            said.append("second")

    thread = threading.Thread(target=other)
    with locked(tmp_path):
        thread.start()
        said.append("first")
    thread.join()
    assert said == ["first", "second"]


def test_a_file_system_without_locks_stops_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def unsupported(handle: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locked(tmp_path):
        assert (tmp_path / LOCK).is_file()
