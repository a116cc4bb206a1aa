"""One writer to a folder: an advisory lock on a file in it, which the system drops when its process ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ensue.errors import TrainingError
from ensue.files import take_lock

# The file stays when the lock goes: it also marks the folder of a run that has no manifest yet.
LOCK = ".ensue.lock"
MARK = b"ensue run\n"
# Who in this process holds which lock: (process, thread). The system tells processes apart, not threads.
_holders: dict[Path, tuple[int, int]] = {}


@contextmanager
def locked(folder: Path, seconds: float = 0.0) -> Iterator[None]:
    """Hold a folder against other writers; a thread that holds it already may hold it again.

    Where the system or the file system has no locks, nothing is held against other processes.

    Args:
        folder: a folder that is there.
        seconds: how long to wait for another holder.

    Raises:
        TrainingError: another process or thread holds it.
    """
    path, own = folder.resolve() / LOCK, (os.getpid(), threading.get_ident())
    if _holders.get(path) == own:
        yield
        return
    until = time.monotonic() + seconds

    def wait() -> None:
        if time.monotonic() >= until:
            raise TrainingError(f"{folder}: another training writes here; wait for its end, or choose another folder")
        time.sleep(0.02)

    while _holders.setdefault(path, own) != own:
        wait()
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # A file system without locks must not stop the training.
            while take_lock(handle) is False:
                wait()
            if os.fstat(handle).st_size == 0:
                os.write(handle, MARK)
            yield
        finally:
            os.close(handle)
    finally:
        del _holders[path]


def is_marked(folder: Path) -> bool:
    """Whether `locked` has held the folder before."""
    path = folder / LOCK
    # A process may have ended, or be, between making the file and writing the mark.
    return path.is_file() and path.stat().st_size <= len(MARK) and path.read_bytes() in (b"", MARK)
