"""A store's folder, replaced whole or not at all, and what a kill in the middle of that left is put right."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ensue.data.store import KIND, SCHEMA_VERSION, SequenceStore
from ensue.errors import ArtefactError, is_utf8
from ensue.files import MANIFEST, read_manifest, sync, take_lock

# What `SequenceStore.save` writes, whole or in the making.
_FILE = r"(offsets|items|times|feature_\w+)\.npy|(users|items|values_\w+)\.parquet|" + re.escape(MANIFEST)
_STORE_FILE = re.compile(rf"{_FILE}|\.({_FILE})\.\d+\.tmp")


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse a folder that is not to be written.

    Raises:
        ArtefactError: it is the current folder or a mount point, or holds something other than a store, or a store and
            `overwrite` is not given.
    """
    if not is_utf8(str(out)):
        raise ArtefactError(f"{str(out)!r}: the name is not UTF-8: name another folder")
    if out.exists() and out.samefile("."):
        raise ArtefactError(f"{out}: is the current folder, which cannot be replaced; name another, or a new one in it")
    if os.path.ismount(out):
        raise ArtefactError(f"{out}: is a mount point, which cannot be replaced; name a folder in it")
    if _is_free(out):
        return
    try:
        foreign = _foreign(out)
    except ArtefactError:
        raise ArtefactError(f"{out}: exists and is not an ensue store; it is not replaced") from None
    if not overwrite:
        raise ArtefactError(f"{out}: holds a store already; replacing it needs --overwrite (overwrite=True)")
    if foreign:
        raise ArtefactError(f"{out}: holds {foreign[0]!r} beside the store's own files; it is not replaced")


def write_whole(store: SequenceStore, out: Path) -> SequenceStore:
    """Write beside `out` and rename, so that `out` is the old store or the whole new one; see also `recover`.

    Where `out` is a link, what it leads to is replaced, and the link stays.

    Returns:
        The store, mapped from `out`.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh, handle = _begin(out)
    old = fresh.with_suffix(".old")
    try:
        store.save(fresh)
        # Opened before it is in place, where another process may replace it.
        opened = replace(SequenceStore.open(fresh), folder=out)
        with _turn(out.parent):
            try:
                if out.exists():
                    out.replace(old)
                fresh.replace(out)
                sync(out.parent)
            finally:
                if out.exists():
                    shutil.rmtree(old, ignore_errors=True)
                elif old.exists():
                    old.replace(out)
    finally:
        os.close(handle)
        shutil.rmtree(fresh, ignore_errors=True)
    return opened


def _begin(out: Path) -> tuple[Path, int]:
    """Make a new folder beside `out` and lock it; the folder, and the handle that holds the lock."""
    while True:
        # Not the process's number: containers that share a folder have the same ones.
        fresh = out.with_name(f".{out.name}.{secrets.token_hex(8)}.new")
        fresh.mkdir()
        # `recover` of another process may remove it before it is locked.
        with suppress(FileNotFoundError):
            handle = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY)
            take_lock(handle)
            if fresh.is_dir():
                return fresh, handle
            os.close(handle)


@contextmanager
def _turn(parent: Path) -> Iterator[None]:
    """Wait until no other process renames stores in this folder."""
    handle = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while take_lock(handle) is False:
            time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def recover(out: Path) -> None:
    """Put right what a `write_whole` of `out` left that was killed.

    Between its two renames it leaves the old store beside `out` under a hidden name: it is put back. Where `out` holds
    something, stores under such names are left over and removed; and so is a new store that nobody writes any more.
    Folders with anything else in them are left alone.
    """
    out = out.resolve()
    if _set_aside(out):
        with _turn(out.parent):
            left = _set_aside(out)
            if left and _is_free(out):
                left[-1].replace(out)
                sync(out.parent)
            for folder in left:
                shutil.rmtree(folder, ignore_errors=True)
    for folder in _beside(out, "new"):
        with suppress(OSError), _held(folder) as is_held:
            if is_held and _is_unfinished(folder):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Lock a folder, and tell whether that could be done: no other process has it, and there are locks."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield take_lock(handle) is True
    finally:
        os.close(handle)


def _beside(out: Path, suffix: str) -> list[Path]:
    """What lies beside `out` under a name that `write_whole` gives."""
    form = re.compile(rf"\.{re.escape(out.name)}\.[0-9a-f]+\.{suffix}")
    return [path for path in out.parent.iterdir() if form.fullmatch(path.name)] if out.parent.is_dir() else []


def _is_unfinished(folder: Path) -> bool:
    """Whether a folder is empty or holds files of a store and nothing else."""
    return all(
        _STORE_FILE.fullmatch(path.name) and path.is_file() and not path.is_symlink() for path in folder.iterdir()
    )


def _set_aside(out: Path) -> list[Path]:
    """The stores beside `out` that `write_whole` moved out of the way and did not remove, the newest last."""
    found = []
    for folder in _beside(out, "old"):
        with suppress(ArtefactError, FileNotFoundError):
            if not _foreign(folder):
                found.append(((folder / MANIFEST).stat().st_mtime, folder))
    return [folder for _, folder in sorted(found)]


def _is_free(out: Path) -> bool:
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def _foreign(folder: Path) -> list[str]:
    """What a store's folder holds beside the store.

    Raises:
        ArtefactError: it holds no store.
    """
    about = read_manifest(folder, KIND, SCHEMA_VERSION)
    return sorted({path.name for path in folder.iterdir()} - {MANIFEST, *about["sha256"]})
