"""The best items for several queries at once, from one model.

Suffixes: `B` queries, `N` items, `T` events of one history, `E` pairs to leave out, `K` items to boost, `C` candidates,
`R` rows of a batch, `Q` asked events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ensue.models import Encoder
from ensue.recommendations import Recommendation
from ensue.recommender import Recommender
from ensue.retrieval.index import ExactIndex, Index, Pairs, top_k
from ensue.retrieval.scores import checked
from ensue.runs.run import Run
from ensue.serving.catalogue import ItemSearch
from ensue.serving.schemas import Answer, Model, Source
from ensue.serving.states import History, States, batch_of

STATES_KEPT = 10_000
# Scores of an explanation that are computed at a time.
CELLS = 4_000_000

# (k, pairs to leave out, allowed items) -> scores and items, as `Index.search`.
Search = Callable[[int, Pairs | None, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Query:
    """A request in item numbers.

    Attributes:
        history: the events that the model reads; None if it knows no item of the history.
        k: number of items.
        exclude: numbers of the items to leave out.
        allow: numbers of the only items that may be returned; None: all.
        boost: item number -> number that is added to its score.
        known: number of known events.
        unknown: unknown ids of the history.
    """

    history: History | None
    k: int
    exclude: np.ndarray
    allow: np.ndarray | None = None
    boost: dict[int, float] = field(default_factory=dict)
    known: int = 0
    unknown: tuple[str | int, ...] = ()


class Served:
    """A run with everything that is computed once for all requests. One thread at a time may use it.

    Args:
        variant: the name under which the run is served.
        run: the run.
        version: identifies the run's files.
        states_kept: number of histories whose states are kept.
    """

    def __init__(self, variant: str, run: Run, version: str, states_kept: int = STATES_KEPT) -> None:
        self.run = run
        self.model = Model(variant, run.config.model.name, version)
        self.recommender = Recommender.from_run(run, [])
        self.search = ItemSearch(run)
        self.states: States | None = None
        self.newcomers: tuple[Source, Tensor] = ("popular", run.popularity_N)
        if isinstance(run.model, Encoder):
            self.states = States(run.model, states_kept, run.config.model.reads_times)
            with torch.inference_mode():
                self.index: Index = ExactIndex(run.model.item_vectors().float().contiguous())

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """The best items of each query; a query's answer does not depend on the others.

        Raises:
            EnsueError: a score is NaN or infinite.
        """
        answers: dict[int, Answer] = {}
        for rows in _groups(queries):
            group = [queries[row] for row in rows]
            source, search = self._search([query.history for query in group])
            scores_BK, items_BK = _best(search, group, self.run.model.num_items)
            for row, query, scores, items in zip(rows, group, scores_BK.tolist(), items_BK.tolist(), strict=True):
                shown = self._named(items[: query.k], scores[: query.k])
                answers[row] = Answer(shown, source, query.known, query.unknown, self.model)
        return [answers[row] for row in range(len(queries))]

    @torch.inference_mode()
    def influence(self, history: History, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The scores of some items after the history, [C], and without each of its events, [T, C]."""
        length = len(history.items_T)
        rows = [history, *(_without(history, event) for event in range(length))] if length > 1 else [history]
        scores_RC = np.empty((len(rows), len(items)), np.float32)
        step = max(1, CELLS // (self.run.model.num_items + length * 64))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            batch = batch_of(part).to(self.run.model.device)
            items_QC = torch.from_numpy(items).to(self.run.model.device).expand(len(part), -1)
            scores_RC[start : start + step] = checked(self.run.model.logits(batch, items_QC)).cpu().numpy()
        return scores_RC[0], scores_RC[1:]

    def _search(self, histories: Sequence[History | None]) -> tuple[Source, Search]:
        known = [history for history in histories if history is not None]
        if not known:
            source, newcomers_N = self.newcomers
            return source, lambda k, exclude, allow_N: top_k(
                newcomers_N.expand(len(histories), -1).clone(), k, exclude, allow_N
            )
        if self.states is not None:
            return "model", partial(self.index.search, self.states(known))
        batch = batch_of(known).to(self.run.model.device)
        return "model", partial(self.recommender.retriever, batch)

    def _named(self, items: Sequence[int], scores: Sequence[float]) -> tuple[Recommendation, ...]:
        pairs = [(item, score) for item, score in zip(items, scores, strict=True) if score > float("-inf")]
        ids = self.run.item_ids.decode([item for item, _ in pairs])
        titles = self.run.titles
        return tuple(
            Recommendation(external, score, titles[item] if titles else None)
            for external, (item, score) in zip(ids, pairs, strict=True)
        )


def _groups(queries: Sequence[Query]) -> list[list[int]]:
    """The places of the queries that one search answers; a query with rules of its own is alone."""
    groups: dict[object, list[int]] = {}
    for row, query in enumerate(queries):
        is_alone = query.allow is not None or bool(query.boost)
        groups.setdefault(row if is_alone else (query.history is None,), []).append(row)
    return list(groups.values())


def _best(search: Search, group: Sequence[Query], num_items: int) -> tuple[Tensor, Tensor]:
    """Scores and items, [B, K], of queries that are answered together."""
    k = min(max(query.k for query in group), num_items)
    first = group[0]
    allow_N = None if first.allow is None else _mask(first.allow, num_items)
    if not first.boost:
        return search(k, _pairs([query.exclude for query in group]), allow_N)
    # The others are ranked by their scores, and the boosted ones are inserted: exact with any retriever.
    boosted = np.fromiter(first.boost, np.int64)
    scores, items = search(k, _pairs([np.union1d(first.exclude, boosted)]), allow_N)
    boosted_N = _mask(boosted, num_items)
    own, numbers = search(
        min(len(boosted), num_items), _pairs([first.exclude]), boosted_N if allow_N is None else boosted_N & allow_N
    )
    own = own + torch.tensor([[first.boost.get(number, 0.0) for number in numbers[0].tolist()]])
    scores, items = torch.cat((scores, own), 1), torch.cat((items, numbers), 1)
    items, by_number = items.sort(1)
    scores, by_score = scores.gather(1, by_number).sort(dim=1, descending=True, stable=True)
    return scores[:, :k], items.gather(1, by_score)[:, :k]


def _pairs(excluded: Sequence[np.ndarray]) -> Pairs | None:
    row_E = np.repeat(np.arange(len(excluded)), [len(numbers) for numbers in excluded])
    if not len(row_E):
        return None
    return torch.from_numpy(row_E), torch.from_numpy(np.concatenate(excluded).astype(np.int64))


def _mask(numbers: np.ndarray, num_items: int) -> Tensor:
    mask_N = torch.zeros(num_items, dtype=torch.bool)
    mask_N[torch.from_numpy(numbers.astype(np.int64)) - 1] = True
    return mask_N


def _without(history: History, event: int) -> History:
    times_T = None if history.times_T is None else np.delete(history.times_T, event)
    return History(np.delete(history.items_T, event), times_T, history.at)
