"""Who may write into a run's folder, and what is removed from it: nothing that ensue did not write."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ensue.data.split import Split
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ArtefactError, TrainingError
from ensue.files import MANIFEST, write_manifest
from ensue.runs.config import RunConfig
from ensue.runs.folder import CHECKPOINTS, check_writable, claimed, interrupted, remove_run
from ensue.runs.lock import LOCK, locked
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
    for act in (Trainer(tiny(), split, tmp_path).run, lambda: remove_run(tmp_path)):
        with pytest.raises(ArtefactError, match=f"ensue did not write {name.split('/')[0]}"):
            act()
    assert contents(tmp_path) == before


def test_a_store_is_not_written_to(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    ordered_sequences().save(tmp_path)
    before = contents(tmp_path)
    for act in (Trainer(tiny(), split, tmp_path).run, lambda: remove_run(tmp_path)):
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
    with pytest.raises(ArtefactError, match="ensue did not write this"):
        remove_run(tmp_path)
    assert contents(tmp_path) == before


def test_a_link_is_not_followed(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    Trainer(tiny(num_epochs=1), split, tmp_path / "run").run()
    (tmp_path / "run" / CHECKPOINTS).rename(tmp_path / "elsewhere")
    (tmp_path / "run" / CHECKPOINTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtefactError, match=CHECKPOINTS):
        remove_run(tmp_path / "run")
    assert len(list((tmp_path / "elsewhere").iterdir())) > 0


def test_a_run_is_removed_and_a_store_in_it_stays(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    Trainer(tiny(num_epochs=1), split, tmp_path).run()
    ordered_sequences().save(tmp_path / "store")
    for name in ("card.md", "metrics.json", "per_user-test-full-with-seen+query-time.parquet", "learning_curve.svg"):
        (tmp_path / name).write_text("")
    (tmp_path / ".per_user-test-full.parquet.4711.tmp").write_text("half")
    for name in ("tensorboard/events.out.tfevents.17.host.4.0", "inspect/inspect.json", "inspect/attention_maps.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    write_manifest(tmp_path, [], {"kind": "run", "schema_version": 1})
    store = contents(tmp_path / "store")
    remove_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, "store"]
    assert contents(tmp_path / "store") == store
    Trainer(tiny(num_epochs=1), split, tmp_path).run()


def test_the_manifest_goes_first(tiny: Tiny, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that is cut short leaves no damaged run, and may be begun again."""
    Trainer(tiny(num_epochs=1), split, tmp_path).run()
    write_manifest(tmp_path, [], {"kind": "run", "schema_version": 1})

    def cut(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ensue.runs.folder.shutil.rmtree", cut)
        with pytest.raises(KeyboardInterrupt):
            remove_run(tmp_path)
    assert not (tmp_path / MANIFEST).exists()
    remove_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_checkpoints_remove_only_checkpoints(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINTS / "2024-backup").mkdir(parents=True)
    (tmp_path / LOCK).write_bytes(b"")
    Trainer(tiny(), split, tmp_path).run()
    assert (tmp_path / CHECKPOINTS / "2024-backup").is_dir()


def test_after_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINTS / ".0000000001.tmp").mkdir(parents=True)
    assert "starts anew (no checkpoint yet)" in interrupted(tmp_path)
    (tmp_path / CHECKPOINTS / "0000000001").mkdir()
    assert "goes on from its last checkpoint" in interrupted(tmp_path)


def test_two_trainings_do_not_write_into_one_folder(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    """Another process holds the folder; when it is killed the lock goes with it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        before = contents(tmp_path)
        for act in (Trainer(tiny(), split, tmp_path).run, lambda: remove_run(tmp_path)):
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
