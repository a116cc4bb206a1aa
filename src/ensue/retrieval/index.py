"""Search in item vectors, and selection of the k best of all scores.

Suffixes: `B` rows, `N` items, `D` width, `E` pairs to leave out.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ensue.nn.native.ranking import BEST, best_of_scores
from ensue.nn.native.rows import is_native

# Rows and item numbers, two arrays of the same length.
Pairs = tuple[Tensor, Tensor]


class Index(Protocol):
    """Searches the items whose vectors have the largest inner product with a query."""

    def search(
        self, query_BD: Tensor, k: int, exclude: Pairs | None = None, allow_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores [B, k], descending, and item numbers [B, k]; `exclude` and `allow_N` as in `top_k`."""
        ...


class ExactIndex:
    """Exact search: compute all inner products, then take the k largest."""

    def __init__(self, vectors_ND: Tensor) -> None:
        self.vectors_ND = vectors_ND

    def search(
        self, query_BD: Tensor, k: int, exclude: Pairs | None = None, allow_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Index.search`."""
        return top_k(query_BD @ self.vectors_ND.T, k, exclude, allow_N)


@torch.inference_mode()
def top_k(
    scores_BN: Tensor, k: int, exclude: Pairs | None = None, allow_N: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The k items with the highest scores in each row; ties are broken by the lower item number.

    The 5 best are therefore the first 5 of the 20 best. `torch.topk` breaks ties in an order that depends on k (2.13,
    on a CPU).

    Args:
        scores_BN: column j is item j + 1; the scores of excluded items are overwritten.
        k: number of items; fewer are returned if the catalogue is smaller.
        exclude: pairs to leave out: rows, int64 [E], and the item number of each, int64 [E].
        allow_N: whether each item may be returned, bool [N]; all by default.

    Returns:
        scores [B, k], descending, -inf where fewer than k items remain, and item numbers [B, k], of any items there.
    """
    if exclude is not None:
        row_E, item_E = exclude
        scores_BN[row_E, item_E - 1] = float("-inf")
    if allow_N is not None:
        scores_BN.masked_fill_(~allow_N, float("-inf"))
    k = min(k, scores_BN.shape[1])
    if is_native(scores_BN) and 1 <= k <= BEST:
        return best_of_scores(scores_BN, k)
    # One item more than needed shows whether the k-th score is tied with the next.
    best, places = torch.topk(scores_BN, min(k + 1, scores_BN.shape[1]), dim=1)
    is_tied_B = (best[:, k - 1] == best[:, -1]) & best[:, -1].isfinite()
    scores, places = best[:, :k], places[:, :k]
    if best.shape[1] > k and bool(is_tied_B.any()):
        every, order = torch.sort(scores_BN[is_tied_B], dim=1, descending=True, stable=True)
        scores[is_tied_B], places[is_tied_B] = every[:, :k], order[:, :k]
    places, by_number = places.sort(1)
    scores, by_score = scores.gather(1, by_number).sort(dim=1, descending=True, stable=True)
    return scores, places.gather(1, by_score) + 1
