"""One writer per folder: an advisory lock on a file in it, which the system releases when the process ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ensue.errors import TrainingError
from ensue.files import take_lock

# The file remains after the lock is released: it also marks the folder of a run that has no manifest yet.
LOCK = ".ensue.lock"
MARK = b"ensue run\n"
# The holder of each lock in this process: (process, thread). The system's locks do not distinguish threads.
_holders: dict[Path, tuple[int, int]] = {}


@contextmanager
def locked(folder: Path, seconds: float = 0.0) -> Iterator[None]:
    """Lock a folder against other writers. The lock is reentrant within a thread.

    On a system or file system without locks, other processes are not excluded.

    Args:
        folder: an existing folder.
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
            raise TrainingError(f"{folder}: another training writes here: wait until it ends, or choose another folder")
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
    """Whether `locked` was ever used on the folder."""
    path = folder / LOCK
    # Another process may have created the file and not written the mark yet, or have ended in between.
    return path.is_file() and path.stat().st_size <= len(MARK) and path.read_bytes() in (b"", MARK)
