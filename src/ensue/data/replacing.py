"""Replacement of a store's folder, whole or not at all, and recovery after a process was killed during it."""

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

# The files that `SequenceStore.save` writes, complete or not.
_FILE = r"(offsets|items|times|feature_\w+)\.npy|(users|items|values_\w+)\.parquet|" + re.escape(MANIFEST)
_STORE_FILE = re.compile(rf"{_FILE}|\.({_FILE})\.\d+\.tmp")


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse a folder that must not be written.

    Raises:
        ArtefactError: it is the current folder or a mount point, or holds something other than a store, or a store and
            `overwrite` is not given.
    """
    if not is_utf8(str(out)):
        raise ArtefactError(f"{str(out)!r}: the name is not UTF-8: name another folder")
    if out.exists() and out.samefile("."):
        raise ArtefactError(f"{out}: is the current folder, which cannot be replaced: name another or a new one in it")
    if os.path.ismount(out):
        raise ArtefactError(f"{out}: is a mount point, which cannot be replaced; name a folder in it")
    if _is_free(out):
        return
    try:
        foreign = _foreign(out)
    except ArtefactError:
        raise ArtefactError(f"{out}: exists and is not an ensue store: choose another folder") from None
    if not overwrite:
        raise ArtefactError(f"{out}: already contains a store: replace it with --overwrite (overwrite=True)")
    if foreign:
        raise ArtefactError(f"{out}: contains {foreign[0]!r}, which is not a file of the store: choose another folder")


def write_whole(store: SequenceStore, out: Path) -> SequenceStore:
    """Write beside `out` and rename, so that `out` is either the old store or the complete new one; see also `recover`.

    If `out` is a link, its target is replaced and the link stays.

    Returns:
        The store, mapped from `out`.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh, handle = _begin(out)
    old = fresh.with_suffix(".old")
    try:
        store.save(fresh)
        # The store is opened before the rename, since another process may replace it afterwards.
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
    """Create a folder beside `out` and lock it; return the folder and the handle that holds the lock."""
    while True:
        # The process id would not be unique: containers that share a folder may have the same ids.
        fresh = out.with_name(f".{out.name}.{secrets.token_hex(8)}.new")
        fresh.mkdir()
        # `recover` in another process may remove the folder before it is locked.
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
    """Recover from a `write_whole` of `out` that was killed.

    If it was killed between its two renames, the old store is beside `out` under a hidden name and is moved back. If
    `out` exists, stores under such names are leftovers and are removed, and so is a new store that no process is
    writing. Folders with any other content are not touched.
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
    """Lock a folder; yield whether this succeeded: locks are available and no other process holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield take_lock(handle) is True
    finally:
        os.close(handle)


def _beside(out: Path, suffix: str) -> list[Path]:
    """The paths beside `out` with a name that `write_whole` uses."""
    form = re.compile(rf"\.{re.escape(out.name)}\.[0-9a-f]+\.{suffix}")
    return [path for path in out.parent.iterdir() if form.fullmatch(path.name)] if out.parent.is_dir() else []


def _is_unfinished(folder: Path) -> bool:
    """Whether a folder is empty or contains only files of a store."""
    return all(
        _STORE_FILE.fullmatch(path.name) and path.is_file() and not path.is_symlink() for path in folder.iterdir()
    )


def _set_aside(out: Path) -> list[Path]:
    """The stores beside `out` that `write_whole` moved aside but did not remove, the newest last."""
    stores = []
    for folder in _beside(out, "old"):
        with suppress(ArtefactError, FileNotFoundError):
            if not _foreign(folder):
                stores.append(((folder / MANIFEST).stat().st_mtime, folder))
    return [folder for _, folder in sorted(stores)]


def _is_free(out: Path) -> bool:
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def _foreign(folder: Path) -> list[str]:
    """The names in a store's folder that do not belong to the store.

    Raises:
        ArtefactError: the folder contains no store.
    """
    about = read_manifest(folder, KIND, SCHEMA_VERSION)
    return sorted({path.name for path in folder.iterdir()} - {MANIFEST, *about["sha256"]})
