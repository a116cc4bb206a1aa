"""A store's folder after a kill in the middle of its replacement."""

import shutil
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


def test_the_next_preparation_finds_the_old_store(tmp_path, monkeypatch):
    out = tmp_path / "my (store+)"
    fingerprint = killed_between_the_renames(out, monkeypatch)
    with pytest.raises(ArtefactError, match="holds a store already"):
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


def test_a_folder_that_is_missing_with_all_above_it(tmp_path):
    recover(tmp_path / "nowhere" / "store")
    assert not list(tmp_path.iterdir())
