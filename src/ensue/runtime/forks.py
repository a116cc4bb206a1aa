"""Detection of forked processes, which cannot use the thread pools of their parent: polars and OpenMP would hang."""

from __future__ import annotations

import os

from ensue.errors import EnsueError


class _Process:
    """Whether this process, or the one it was forked from, has used thread pools."""

    used = False
    is_broken = False


def check_process() -> None:
    """Refuse to work in a process that was forked from one that had already used ensue.

    Raises:
        EnsueError: it was forked from such a process; processes started with `spawn` work.
    """
    if _Process.is_broken:
        raise EnsueError(
            "this process was forked from one that used ensue, and its thread pools do not work here: start processes "
            'with multiprocessing.get_context("spawn")'
        )
    _Process.used = True


def _after_fork() -> None:
    _Process.is_broken = _Process.used


os.register_at_fork(after_in_child=_after_fork)
