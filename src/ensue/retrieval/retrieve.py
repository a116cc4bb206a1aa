"""The best items after every history of a view: recommendations for everybody at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import polars as pl
import torch

from ensue.batches.batch import history_batch
from ensue.data.arrays import gather_events
from ensue.data.split import Sequences
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import ExternalId
from ensue.errors import DataError
from ensue.evaluation.evaluate import CountProgress, by_length, checked, model_device
from ensue.models.base import Scorer
from ensue.retrieval.index import Pairs, top_k
from ensue.retrieval.request import ids_of, moment
from ensue.runs.artefact import Run
from ensue.runtime.memory import keep_freed_memory


@torch.inference_mode()
def retrieve(
    model: Scorer,
    histories: Sequences,
    k: int,
    exclude_seen: bool = True,
    request_times_R: np.ndarray | None = None,
    progress: CountProgress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k items of highest score after each row, out of the whole catalogue.

    Scores are computed for a few rows at a time, so memory does not grow with the number of rows.

    Args:
        model: any scorer, in evaluation mode.
        histories: the rows; the model reads the newest `maxlen` events of each.
        k: how many; fewer columns come back when the catalogue is smaller.
        exclude_seen: leave out every item of the row, those before the newest `maxlen` too.
        request_times_R: seconds of each request, for models that may know them.
        progress: called with (rows done, rows in all).

    Returns:
        scores, float32 [R, k], falling, -inf where fewer than k items are left; item numbers, int64 [R, k].

    Raises:
        EnsueError: the model gives a score that is NaN or infinite.
    """
    keep_freed_memory()
    device = model_device(model)
    width = min(k, model.num_items)
    scores_RK = np.empty((len(histories), width), dtype=np.float32)
    items_RK = np.empty((len(histories), width), dtype=np.int64)
    done = 0
    for rows in by_length(histories.lengths_R, model.maxlen, model.num_items):
        asked_B = None if request_times_R is None else request_times_R[rows]
        scores = checked(model.score(history_batch(histories, rows, model.maxlen, asked_B).to(device)))
        best, items = top_k(scores, width, _seen(histories, rows, device) if exclude_seen else None)
        scores_RK[rows], items_RK[rows] = best.cpu().numpy(), items.cpu().numpy()
        done += len(rows)
        if progress is not None:
            progress(done, len(histories))
    return scores_RK, items_RK


def _seen(histories: Sequences, rows: np.ndarray, device: torch.device) -> Pairs:
    """The items of some rows, as pairs of a row's place in `rows` and an item number."""
    start_B, stop_B = histories.start_R[rows], histories.stop_R[rows]
    items_P = histories.store.items[gather_events(start_B, stop_B)].astype(np.int64)
    row_P = np.repeat(np.arange(len(rows)), stop_B - start_B)
    return torch.from_numpy(row_P).to(device), torch.from_numpy(items_P).to(device)


def retrieve_all(
    run: Run,
    store: SequenceStore,
    k: int,
    users: Iterable[ExternalId] | None = None,
    exclude_seen: bool = True,
    at: int | None = None,
    progress: CountProgress | None = None,
) -> pl.DataFrame:
    """The k best items for every user of a store, by external ids: see `Recommender.recommend_all`."""
    users_R = np.arange(store.num_users) if users is None else _places(store, users)
    if store.item_ids != run.item_ids:
        store = store.renumbered(run.item_ids)
    start_R, stop_R = store.offsets[users_R], store.offsets[users_R + 1]
    has_R = stop_R > start_R
    histories = Sequences(store, users_R[has_R], start_R[has_R], stop_R[has_R])
    newest = None
    if store.times is not None and len(histories):
        newest = int(store.times[histories.stop_R - 1].max())
    at = moment(at, newest, run.config.model)
    asked = None if at is None else np.full(len(histories), at)
    popular, numbers = top_k(run.popularity_N[None], k)
    items_RK, scores_RK = (np.repeat(best.numpy(), len(users_R), 0) for best in (numbers, popular))
    scores_RK[has_R], items_RK[has_R] = retrieve(cast(Scorer, run.model), histories, k, exclude_seen, asked, progress)
    return _table(run, store, users_R, items_RK, scores_RK)


def _places(store: SequenceStore, users: Iterable[ExternalId]) -> np.ndarray:
    """Where some users stand in a store, 0-based.

    Raises:
        DataError: the store does not know one, or one comes twice.
    """
    ids = ids_of("users", users)
    numbers = store.users.encode(ids)
    if (numbers == 0).any():
        missing = ids[int(np.flatnonzero(numbers == 0)[0])]
        raise DataError(f"user {missing!r} is not among the {store.num_users:,} users of this data")
    _, first = np.unique(numbers, return_index=True)
    if len(first) < len(numbers):
        twice = ids[int(np.setdiff1d(np.arange(len(numbers)), first)[0])]
        raise DataError(f"users must be asked for once each (got {twice!r} twice)")
    return numbers.astype(np.int64) - 1


def _table(
    run: Run, store: SequenceStore, users_R: np.ndarray, items_RK: np.ndarray, scores_RK: np.ndarray
) -> pl.DataFrame:
    """Recommendations as rows; places without an item are left out."""
    width = items_RK.shape[1]
    kept = np.isfinite(scores_RK.reshape(-1))
    users = np.repeat(users_R, width)[kept]
    places = items_RK.reshape(-1)[kept] - 1
    columns = {
        "user": store.users.ids.gather(users),
        "rank": np.tile(np.arange(1, width + 1), len(users_R))[kept],
        "item": run.item_ids.ids.gather(places),
        "score": scores_RK.reshape(-1)[kept],
        "history": store.lengths[users],
    }
    if "title" in run.items.columns:
        columns["title"] = run.items["title"].gather(places)
    return pl.DataFrame(columns)
