"""A store's folder after a kill in the middle of its replacement."""

import errno
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from ensue.data.prepare import prepare
from ensue.data.replacing import recover
from ensue.data.store import SequenceStore
from ensue.errors import ArtefactError

OLD, NEW = (pl.DataFrame({"user": [1, 1], "item": [item, item + 1]}) for item in (1, 5))


class Killed(BaseException):
    """Nothing that follows runs, as after SIGKILL."""


def killed_between_the_renames(out, monkeypatch):
    """A store in `out`, and the state that a killed replacement of it leaves."""
    fingerprint = prepare(OLD, out)[0].fingerprint
    rename = Path.replace

    def first_only(self, target):
        if self.name.endswith(".new"):
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", first_only)
        # No clearing up either.
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        patched.setattr(Path, "exists", lambda self: self.name == out.name)
        with pytest.raises(Killed):
            prepare(NEW, out, overwrite=True)
    assert not out.exists()
    assert sorted(path.suffix for path in out.parent.iterdir()) == [".new", ".old"]
    return fingerprint


@pytest.fixture
def link(tmp_path):
    """A link beside nothing else, to a folder that is not there yet."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "disk" / "store")
    return tmp_path / "here" / "link"


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path, link):
    target = tmp_path / "disk" / "store"
    for log, overwrite in ((OLD, False), (NEW, True)):
        store, _ = prepare(log, link, overwrite=overwrite)
        assert store.fingerprint == SequenceStore.open(target).fingerprint == prepare(log)[0].fingerprint
        assert link.readlink() == target
        assert [[path.name for path in folder.iterdir()] for folder in (link.parent, target.parent)] == [
            ["link"],
            ["store"],
        ]
    with pytest.raises(ArtefactError, match="link: already contains a store"):
        prepare(OLD, link)


def test_behind_a_link_the_old_store_is_found_too(tmp_path, link, monkeypatch):
    fingerprint = killed_between_the_renames(tmp_path / "disk" / "store", monkeypatch)
    recover(link)
    assert SequenceStore.open(link).fingerprint == fingerprint
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["store"]


@pytest.mark.parametrize("name", [".", "../sub", "link", ""])
@pytest.mark.parametrize("holds_store", [True, False])
def test_the_current_folder_is_refused_before_anything_is_read(tmp_path, monkeypatch, name, holds_store):
    folder = tmp_path / "sub"
    folder.mkdir()
    if holds_store:
        prepare(OLD, folder)
    monkeypatch.chdir(folder)
    out = tmp_path / "link" if name == "link" else Path(name)
    if name == "link":
        out.symlink_to(folder)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(ArtefactError, match=r"^\S+: is the current folder, which cannot be replaced"):
        prepare(tmp_path / "not read.csv", out, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert prepare(NEW, Path("new"))[0].fingerprint == SequenceStore.open(folder / "new").fingerprint


def test_the_next_preparation_finds_the_old_store(tmp_path, monkeypatch):
    out = tmp_path / "my (store+)"
    fingerprint = killed_between_the_renames(out, monkeypatch)
    with pytest.raises(ArtefactError, match="already contains a store"):
        prepare(NEW, out)
    assert SequenceStore.open(out).fingerprint == fingerprint
    SequenceStore.open(out).verify()
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_the_next_preparation_replaces_it_if_asked(tmp_path, monkeypatch):
    out = tmp_path / "store"
    killed_between_the_renames(out, monkeypatch)
    assert prepare(NEW, out, overwrite=True)[0].fingerprint == prepare(NEW)[0].fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_what_is_left_beside_a_store_is_removed(tmp_path):
    out = tmp_path / "store"
    prepare(NEW, out)
    prepare(OLD, tmp_path / ".store.17.old")
    recover(out)
    assert SequenceStore.open(out).fingerprint == prepare(NEW)[0].fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_an_empty_folder_is_no_store(tmp_path):
    out = tmp_path / "store"
    prepare(OLD, tmp_path / ".store.17.old")
    out.mkdir()
    recover(out)
    assert SequenceStore.open(out).fingerprint == prepare(OLD)[0].fingerprint


def test_only_stores_under_such_names_are_touched(tmp_path):
    out = tmp_path / "store"
    names = [".store.old", ".store.1.old.2", ".store.x.old", ".other.1.old", "store.1.old", ".store.1.2.old"]
    for name in names:
        prepare(OLD, tmp_path / name)
    prepare(OLD, tmp_path / ".store.5.old")
    (tmp_path / ".store.5.old" / "thesis.txt").write_text("x")
    (tmp_path / ".store.6.old").mkdir()
    (tmp_path / ".store.7.old").write_text("x")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    recover(out)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    prepare(NEW, out)
    recover(out)
    assert (tmp_path / ".store.5.old" / "thesis.txt").read_text() == "x"
    assert {path.name for path in tmp_path.iterdir()} >= set(names)


@pytest.mark.parametrize("names", [["offsets.npy", ".items.npy.17.tmp"], None])
def test_a_new_store_that_nobody_writes_any_more_is_removed(tmp_path, names):
    """A kill while it is written leaves some of its files, or all of them."""
    out, left = tmp_path / "store", tmp_path / ".store.0f.new"
    prepare(OLD, left)
    for path in left.iterdir() if names else ():
        path.unlink()
    for name in names or ():
        (left / name).write_bytes(b"half")
    prepare(NEW, out)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert SequenceStore.open(out).fingerprint == prepare(NEW)[0].fingerprint


def test_a_new_store_that_is_being_written_is_left_alone(tmp_path, monkeypatch):
    out, save, beside = tmp_path / "store", SequenceStore.save, []

    def save_while_another_comes(self, folder):
        save(self, folder)
        recover(out)
        beside.extend(path.suffix for path in tmp_path.iterdir())

    monkeypatch.setattr(SequenceStore, "save", save_while_another_comes)
    assert prepare(NEW, out)[0].fingerprint == prepare(NEW)[0].fingerprint
    assert beside == [".new"]


def test_a_new_store_is_removed_with_its_killed_writer(tmp_path):
    """By SIGKILL, while the folder is half written and held; the folder of another, living one stays."""
    out = tmp_path / "store"
    code = """
