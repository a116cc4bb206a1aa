"""Search in item vectors: exact, by one product with the catalogue."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

# Rows and item numbers, one beside the other.
Pairs = tuple[Tensor, Tensor]


class Index(Protocol):
    """Finds the items whose vectors have the largest inner product with a query."""

    def search(self, query_BD: Tensor, k: int, exclude: Pairs | None = None) -> tuple[Tensor, Tensor]:
        """Scores [B, k], falling, and item numbers [B, k]; without the items of `exclude`, as in `top_k`."""
        ...


class ExactIndex:
    """Every inner product, then the k largest."""

    def __init__(self, vectors_ND: Tensor) -> None:
        self.vectors_ND = vectors_ND

    def search(self, query_BD: Tensor, k: int, exclude: Pairs | None = None) -> tuple[Tensor, Tensor]:
        """See `Index.search`."""
        return top_k(query_BD @ self.vectors_ND.T, k, exclude)


@torch.inference_mode()
def top_k(scores_BN: Tensor, k: int, exclude: Pairs | None = None) -> tuple[Tensor, Tensor]:
    """The k highest-scored items of each row.

    Args:
        scores_BN: column j is item j + 1; the scores of excluded items are overwritten.
        k: how many; fewer come back when the catalogue is smaller.
        exclude: what to leave out: rows, int64 [E], and the item number of each, int64 [E].

    Returns:
        scores [B, k], falling, -inf where fewer than k items are left, and item numbers [B, k].
    """
    if exclude is not None:
        row_E, item_E = exclude
        scores_BN[row_E, item_E - 1] = float("-inf")
    scores, places = torch.topk(scores_BN, min(k, scores_BN.shape[1]), dim=1)
    return scores, places + 1
