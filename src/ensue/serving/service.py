"""What the server does: histories of users, variants, recommendations, events and exposures.

Suffixes: `N` items, `T` events of one history.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ensue.data.store import SequenceStore
from ensue.data.vocabulary import ExternalId
from ensue.errors import EnsueError
from ensue.recommender import history_of as history_in
from ensue.serving.engine import Query, Served
from ensue.serving.events import EventLog, LogError, exposed, merged
from ensue.serving.experiment import CONTROL, Experiment
from ensue.serving.metrics import Metrics
from ensue.serving.refusal import RequestError, unavailable
from ensue.serving.requests import history_of, numbers_of, query_of
from ensue.serving.schemas import (
    Answer,
    Event,
    Explained,
    Explanation,
    Health,
    Item,
    RecommendRequest,
    Similar,
    Stored,
)
from ensue.serving.together import Together

# Users whose events are remembered for the time in which the database cannot be read.
USERS_KEPT = 10_000
TRENDING_SECONDS = 60.0
# A database that takes longer must not keep recommendations waiting.
READ_SECONDS = 2.0
# A batch that takes longer is computed beside the loop, so that other requests are answered meanwhile.
QUICK_SECONDS = 0.02

History = tuple[list[ExternalId], list[int] | None]


@dataclass
class Service:
    """The served runs, the log of events and the experiment.

    Attributes:
        variants: variant -> its run; an entry is replaced as a whole, so that a request sees one model.
        experiment: the shares of the variants.
        log: the log of events; None: events are refused.
        store: the data in which users are looked up, before the log; or None.
        trending_days: recent days whose events rank items for newcomers; 0: the most popular items do.
        metrics: the metrics.
        refused: the message of the last run that was not accepted, or None.
    """

    variants: dict[str, Served]
    experiment: Experiment
    log: EventLog | None = None
    store: SequenceStore | None = None
    trending_days: float = 0.0
    metrics: Metrics = field(default_factory=Metrics)
    refused: str | None = None

    def __post_init__(self) -> None:
        self.model = Together(_answers, "ensue-model", self.metrics.batch, QUICK_SECONDS)
        self.is_write_lost = self.is_read_lost = False
        self._last: OrderedDict[str, list[tuple[str, int]]] = OrderedDict()
        self._trending_at = 0.0
        # The event loop does not keep a task that nothing refers to.
        self._refresh: asyncio.Task[None] | None = None
        self.trending_seconds = READ_SECONDS
        if self.log is not None:
            self._write = Together(self.log.add, "ensue-events")
            self._read = Together(self.log.histories, "ensue-histories", seconds=READ_SECONDS)
            self._expose = Together(self.log.expose, "ensue-exposures", seconds=READ_SECONDS)

    async def recommend(self, request: RecommendRequest) -> Answer:
        """The answer to a request.

        Raises:
            RequestError: the request breaks a rule, or cannot be answered now.
        """
        served, is_assigned = self._variant(request)
        await self._refresh_trending()
        is_complete = True
        if request.history is not None:
            history: History = request.history, request.times
        else:
            history, is_complete = await self._history(str(request.user))
        answer = await self.model((served, query_of(served.run, request, *history)))
        if not is_complete:
            answer = replace(answer, complete=False)
        self.metrics.answer(served, answer)
        if is_assigned and self.experiment.is_running and self.log is not None:
            await self._log_exposure(str(request.user), answer)
        return answer

    async def add(self, events: Sequence[Event]) -> Stored:
        """Store events; they are durable when this returns.

        Raises:
            RequestError: the server has no log of events (403), or they cannot be stored now (503).
        """
        if self.log is None:
            raise RequestError(403, "events", "this server was started without a log of events: start it with --events")
        try:
            stored = await self._write(events)
        except (LogError, RequestError) as error:
            self.is_write_lost = True
            self.metrics.events.labels("failed").inc(len(events))
            cause = error.rule if isinstance(error, RequestError) else str(error)
            raise unavailable("events", f"not confirmed, send them again with the same keys: {cause}", 2) from None
        self.is_write_lost = False
        self.metrics.events.labels("stored").inc(stored.stored)
        self.metrics.events.labels("known").inc(stored.known)
        return stored

    async def similar(self, item: ExternalId, k: int, variant: str) -> Similar:
        """The items nearest to an item.

        Raises:
            RequestError: the item is unknown (404), or the model has no item vectors (422).
        """
        served = self.served(variant)
        number = int(numbers_of(served.run, [item])[0])
        if not number:
            raise RequestError(404, "item", "must be an item of the catalogue", item)
        external = served.run.item_ids.decode([number])[0]
        try:
            result = await self.model.run(lambda: served.recommender.similar(external, k))
        except RequestError:
            raise
        except EnsueError as error:
            raise RequestError(422, "model", str(error), variant) from None
        return Similar(result.items, served.model)

    async def explain(
        self, history: Sequence[ExternalId], items: Sequence[ExternalId], times: Sequence[int] | None, variant: str
    ) -> Explanation:
        """The influence of each event of a history on the scores of some items.

        Raises:
            RequestError: no item of the history is known, an item is unknown, or the times break a rule.
        """
        served = self.served(variant)
        read = history_of(served.run, numbers_of(served.run, history), times, None)
        if read is None:
            raise RequestError(422, "history", "must have an item of the catalogue", list(history)[:3])
        numbers = numbers_of(served.run, items)
        if (numbers == 0).any():
            raise RequestError(404, "item", "must be an item of the catalogue", items[int((numbers == 0).argmax())])
        scores, without = await self.model.run(lambda: served.influence(read, numbers))
        alone: list[tuple[float | None, ...]] = [(None,)] * len(numbers)
        columns = [tuple(column.tolist()) for column in (scores - without).T] if len(without) else alone
        explained = tuple(
            Explained(item.item, item.title, float(score), influence)
            for item, score, influence in zip(served.search.named(numbers), scores, columns, strict=True)
        )
        return Explanation(served.search.named(read.items_T), explained, served.model)

    async def items(self, words: str, k: int, variant: str) -> tuple[Item, ...]:
        """Items that contain all words."""
        served = self.served(variant)
        return await self.model.run(lambda: served.search(words, k))

    def served(self, variant: str) -> Served:
        """The run of a variant.

        Raises:
            RequestError: there is no such variant.
        """
        if variant not in self.variants:
            raise RequestError(422, "model", f"must be one of {', '.join(sorted(self.variants))}", variant)
        return self.variants[variant]

    def exchange(self, variant: str, served: Served) -> None:
        """Serve another run under a variant's name; requests that have begun keep the old one."""
        self.variants = {**self.variants, variant: served}
        self._trending_at = 0.0

    def health(self) -> Health:
        """The state of the server."""
        is_lost = self.is_write_lost or self.is_read_lost
        is_bad = is_lost or self.refused is not None
        return Health(
            "degraded" if is_bad else "ok",
            tuple(served.model for served in self.variants.values()),
            self.experiment.name,
            self.experiment.shares,
            "unavailable" if is_lost else "ok",
            self.refused,
        )

    async def ready(self) -> Health:
        """The state of the server; a failed database is tried again first.

        After a failed write only a write shows that the database is back, and a server that is not ready gets none.
        """
        if self.log is not None and (self.is_write_lost or self.is_read_lost):
            try:
                await self._write.run(self.log.probe)
                self.is_write_lost = self.is_read_lost = False
            except (LogError, RequestError):
                self.is_write_lost = True
        return self.health()

    def close(self) -> None:
        """End the threads and close the database."""
        self.model.close()
        if self.log is not None:
            for thread in (self._write, self._read, self._expose):
                thread.close()
            self.log.close()

    def _variant(self, request: RecommendRequest) -> tuple[Served, bool]:
        """The run that answers a request, and whether it was assigned to the request's user."""
        if request.model is not None:
            return self.served(request.model), False
        if request.user is None:
            return self.variants[CONTROL], False
        return self.variants[self.experiment.assign(str(request.user))], True

    async def _history(self, user: str) -> tuple[History, bool]:
        """The history of a user, and whether it has all confirmed events."""
        events: list[tuple[str, int]] = []
        is_complete = True
        if self.log is not None:
            try:
                events = await self._read(user)
                self.is_read_lost = False
                self._last[user] = events
                self._last.move_to_end(user)
                if len(self._last) > USERS_KEPT:
                    self._last.popitem(last=False)
            except (LogError, RequestError):
                self.is_read_lost = True
                events, is_complete = self._last.get(user, []), False
        before: History = [], None
        if self.store is not None and int(self.store.users.encode([user])[0]):
            before = history_in(self.store, user)
        return merged(*before, events), is_complete

    async def _log_exposure(self, user: str, answer: Answer) -> None:
        variant = answer.model.variant
        share = self.experiment.shares[variant]
        row = exposed(self.experiment.name, user, variant, share, answer.model.version, answer.items)
        try:
            await self._expose(row)
            self.metrics.exposures.labels("logged").inc()
        except (LogError, RequestError):
            # People get their recommendations even if the experiment loses an observation; the loss is counted.
            self.metrics.exposures.labels("lost").inc()

    async def _refresh_trending(self) -> None:
        """Rank items for newcomers by the events of the last days, once in a while.

        A request does not wait for a database that takes long; the ranking then serves later ones.
        """
        if self.log is None or self.trending_days <= 0 or time.monotonic() < self._trending_at:
            return
        self._trending_at = time.monotonic() + TRENDING_SECONDS
        self._refresh = asyncio.create_task(self._rank_by_trend(self.log))
        await asyncio.wait([self._refresh], timeout=self.trending_seconds)

    async def _rank_by_trend(self, log: EventLog) -> None:
        try:
            items = await asyncio.to_thread(log.recent, int(time.time() - self.trending_days * 86_400))
        except LogError:
            return
        counts = Counter(items)
        for served in self.variants.values():
            await asyncio.to_thread(_trend, served, counts)


