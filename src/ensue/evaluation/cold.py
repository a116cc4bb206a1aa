"""Cold users and cold items of an evaluation: cases that a model had no training events for.

They are part of every mean, and are also reported on their own.

Suffixes: `B` cases, `N` items, `R` training rows, `P` their events.
"""

from __future__ import annotations

import numpy as np

from ensue.data.split import Sequences
from ensue.evaluation.standings import Standings


def groups_of(standings: Standings, train: Sequences) -> dict[str, np.ndarray]:
    """The cases of each group, bool [B]; a case of a cold user and a cold item is in both of these groups.

    Args:
        standings: users and targets of the cases.
        train: the training part.

    Returns:
        warm: user and item have training events; cold users: the user has none; cold items: the target has none.
    """
    is_cold_user = ~np.isin(standings.users_B, train.users_R)
    is_trained_N = np.zeros(train.store.num_items + 1, dtype=bool)
    is_trained_N[train.items_P] = True
    is_cold_item = ~is_trained_N[standings.targets_B]
    return {"warm": ~is_cold_user & ~is_cold_item, "cold users": is_cold_user, "cold items": is_cold_item}
