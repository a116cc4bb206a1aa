"""Requests that arrive together are computed together, and each gets its own outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ensue.batches.batch import SequenceBatch
from ensue.recommender import Recommender
from ensue.serving import together as module
from ensue.serving.engine import Query, Served
from ensue.serving.refusal import RequestError
from ensue.serving.states import History, States
from ensue.serving.together import Together

from .client import Client
from .conftest import one, together

Serve = Callable[..., Client]
Recommenders = Callable[[str], Recommender]


def test_items_that_arrive_together_are_one_piece_of_work() -> None:
    sizes: list[int] = []

    def work(items: list[int]) -> list[int | Exception]:
        sizes.append(len(items))
        return [ValueError("odd") if item % 2 else item * 10 for item in items]

    async def run() -> list[Any]:
        doubled = Together(work, "test")
        results = await asyncio.gather(*map(doubled, range(100)), return_exceptions=True)
        doubled.close()
        return results

    results = asyncio.run(run())
    assert sizes == [64, 36]
    assert [result for result in results if not isinstance(result, ValueError)] == [
        item * 10 for item in range(0, 100, 2)
    ]


def test_a_failed_work_fails_its_items_and_the_next_ones_go_on() -> None:
    def work(items: list[int]) -> list[int | Exception]:
        if 0 in items:
            raise RuntimeError("broken")
        return [*items]

    async def run() -> tuple[Any, Any]:
        call = Together(work, "test")
        first = await asyncio.gather(call(0), return_exceptions=True)
        second = await call(1)
        call.close()
        return first, second

    (first,), second = asyncio.run(run())
    assert isinstance(first, RuntimeError)
    assert second == 1


def test_too_many_waiting_items_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)

    async def run() -> list[Any]:
        call = Together(lambda items: [*items], "test")
        results = await asyncio.gather(*map(call, range(5)), return_exceptions=True)
        call.close()
        return results

    *taken, first, second = asyncio.run(run())
    assert taken == [0, 1, 2]
    for error in (first, second):
        assert isinstance(error, RequestError)
        assert (error.status, error.retry_after) == (503, 1)


def test_other_work_has_the_limits_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    may_end, done = threading.Event(), []

    async def run() -> list[Any]:
        call: Together[int, int] = Together(lambda items: [*items], "test", quick_seconds=60.0, seconds=0.01)
        running = [asyncio.create_task(call.run(lambda: may_end.wait(60) and done.append("first")))]
        running += [asyncio.create_task(call.run(lambda: done.append("second")))]
        await asyncio.sleep(0)
        results = [*await asyncio.gather(call.run(print), call(1), *running, return_exceptions=True)]
        # The first is still being worked on: an item must not be worked on beside it.
        later = asyncio.create_task(call(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not later.done()
        may_end.set()
        call.seconds = 60.0
        await asyncio.gather(later, return_exceptions=True)
        results.append(await call.run(lambda: "free"))
        call.close()
        return results

    other, item, first, second, last = asyncio.run(run())
    for error in (other, item):
        assert isinstance(error, RequestError)
        assert "at most 2 requests may wait" in error.rule
    for error in (first, second):
        assert isinstance(error, RequestError)
        assert (error.status, error.rule) == (503, "no result within 0.01 seconds: try again later")
    # Work that has not begun is not done for a caller who has gone.
    assert (last, done) == ("free", ["first"])


def test_explanations_and_searches_have_limits_too(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve()
    monkeypatch.setattr(module, "MAX_WAITING", 0)
    for path in ("/explain?history=9&item=5", "/similar?item=7", "/items?q=book"):
        answer = one(client.get(path))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_one_failing_query_does_not_fail_the_others(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve()
    served = client.service.variants["control"]
    answer: Callable[..., Any] = Served.answer

    def fail_for_seven(queries: list[Query]) -> Any:
        if any(query.k == 7 for query in queries):
            raise RuntimeError("seven")
        return answer(served, queries)

    monkeypatch.setattr(served, "answer", fail_for_seven)
    calls = [client.service.recommend(request) for request in requests_of(6, 7, 8)]

    async def run() -> list[Any]:
        return await asyncio.gather(*calls, return_exceptions=True)

    first, second, third = asyncio.run(run())
    assert len(first.items) == 6
    assert isinstance(second, RuntimeError)
    assert len(third.items) == 8


def requests_of(*counts: int) -> list[Any]:
    from ensue.serving.schemas import RecommendRequest

    return [RecommendRequest(history=[1, 2], k=k) for k in counts]


def test_a_longer_history_advances_the_state_of_the_shorter(serve: Serve) -> None:
    client = serve("gru4rec")
    states = client.service.variants["control"].states
    assert states is not None
    history = [9, 1, 30, 2, 7, 8, 11]
    for length in range(1, 8):
        one(client.post("/recommend", {"history": history[:length]}))
    # The window has 6 events: the seventh history starts later, and is computed from its beginning.
    assert (states.computed, states.advanced, states.reused) == (2, 5, 0)
    fresh = serve("gru4rec")
    for length in range(1, 8):
        kept, anew = (
            one(each.post("/recommend", {"history": history[:length], "k": 40})).json for each in (client, fresh)
        )
        assert [entry["item"] for entry in kept["items"]] == [entry["item"] for entry in anew["items"]]
        fresh = serve("gru4rec")
    assert (states.computed, states.advanced, states.reused) == (2, 5, 7)


def test_a_model_of_times_is_computed_with_the_time_of_every_event(serve: Serve, recommenders: Recommenders) -> None:
    client, history, hours = serve("retention"), [9, 1, 30], [0, 3_600, 3_600_000]
    states = client.service.variants["control"].states
    assert states is not None
    for length in range(1, 4):
        body = {"history": history[:length], "times": hours[:length], "k": 40}
        answer = one(client.post("/recommend", body)).json
        expected = recommenders("retention").recommend(history[:length], k=40, times=hours[:length])
        assert [each["item"] for each in answer["items"]] == expected.ids
        assert [each["score"] for each in answer["items"]] == pytest.approx([each.score for each in expected], abs=1e-5)
    assert (states.computed, states.advanced, states.reused) == (3, 0, 0)
    one(client.post("/recommend", {"history": history, "times": [0, 3_600, 3_601], "k": 40}))
    assert (states.computed, states.advanced, states.reused) == (4, 0, 0)


def test_an_advance_is_left_out_for_a_model_of_times() -> None:
    class Timed(torch.nn.Module):
        """Has both methods that continue a state, but reads times."""

        maxlen, device = 6, torch.device("cpu")

        def encode(self, batch: SequenceBatch) -> torch.Tensor:
            return torch.ones(len(batch.lengths_B), 2)

        def states(self, batch: SequenceBatch) -> torch.Tensor:
            raise AssertionError

        def advance(self, state: torch.Tensor, items_B: torch.Tensor, times_B: torch.Tensor) -> Any:
            raise AssertionError

    model: Any = Timed()
    states = States(model, 10, reads_times=True)
    for length in (1, 2):
        items_T = np.arange(1, length + 1)
        assert states([History(items_T, items_T * 10)]).tolist() == [[1.0, 1.0]]
    assert (states.computed, states.advanced) == (2, 0)


def test_other_work_and_items_never_run_at_the_same_time() -> None:
    events: list[str] = []
    is_waiting, may_end = threading.Event(), threading.Event()

    def other() -> None:
        is_waiting.set()
        assert may_end.wait(60)
        events.append("other")

    def work(items: list[int]) -> list[int | Exception]:
        events.append("items")
        return [*items]

    async def run() -> None:
        call: Together[int, int] = Together(work, "test", quick_seconds=60.0)
        running = asyncio.create_task(call.run(other))
        await asyncio.to_thread(is_waiting.wait, 60)
        item = asyncio.create_task(call(1))
        # The loop starts the work on the item, if it may, before it handles a result of another thread.
        await asyncio.to_thread(str)
        may_end.set()
        await asyncio.gather(running, item)
        call.close()

    asyncio.run(run())
    assert events == ["other", "items"]


def test_only_the_newest_states_are_kept(serve: Serve) -> None:
    client = serve("sasrec")
    states = client.service.variants["control"].states
    assert states is not None
    states.size = 2
    for history in ([1], [2], [1], [3], [1], [2]):
        one(client.post("/recommend", {"history": history}))
    assert (states.computed, states.reused) == (4, 2)


def test_equal_histories_of_one_batch_are_computed_once(serve: Serve) -> None:
    client = serve("sasrec")
    states = client.service.variants["control"].states
    assert states is not None
    first, *others = together(*(client.post("/recommend", {"history": [5, 6]}) for _ in range(9)))
    assert all(other.json == first.json for other in others)
    assert states.computed == 1
