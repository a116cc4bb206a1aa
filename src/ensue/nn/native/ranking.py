"""Ranking of the whole catalogue in the native library, without storing the scores.

Suffixes: `B` states, `N` items, `D` width, `E` hidden pairs, `K` best items, `X` places in memory.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ensue.nn.native.library import at, compute, load

BEST = 1000  # for more items per state, sorting all scores is faster


def best_of_scores(scores_BN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest scores, descending, and their item numbers, both [B, K]; ties are broken by the lower number.

    Where fewer than k scores are above -inf, the rest are -inf with item 1. Scores must be float32 on the CPU.

    Raises:
        ValueError: k is out of range, or the scores are not [B, N].
    """
    if scores_BN.dim() != 2 or not 1 <= k <= scores_BN.shape[1]:
        raise ValueError(f"k must be in 1..N for scores [B, N] (got {k} for {list(scores_BN.shape)})")
    scores_BN = scores_BN.contiguous()
    scores_BK, items_BK = scores_BN.new_empty(len(scores_BN), k), torch.empty(len(scores_BN), k, dtype=torch.int64)
    sizes = (torch.get_num_threads(), *scores_BN.shape, k)
    load(compute().name).ensue_best_of_scores(*sizes, *map(at, (scores_BN, scores_BK, items_BK)))
    return scores_BK, items_BK


class Ranking:
    """The item vectors of a model that does not change meanwhile, as the library reads them.

    Args:
        vectors_ND: the vectors of all items, float32 on the CPU.
    """

    def __init__(self, vectors_ND: Tensor) -> None:
        self.library = load(compute().name)
        self.items, self.width = vectors_ND.shape
        self.columns_X = torch.empty(self.library.ensue_catalogue_floats(self.width, self.items))
        self.library.ensue_pack_catalogue(self.width, self.items, at(vectors_ND.contiguous()), at(self.columns_X))

    def standings(
        self, h_BD: Tensor, target_B: np.ndarray, row_E: np.ndarray, item_E: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """For each state, items scored above its target, and other items scored the same; None if not finite.

        Args:
            h_BD: states.
            target_B: columns of the targets, item number - 1.
            row_E: states of items that do not count, ascending.
            item_E: their columns, ascending and distinct within a row, without the target.
        """
        h_BD, offsets, item_E = self._checked(h_BD, row_E, item_E)
        target_B = np.ascontiguousarray(target_B, dtype=np.int64)
        if target_B.shape != (len(h_BD),) or (target_B < 0).any() or (target_B >= self.items).any():
            raise ValueError(f"targets must be {len(h_BD)} columns in 0..{self.items - 1}")
        better_B, equal_B = np.empty(len(h_BD), dtype=np.int64), np.empty(len(h_BD), dtype=np.int64)
        arrays = (target_B, offsets, item_E, better_B, equal_B)
        done = self.library.ensue_standings(
            *self._sizes(h_BD), at(h_BD), at(self.columns_X), *(array.ctypes.data for array in arrays)
        )
        return (better_B, equal_B) if done else None

    def best(self, h_BD: Tensor, k: int, row_E: np.ndarray, item_E: np.ndarray) -> tuple[Tensor, Tensor] | None:
        """The k items with the highest scores: scores [B, K], descending, -inf where fewer are left, and item numbers.

        Ties are broken by the lower number. None if a score is not finite. For the arguments see `standings`.
        """
        h_BD, offsets, item_E = self._checked(h_BD, row_E, item_E)
        if not 1 <= k <= self.items:
            raise ValueError(f"k must be in 1..{self.items} (got {k})")
        scores_BK, items_BK = h_BD.new_empty(len(h_BD), k), torch.empty(len(h_BD), k, dtype=torch.int64)
        done = self.library.ensue_best(
            *(*self._sizes(h_BD), k, at(h_BD), at(self.columns_X)),
            *(offsets.ctypes.data, item_E.ctypes.data, at(scores_BK), at(items_BK)),
        )
        return (scores_BK, items_BK) if done else None

    def _sizes(self, h_BD: Tensor) -> tuple[int, int, int, int]:
        return torch.get_num_threads(), len(h_BD), self.width, self.items

    def _checked(self, h_BD: Tensor, row_E: np.ndarray, item_E: np.ndarray) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """The states, contiguous, and the hidden items of each row as offsets [B + 1] into columns.

        Raises:
            ValueError: the states are not float32 of the items' width, or a pair is out of range or order.
        """
        if h_BD.dim() != 2 or h_BD.shape[1] != self.width or h_BD.dtype != torch.float32 or h_BD.device.type != "cpu":
            raise ValueError(f"states must be float32 of width {self.width} on the CPU (got {list(h_BD.shape)})")
        place_E = row_E.astype(np.int64) * self.items + item_E
        inside = (
            (item_E >= 0).all() and (item_E < self.items).all() and (row_E >= 0).all() and (row_E < len(h_BD)).all()
        )
        if not inside or not (np.diff(place_E) > 0).all():
            raise ValueError("hidden pairs must be in range, ascending and distinct")
        offsets = np.searchsorted(row_E, np.arange(len(h_BD) + 1)).astype(np.int64)
        return h_BD.detach().contiguous(), offsets, np.ascontiguousarray(item_E, dtype=np.int64)
