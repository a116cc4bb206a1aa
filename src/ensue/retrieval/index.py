"""Search in item vectors, and the choice of the best of all scores.

Suffixes: B rows, N items, D width, E pairs to leave out.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

# Rows and item numbers, one beside the other.
Pairs = tuple[Tensor, Tensor]


class Index(Protocol):
    """Searches the items whose vectors have the largest inner product with a query."""

    def search(
        self, query_BD: Tensor, k: int, exclude: Pairs | None = None, allow_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores [B, k], falling, and item numbers [B, k]; `exclude` and `allow_N` as in `top_k`."""
        ...


class ExactIndex:
    """Every inner product, then the k largest."""

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
    """The k highest-scored items of each row.

    Args:
        scores_BN: column j is item j + 1; the scores of items that are left out are overwritten.
        k: how many; fewer come back when the catalogue is smaller.
        exclude: what to leave out: rows, int64 [E], and the item number of each, int64 [E].
        allow_N: whether each item may be returned, bool [N]; all by default.

    Returns:
        scores [B, k], falling, -inf where fewer than k items are left, and item numbers [B, k].
    """
    if exclude is not None:
        row_E, item_E = exclude
        scores_BN[row_E, item_E - 1] = float("-inf")
    if allow_N is not None:
        scores_BN.masked_fill_(~allow_N, float("-inf"))
    scores, places = torch.topk(scores_BN, min(k, scores_BN.shape[1]), dim=1)
    return scores, places + 1
