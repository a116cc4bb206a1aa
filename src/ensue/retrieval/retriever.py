"""Retrievers: from a batch of histories to the best items.

Suffixes: `B` rows of a batch, `E` pairs, `D` width, `R` rows of a view, `P` events of all rows, `N` items,
`K` recommendations.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch, history_batch
from ensue.data.arrays import gather_events
from ensue.data.split import Sequences
from ensue.nn.model import Encoder, Model
from ensue.nn.native.ranking import BEST, Ranking
from ensue.objectives.negatives import distinct
from ensue.retrieval.index import Index, Pairs, top_k
from ensue.retrieval.scores import CountProgress, NotRankedError, by_length, checked, ranking_of
from ensue.runtime.memory import keep_freed_memory


class Retriever(Protocol):
    """The best items at each asked event of a batch."""

    model: Model

    def __call__(
        self, batch: SequenceBatch, k: int, exclude: Pairs | None = None, allow_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores, float32 [B, k], descending, and item numbers, int64 [B, k].

        Args:
            batch: histories, with one asked event per row.
            k: number of items; there are fewer columns if the catalogue is smaller.
            exclude: rows and item numbers to leave out.
            allow_N: whether each item may be returned, bool [N]; all by default.

        Raises:
            EnsueError: a score is NaN or infinite.
        """
        ...


class Exhaustive:
    """Score the whole catalogue, then take the best items; for any model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(
        self, batch: SequenceBatch, k: int, exclude: Pairs | None = None, allow_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Retriever.__call__`."""
        return top_k(checked(self.model.logits(batch)), k, exclude, allow_N)


class VectorSearch:
    """Search an index of the item vectors; for encoders."""

    def __init__(self, model: Encoder, index: Index) -> None:
        self.model, self.index = model, index

    def __call__(
        self, batch: SequenceBatch, k: int, exclude: Pairs | None = None, allow_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Retriever.__call__`."""
        return self.index.search(checked(self.model.encode(batch)), k, exclude, allow_N)


@torch.inference_mode()
def retrieve(
    retriever: Retriever,
    histories: Sequences,
    k: int,
    exclude_seen: bool = True,
    request_times_R: np.ndarray | None = None,
    progress: CountProgress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best next items for each row of a view, computed for a few rows at a time.

    Args:
        retriever: the retriever; its model must be in evaluation mode.
        histories: the rows; the model reads the newest `maxlen` events of each.
        k: number of items; there are fewer columns if the catalogue is smaller.
        exclude_seen: leave out every item of the row, including those before the newest `maxlen`.
        request_times_R: time of each request in seconds, for models that read it.
        progress: called with (rows done, number of rows).

    Returns:
        scores, float32 [R, k], descending, -inf where fewer than k items remain; item numbers, int64 [R, k].

    Raises:
        EnsueError: a score is NaN or infinite.
    """
    keep_freed_memory()
    model = retriever.model
    width = min(k, model.num_items)
    ranking = ranking_of(model) if type(retriever) is Exhaustive and width <= BEST else None
    scores_RK = np.empty((len(histories), width), dtype=np.float32)
    items_RK = np.empty((len(histories), width), dtype=np.int64)
    done = 0
    for rows in by_length(histories.lengths_R, model.maxlen, model.num_items):
        times_B = None if request_times_R is None else request_times_R[rows]
        batch = history_batch(histories, rows, model.maxlen, times_B).to(model.device)
        seen = seen_pairs(histories, rows, model.device) if exclude_seen else None
        if ranking is not None and isinstance(model, Encoder):
            scores, items = _native_best(ranking, model.encode(batch), width, seen)
        else:
            scores, items = retriever(batch, width, seen)
        scores_RK[rows], items_RK[rows] = scores.cpu().numpy(), items.cpu().numpy()
        done += len(rows)
        if progress is not None:
            progress(done, len(histories))
    return scores_RK, items_RK


def _native_best(ranking: Ranking, h_BD: Tensor, k: int, seen: Pairs | None) -> tuple[Tensor, Tensor]:
    """What `Exhaustive` returns, from the native library."""
    row_E = item_E = np.zeros(0, dtype=np.int64)
    if seen is not None:
        place_E = distinct(seen[0].numpy() * ranking.items + seen[1].numpy() - 1)
        row_E, item_E = place_E // ranking.items, place_E % ranking.items
    best = ranking.best(h_BD, k, row_E, item_E)
    if best is None:
        raise NotRankedError
    return best


def seen_pairs(histories: Sequences, rows_B: np.ndarray, device: torch.device) -> Pairs:
    """The items of some rows, as pairs of an index into `rows_B` and an item number."""
    start_B, stop_B = histories.start_R[rows_B], histories.stop_R[rows_B]
    items_P = histories.store.items[gather_events(start_B, stop_B)].astype(np.int64)
    row_P = np.repeat(np.arange(len(rows_B)), stop_B - start_B)
    return torch.from_numpy(row_P).to(device), torch.from_numpy(items_P).to(device)
