"""Who may write into a run's folder, and how a new run takes the place of the one that is there.

The new run is written into `RUN/next`, and the old one answers until it is whole. Then the old files are removed,
`next` is renamed to `ready`, and the new files move up, the manifest last. A swap that was cut short is completed by
the next command: before the rename the removal may be repeated, after it only moves are left.
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
    """Make a folder a run's, and hold it against other writers, after waiting for them some seconds.

    Temporary files that a killed process left are removed.

    Raises:
        ArtefactError: it contains files that ensue did not create.
        TrainingError: another training writes there.
    """
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, seconds):
        remove_leftovers(folder, TEMPORARY)
        yield


def check_replaceable(folder: Path) -> None:
    """Make sure that everything in a run's folder may be removed. A store in it is data, and stays.

    Raises:
        ArtefactError: the folder contains a file that ensue did not create.
    """
    check_writable(folder)
    for path in _parts(folder):
        if (other := foreign(path)) is not None:
            raise ArtefactError(f"{other}: ensue did not create this file; nothing in {folder} was removed")


def is_swap_pending(folder: Path) -> bool:
    """Whether a whole new run waits in the folder to take its place."""
    return (folder / READY).is_dir() or (folder / NEXT / MANIFEST).is_file()


def swap(folder: Path) -> None:
    """Put the whole run in `folder/next`, or what is left of a swap that was cut short, in its place.

    Raises:
        ArtefactError: the folder contains a file that ensue did not create.
        TrainingError: a training writes there.
    """
    with claimed(folder):
        if not (folder / READY).is_dir():
            check_replaceable(folder)
            old = [path for path in _parts(folder) if path.name != NEXT]
            # What is left of a removal cut short must not look like a run.
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
    """Remove a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _parts(folder: Path) -> list[Path]:
    """What makes up the runs in a folder."""
    return [path for path in sorted(folder.iterdir()) if path.name not in (LOCK, STORE)] if folder.is_dir() else []
