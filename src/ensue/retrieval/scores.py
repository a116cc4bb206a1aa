"""Scores of many rows, computed for a few rows at a time.

Suffixes: `R` rows of a view, `N` items, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ensue.errors import EnsueError
from ensue.nn.model import Encoder, Model
from ensue.nn.native.ranking import Ranking
from ensue.nn.native.rows import is_native

# Limits of scores and of rows at a time. Larger batches do not fit the cache (measured: 0.8 of the time of 512 rows).
CELLS = 4_000_000
ROWS = 128

CountProgress = Callable[[int, int], None]


def by_length(length_R: np.ndarray, maxlen: int, width: int) -> Iterator[np.ndarray]:
    """Groups of row numbers of similar length, longest first, small enough to bound the [rows, width] scores."""
    order = np.argsort(-np.minimum(length_R, maxlen), kind="stable")
    size = max(1, min(ROWS, CELLS // width))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def checked(scores: Tensor) -> Tensor:
    """The scores as contiguous float32.

    Raises:
        EnsueError: a score is NaN or infinite, so the items cannot be ranked.
    """
    scores = scores.float().contiguous()
    if not bool(torch.isfinite(scores.sum())) and not bool(torch.isfinite(scores).all()):
        raise NotRankedError
    return scores


class NotRankedError(EnsueError):
    """A score is NaN or infinite."""

    def __init__(self) -> None:
        super().__init__("cannot rank items: a score is NaN or infinite")


def ranking_of(model: Model) -> Ranking | None:
    """The catalogue of a model that ranks by inner products, for the native library; None if torch ranks."""
    if not isinstance(model, Encoder) or type(model).logits is not Encoder.logits:
        return None
    vectors_ND = model.item_vectors().detach()
    return Ranking(vectors_ND) if is_native(vectors_ND) else None
