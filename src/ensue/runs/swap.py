"""Exclusive writing to a run folder, and the replacement of its run by a new one.

The new run is written into `RUN/next`; until it is complete, the old one stays usable. Then the old files are removed,
`next` is renamed to `ready`, and the new files are moved up, the manifest last. The next command completes a swap that
was interrupted: before the rename the removal can be repeated, and after it only moves remain.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ensue.errors import ArtefactError
from ensue.files import MANIFEST, remove_leftovers, sync
from ensue.runs.folder import NEXT, READY, STORE, TEMPORARY, check_writable, foreign
from ensue.runs.lock import LOCK, locked


@contextmanager
def claimed(folder: Path, seconds: float = 0.0) -> Iterator[None]:
    """Create a run folder if needed, and lock it against other writers after waiting for them up to `seconds`.

    Temporary files left by a killed process are removed.

    Raises:
        ArtefactError: it contains files that ensue did not create.
        TrainingError: another training is writing into the folder.
    """
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, seconds):
        remove_leftovers(folder, TEMPORARY)
        yield


def check_replaceable(folder: Path) -> None:
    """Check that everything in a run folder may be removed, except a store: that is data and is kept.

    Raises:
        ArtefactError: the folder contains a file that ensue did not create.
    """
    check_writable(folder)
    for path in _parts(folder):
        if (other := foreign(path)) is not None:
            raise ArtefactError(f"{other}: ensue did not create this file; nothing in {folder} was removed")


def is_swap_pending(folder: Path) -> bool:
    """Whether the folder contains a finished new run that has not replaced the old one yet."""
    return (folder / READY).is_dir() or (folder / NEXT / MANIFEST).is_file()


def swap(folder: Path) -> None:
    """Replace the run in `folder` by the finished one in `folder/next`, or complete a swap that was interrupted.

    Raises:
        ArtefactError: the folder contains a file that ensue did not create.
        TrainingError: another training is writing into the folder.
    """
    with claimed(folder):
        if not (folder / READY).is_dir():
            check_replaceable(folder)
            old = [path for path in _parts(folder) if path.name != NEXT]
            # The manifest is removed first, so that an interrupted removal does not leave something like a run.
            for path in sorted(old, key=lambda path: path.name != MANIFEST):
                remove(path)
            sync(folder)
            os.rename(folder / NEXT, folder / READY)
        sync(folder)
        for path in sorted((folder / READY).iterdir(), key=lambda path: path.name == MANIFEST):
            if path.name == LOCK:
                path.unlink()
            else:
                os.replace(path, folder / path.name)
        sync(folder)
        (folder / READY).rmdir()


def remove(path: Path) -> None:
    """Remove a file, or a folder with its contents."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _parts(folder: Path) -> list[Path]:
    """The files and folders that belong to the runs in a folder."""
    return [path for path in sorted(folder.iterdir()) if path.name not in (LOCK, STORE)] if folder.is_dir() else []
