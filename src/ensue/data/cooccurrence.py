"""Vectors of items from the items that occur near them.

Suffixes: `N` items, `E` pairs, `D` width of a vector, `R` rows of a view.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ensue.data.arrays import packed_events
from ensue.data.split import Sequences
from ensue.data.text_vectors import singular


def cooccurrence_vectors(train: Sequences, width: int, steps: int = 5) -> np.ndarray:
    """The largest singular directions of A_ij = c_ij / sqrt(c_i c_j), scaled to unit length: float32 [N, width].

    c_ij sums 1 / distance over the pairs of events of items i and j that are at most `steps` events apart, in either
    order, and c_i over all j. An item that is beside no other has a zero vector.

    Args:
        train: the training part.
        width: D; if there are fewer directions, the other columns are zero.
        steps: the largest distance of two events.
    """
    count = train.store.num_items
    events, place = packed_events(train.start_R, train.stop_R)
    items = train.store.items[events].astype(np.int64) - 1
    pairs_NN = sparse.csr_array((count, count))
    for step in range(1, steps + 1):
        after = np.flatnonzero(place >= step)
        weight_E = np.full(len(after), 1 / step)
        pairs_NN += sparse.csr_array((weight_E, (items[after - step], items[after])), shape=(count, count))
    pairs_NN = sparse.csr_array(pairs_NN + pairs_NN.T)
    vectors_ND = np.zeros((count, width), np.float32)
    sums_N = pairs_NN.sum(1)
    if not sums_N.any():
        return vectors_ND
    scale_NN = sparse.diags_array(1 / np.sqrt(np.where(sums_N > 0, sums_N, 1)))
    left_ND, size_D = singular(sparse.csr_array(scale_NN @ pairs_NN @ scale_NN), min(width, count))
    left_ND = left_ND * np.sqrt(size_D)
    left_ND /= np.maximum(np.linalg.norm(left_ND, axis=1, keepdims=True), 1e-12)
    vectors_ND[:, : left_ND.shape[1]] = np.where(sums_N[:, None] > 0, left_ND, 0)
    return vectors_ND
