"""A store's folder, replaced whole or not at all, and what a kill in the middle of that left is put right."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from ensue.data.store import KIND, SCHEMA_VERSION, SequenceStore
from ensue.errors import ArtefactError
from ensue.files import MANIFEST, read_manifest, sync_folder


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse a folder that is not to be written.

    Raises:
        ArtefactError: it holds something other than a store, or a store and `overwrite` is not given.
    """
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


def write_whole(store: SequenceStore, out: Path) -> None:
    """Write beside `out` and rename, so that `out` is the old store or the whole new one; see also `recover`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f".{out.name}.{os.getpid()}.new")
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    try:
        store.save(fresh)
        if out.exists():
            out.replace(old)
        fresh.replace(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            old.replace(out)


def recover(out: Path) -> None:
    """Put back the store that was in `out`, if `write_whole` was killed between its two renames.

    Then the old store lies beside `out` under a hidden name. Where `out` holds something, stores under such names are
    left over and removed. Folders with anything else in them are left alone.
    """
    left = _set_aside(out)
    if left and _is_free(out):
        # Of several processes that come here at once, one is first.
        with suppress(FileNotFoundError):
            left[-1].replace(out)
            sync_folder(out.parent)
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_suffix(".new"), ignore_errors=True)


def _set_aside(out: Path) -> list[Path]:
    """The stores beside `out` that `write_whole` moved out of the way and did not remove, the newest last."""
    form = re.compile(rf"\.{re.escape(out.name)}\.\d+\.old")
    found = []
    for folder in out.parent.iterdir() if out.parent.is_dir() else ():
        if form.fullmatch(folder.name):
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
