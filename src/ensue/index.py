"""Search in item vectors: exact, by one product with the catalogue."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Index(Protocol):
    """Finds the items whose vectors have the largest inner product with a query."""

    def search(self, query_BD: Tensor, k: int, exclude: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Scores [B, k], falling, and item numbers [B, k]; items of `exclude[b]` are left out of row b."""
        ...


class ExactIndex:
    """Every inner product, then the k largest."""

    def __init__(self, vectors_ND: Tensor) -> None:
        self.vectors_ND = vectors_ND

    def search(self, query_BD: Tensor, k: int, exclude: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """See `Index.search`."""
        return top_k(query_BD @ self.vectors_ND.T, k, exclude)


def top_k(scores_BN: Tensor, k: int, exclude: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """The k highest-scored items of each row.

    Args:
        scores_BN: column j is item j + 1.
        k: how many; fewer come back when the catalogue is smaller.
        exclude: item numbers to leave out, one tensor per row.

    Returns:
        scores [B, k], falling, -inf where fewer than k items are left, and item numbers [B, k].
    """
    if exclude is not None:
        scores_BN = scores_BN.clone()
        for row, items in enumerate(exclude):
            scores_BN[row, items - 1] = float("-inf")
    scores, places = torch.topk(scores_BN, min(k, scores_BN.shape[1]), dim=1)
    return scores, places + 1