def _trend(served: Served, counts: Counter[str]) -> None:
    """Rank items for newcomers by their numbers of recent events; the most popular ones follow."""
    numbers = numbers_of(served.run, list(counts))
    popular_N = served.run.popularity_N
    if not (numbers > 0).any():
        served.newcomers = "popular", popular_N
        return
    recent_N = np.zeros(len(popular_N), dtype=np.float32)
    is_known = numbers > 0
    recent_N[numbers[is_known] - 1] = np.array(list(counts.values()), dtype=np.float32)[is_known]
    share_N = popular_N / (popular_N.abs().max() + 1)
    served.newcomers = "trending", torch.from_numpy(recent_N) + share_N


def _answers(calls: list[tuple[Served, Query]]) -> list[Answer | Exception]:
    """The answer to each query. Queries of one model are computed together, and apart if that fails."""
    outcomes: list[Answer | Exception] = [RuntimeError("no outcome")] * len(calls)
    for served in {id(served): served for served, _ in calls}.values():
        rows = [row for row, (own, _) in enumerate(calls) if own is served]
        for row, outcome in zip(rows, _of_one(served, [calls[row][1] for row in rows]), strict=True):
            outcomes[row] = outcome
    return outcomes


def _of_one(served: Served, queries: list[Query]) -> list[Answer | Exception]:
    try:
        return [*served.answer(queries)]
    except Exception as error:
        # The query that fails must not fail the others of its batch.
        return [error] if len(queries) == 1 else [_of_one(served, [query])[0] for query in queries]