import os, signal, sys
from pathlib import Path
import polars as pl
from ensue.data.prepare import prepare
import ensue.data.store
ensue.data.store.write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
prepare(pl.DataFrame({"user": [1, 1], "item": [1, 2]}), Path(sys.argv[1]))
"""
    assert subprocess.run([sys.executable, "-c", code, out], check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".new"
    assert {path.name for path in left.iterdir()} == {"offsets.npy", "items.npy", "users.parquet", "items.parquet"}
    recover(out)
    assert not list(tmp_path.iterdir())


def test_a_new_folder_with_anything_else_in_it_is_left_alone(tmp_path):
    out = tmp_path / "store"
    names = (".store.1.new", ".store.2.new", ".store.3.new", ".store.x.new", ".other.1.new")
    for name in names:
        prepare(OLD, tmp_path / name)
    (tmp_path / names[0] / "thesis.txt").write_text("x")
    (tmp_path / names[1] / "items.npy").unlink()
    (tmp_path / names[1] / "items.npy").mkdir()
    (tmp_path / names[2] / "users.parquet").unlink()
    (tmp_path / names[2] / "users.parquet").symlink_to(tmp_path / names[0] / "thesis.txt")
    (tmp_path / ".store.5.new").write_text("x")
    (tmp_path / ".store.6.new").symlink_to(tmp_path / names[4])
    before = sorted(path.name for path in tmp_path.rglob("*"))
    recover(out)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_without_locks_nothing_is_taken_for_left_over(tmp_path, monkeypatch):
    def no_locks(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    prepare(OLD, tmp_path / ".store.1.new")
    prepare(NEW, tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".store.1.new", "store"]


def test_a_folder_that_is_missing_with_all_above_it(tmp_path):
    recover(tmp_path / "nowhere" / "store")
    assert not list(tmp_path.iterdir())
