"""A process made by fork cannot use the thread pools of its parent: polars and OpenMP wait there for ever."""

from __future__ import annotations

import os

from ensue.errors import EnsueError


class _Process:
    """What this process did with thread pools."""

    used = False
    is_broken = False


def check_process() -> None:
    """Refuse to work in a process that was forked from one that had worked already.

    Raises:
        EnsueError: it was; processes started by `spawn` work.
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
