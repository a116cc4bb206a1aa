"""A disk whose power may fail between any two operations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TORN = b"torn"
# Path, relative to the root, of every file that a power cut could leave -> its bytes.
Tree = dict[str, bytes]


class Disk:
    """Records the fsyncs and renames under a folder, and what a power cut after each of them could leave.

    The model is POSIX's: a file's bytes are durable once the file was synced, the names in a folder once the folder
    was. Anything else may or may not have reached the disk: all of it has, or none.

    Attributes:
        steps: what was done to which path, with the bytes of a file.
        cuts: the trees that a power cut could leave, two after each step.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, root: Path, skip: Callable[[Path], bool] = lambda path: False
    ) -> None:
        self.root = root
        self.steps: list[tuple[str, Path, bytes]] = []
        self.cuts: list[Tree] = []
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        for path in (root, *root.rglob("*")):
            self._sync(path)
        real_fsync = os.fsync

        def fsync(handle: int) -> None:
            number = os.fstat(handle).st_ino
            path = next(path for path in (root, *root.rglob("*")) if path.stat().st_ino == number)
            if not skip(path):
                real_fsync(handle)
                self._sync(path)
                self._step("fsync", path, path)

        def moving(name: str) -> Callable[[Path, Path], None]:
            real: Callable[..., Any] = getattr(os, name)

            def move(source: Path, target: Path) -> None:
                real(source, target)
                self._step(name, Path(source), Path(target))

            return move

        monkeypatch.setattr(os, "fsync", fsync)
        for name in ("replace", "rename"):
            monkeypatch.setattr(os, name, moving(name))

    def left(self) -> list[Tree]:
        """The trees that a power cut now could leave: nothing but what is durable, or all names there are."""
        return [dict(self._durable(self.root.stat().st_ino, "")), dict(self._present())]

    def _step(self, kind: str, path: Path, now: Path) -> None:
        self.steps.append((kind, path, now.read_bytes() if now.is_file() else b""))
        self.cuts += self.left()

    def _sync(self, path: Path) -> None:
        number = path.stat().st_ino
        if path.is_dir():
            self._names[number] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
            for entry in path.iterdir():
                if entry.is_dir():
                    self._names.setdefault(entry.stat().st_ino, {})
        else:
            self._bytes[number] = path.read_bytes()

    def _durable(self, folder: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        for name, number in self._names[folder].items():
            if number in self._names:
                yield from self._durable(number, f"{prefix}{name}/")
            else:
                yield prefix + name, self._bytes.get(number, TORN)

    def _present(self) -> Iterator[tuple[str, bytes]]:
        for path in self.root.rglob("*"):
            if path.is_file():
                yield str(path.relative_to(self.root)), self._bytes.get(path.stat().st_ino, TORN)
