"""Recommendations for all users of a data set, as a table.

Suffixes: `R` users, `K` recommendations per user, `N` items.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from ensue.data.featured import with_inputs
from ensue.data.split import Sequences
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import ExternalId
from ensue.errors import DataError
from ensue.reranking import Reranking
from ensue.retrieval.index import top_k
from ensue.retrieval.request import ids_of, moment
from ensue.retrieval.retriever import Retriever, retrieve
from ensue.retrieval.scores import CountProgress
from ensue.runs.run import Run


def retrieve_all(
    run: Run,
    retriever: Retriever,
    store: SequenceStore,
    k: int,
    users: Iterable[ExternalId] | None = None,
    exclude_seen: bool = True,
    at: int | None = None,
    progress: CountProgress | None = None,
    reranking: Reranking | None = None,
) -> pl.DataFrame:
    """The k best items for every user of a store, by external ids: see `Recommender.recommend_all`."""
    users_R = np.arange(store.num_users) if users is None else _places(store, users)
    if store.item_ids != run.item_ids:
        store = store.renumbered(run.item_ids)
    store = with_inputs(store, (reranking or run).features)
    start_R, stop_R = store.offsets[users_R], store.offsets[users_R + 1]
    is_known_R = stop_R > start_R
    histories = Sequences(store, users_R[is_known_R], start_R[is_known_R], stop_R[is_known_R])
    newest = None
    if store.times is not None and len(histories):
        newest = int(store.times[histories.stop_R - 1].max())
    at = moment(at, newest, (reranking or run).request_model)
    times = None if at is None else np.full(len(histories), at)
    popular, numbers = top_k(run.popularity_N[None], k)
    items_RK, scores_RK = (np.repeat(part.numpy(), len(users_R), 0) for part in (numbers, popular))
    scores_RK[is_known_R], items_RK[is_known_R] = retrieve(retriever, histories, k, exclude_seen, times, progress)
    return _table(run, store, users_R, items_RK, scores_RK)


def _places(store: SequenceStore, users: Iterable[ExternalId]) -> np.ndarray:
    """The numbers of some users in a store, 0-based.

    Raises:
        DataError: a user is not in the store, or is listed twice.
    """
    ids = ids_of("users", users, ordered=False)
    numbers = store.users.encode(ids)
    if (numbers == 0).any():
        missing = ids[int(np.flatnonzero(numbers == 0)[0])]
        raise DataError(f"user {missing!r} is not among the {store.num_users:,} users of this data")
    _, first = np.unique(numbers, return_index=True)
    if len(first) < len(numbers):
        twice = ids[int(np.setdiff1d(np.arange(len(numbers)), first)[0])]
        raise DataError(f"users must be listed once each (got {twice!r} twice)")
    return numbers.astype(np.int64) - 1


def _table(
    run: Run, store: SequenceStore, users_R: np.ndarray, items_RK: np.ndarray, scores_RK: np.ndarray
) -> pl.DataFrame:
    """Recommendations as rows; places without an item are left out."""
    width = items_RK.shape[1]
    is_item = np.isfinite(scores_RK.reshape(-1))
    users = np.repeat(users_R, width)[is_item]
    places = items_RK.reshape(-1)[is_item] - 1
    columns = {
        "user": store.users.ids.gather(users),
        "rank": np.tile(np.arange(1, width + 1), len(users_R))[is_item],
        "item": run.item_ids.ids.gather(places),
        "score": scores_RK.reshape(-1)[is_item],
        "history": store.lengths[users],
    }
    if "title" in run.items.columns:
        columns["title"] = run.items["title"].gather(places)
    return pl.DataFrame(columns)
