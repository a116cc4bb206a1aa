"""The graph of all sessions: for each item, the items that occur within a few steps of it.

Suffixes: `N` items, `K` neighbours, `R` rows of a view.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensue.data.arrays import IntArray, packed_events
from ensue.data.split import Sequences


def item_neighbours(sequences: Sequences, steps: int, count: int) -> tuple[IntArray, NDArray[np.float32]]:
    """The items that occur most often within some steps of each item, before or after it.

    Args:
        sequences: the training part.
        steps: the largest distance of two events of a row.
        count: K, the number of neighbours of each item; among equally frequent ones, lower item numbers are preferred.

    Returns:
        int64 [N + 1, K], the item numbers of the neighbours, 0 if there are fewer; float32 [N + 1, K], their counts.
    """
    width = sequences.store.num_items + 1
    events, place = packed_events(sequences.start_R, sequences.stop_R)
    items = sequences.store.items[events].astype(np.int64)
    keys = []
    for step in range(1, steps + 1):
        after = np.flatnonzero(place >= step)
        one, other = items[after - step], items[after]
        keys += [one * width + other, other * width + one]
    pair, often = np.unique(np.concatenate(keys), return_counts=True)
    item, near = np.divmod(pair, width)
    item, near, often = item[item != near], near[item != near], often[item != near]
    order = np.lexsort((near, -often, item))
    item, near, often = item[order], near[order], often[order]
    rank = np.arange(len(item)) - np.searchsorted(item, item)
    kept = rank < count
    near_NK = np.zeros((width, count), dtype=np.int64)
    often_NK = np.zeros((width, count), dtype=np.float32)
    near_NK[item[kept], rank[kept]] = near[kept]
    often_NK[item[kept], rank[kept]] = often[kept]
    return near_NK, often_NK
