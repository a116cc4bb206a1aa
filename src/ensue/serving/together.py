"""Calls that arrive together are worked on together, by one thread."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ensue.serving.refusal import RequestError, unavailable

MAX_TOGETHER = 64
MAX_WAITING = 2_048
SECONDS = 10.0

Item = TypeVar("Item")
Result = TypeVar("Result")
Other = TypeVar("Other")
# (number of calls, seconds of work, seconds that each call waited)
Observer = Callable[[int, float, Sequence[float]], None]


@dataclass(frozen=True, slots=True)
class Call(Generic[Item, Result]):
    """An item that waits for its result."""

    item: Item
    outcome: asyncio.Future[Result]
    began: float


class Together(Generic[Item, Result]):
    """Collects items while the previous ones are worked on, at most `MAX_TOGETHER` at a time.

    An item that arrives alone is worked on at once: no time is spent on waiting for others.

    Args:
        work: returns the result of each item, or the exception to raise to its caller.
        name: of the thread.
        observe: called after each piece of work.
        seconds: time after which the caller of an item is told to try again.
        quick_seconds: if the last piece of work took less time, the next one is done by the loop's own thread, which
            saves two changes of threads.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result | Exception]],
        name: str,
        observe: Observer | None = None,
        quick_seconds: float = 0.0,
        seconds: float = SECONDS,
    ) -> None:
        self.work = work
        self.observe = observe
        self.quick_seconds = quick_seconds
        self.seconds = seconds
        self._last_seconds = 0.0
        self.thread = ThreadPoolExecutor(1, name)
        self._waiting: deque[Call[Item, Result]] = deque()
        self._is_busy = False
        # Other work that has not ended.
        self._others: set[Future[Any]] = set()

    async def __call__(self, item: Item) -> Result:
        """The result of an item.

        Raises:
            RequestError: too many items are waiting, or the result takes too long (status 503).
        """
        self._check_waiting()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Result] = loop.create_future()
        self._waiting.append(Call(item, outcome, time.perf_counter()))
        if not self._is_busy:
            self._is_busy = True
            # Requests that the loop has already received join before the work starts.
            loop.call_soon(self._start, loop)
        timer = loop.call_later(self.seconds, _give_up, outcome, self.seconds)
        try:
            return await outcome
        finally:
            timer.cancel()

    async def run(self, other: Callable[[], Other]) -> Other:
        """The result of other work, done by the thread: never at the same time as the work on items.

        Raises:
            RequestError: too many items are waiting, or the result takes too long (status 503).
        """
        self._check_waiting()
        future = self.thread.submit(other)
        self._others.add(future)
        # Work that has begun cannot be cancelled: it stays in `_others` until the thread is free of it.
        future.add_done_callback(self._others.discard)
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), self.seconds)
        except TimeoutError:
            if not future.done():
                raise _too_late(self.seconds) from None
            raise
        finally:
            future.cancel()

    def close(self) -> None:
        """End the thread, after the work that it has begun."""
        self.thread.shutdown(cancel_futures=True)

    def _check_waiting(self) -> None:
        if len(self._waiting) + len(self._others) >= MAX_WAITING:
            raise unavailable("server", f"at most {MAX_WAITING} requests may wait: try again later")

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        calls: list[Call[Item, Result]] = []
        while self._waiting and len(calls) < MAX_TOGETHER:
            call = self._waiting.popleft()
            # A finished outcome has no reader: its client has gone, or was told to try again.
            if not call.outcome.done():
                calls.append(call)
        if not calls:
            self._is_busy = False
            return
        if not self._others and self._last_seconds < self.quick_seconds:
            self._finish(loop, calls, self._results(calls))
        else:
            self.thread.submit(self._work, loop, calls)

    def _work(self, loop: asyncio.AbstractEventLoop, calls: list[Call[Item, Result]]) -> None:
        loop.call_soon_threadsafe(self._finish, loop, calls, self._results(calls))

    def _results(self, calls: list[Call[Item, Result]]) -> Sequence[Result | Exception]:
        began = time.perf_counter()
        results: Sequence[Result | Exception]
        try:
            results = self.work([call.item for call in calls])
        except Exception as error:
            # Whatever goes wrong, every caller gets an answer and the thread goes on.
            results = [error] * len(calls)
        self._last_seconds = time.perf_counter() - began
        if self.observe is not None:
            self.observe(len(calls), self._last_seconds, [began - call.began for call in calls])
        return results

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        calls: list[Call[Item, Result]],
        results: Sequence[Result | Exception],
    ) -> None:
        for call, result in zip(calls, results, strict=True):
            if call.outcome.done():
                continue
            if isinstance(result, Exception):
                call.outcome.set_exception(result)
            else:
                call.outcome.set_result(result)
        # The answers are sent, and the requests that have arrived since are read, before the next piece of work.
        loop.call_soon(self._start, loop)


def _give_up(outcome: asyncio.Future[Result], seconds: float) -> None:
    if not outcome.done():
        outcome.set_exception(_too_late(seconds))


def _too_late(seconds: float) -> RequestError:
    return unavailable("server", f"no result within {seconds:g} seconds: try again later")
