"""Signals that end a training: it stops where its state is consistent and can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal ended the training.

    Attributes:
        number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def status(self) -> int:
        """The exit status of a process that the signal ended."""
        return 128 + self.number


class Signals:
    """A context in which INT, TERM and HUP raise `Interrupted`: once, and never inside a `whole` block.

    Signals that the program already handles or ignores keep their handlers. Outside the main thread the context does
    nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.raised = False
        self.depth = 0
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.received, self.raised = None, False
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self.previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        while self.previous:
            signal.signal(*self.previous.popitem())

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Complete the block; a signal that arrives meanwhile raises `Interrupted` at its end."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
        if self.received is not None and not self.raised and not self.depth:
            self._raise(self.received)

    def _handle(self, number: int, _: FrameType | None) -> None:
        # A second signal must not interrupt the checkpoint that is written because of the first.
        if self.received is None:
            self.received = number
            if not self.depth:
                self._raise(number)

    def _raise(self, number: int) -> None:
        self.raised = True
        raise Interrupted(number)


def uninterrupted(work: Callable[[], None]) -> None:
    """Complete the work; a signal that arrives meanwhile raises `Interrupted` at its end."""
    with Signals() as signals, signals.whole():
        work()
