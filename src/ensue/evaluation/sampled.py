"""The sampled candidates of `uniform-100` and `popularity-100`.

Suffixes: `B` cases, `K` sampled items, `N` items.
"""

from __future__ import annotations

import numpy as np

from ensue.data.split import Cases, Sequences
from ensue.errors import EnsueError
from ensue.evaluation.protocol import EvaluateConfig
from ensue.objectives.negatives import SeenItems
from ensue.rng import hashed_uniform

SAMPLED = 100
# Numbers of draws per row, tried in this order until the row has enough distinct unseen items.
DRAWS = (2 * SAMPLED, 10 * SAMPLED, 50 * SAMPLED, 250 * SAMPLED)


def sample_candidates(cases: Cases, config: EvaluateConfig, counts_N: np.ndarray) -> np.ndarray:
    """The target and 100 sampled items that the user has not interacted with: int64 [B, 101], target first.

    `uniform-100` draws uniformly with replacement, as SASRec; `popularity-100` by training count without repeats, as
    BERT4Rec. The draws of a case depend only on the seed and the number of its target event.

    Args:
        cases: the cases.
        config: the protocol and the seed.
        counts_N: training events of each item, the weights of `popularity-100`.

    Raises:
        EnsueError: for `popularity-100`, a user has fewer than 100 unseen items with a training event.
    """
    seen = SeenItems(Sequences(cases.store, cases.users_B, cases.start_B, cases.target_B + 1))
    target_B = cases.target_items_B.astype(np.int64)
    if config.protocol == "uniform-100":
        uniform = hashed_uniform(config.evaluation_seed, "uniform-100", cases.target_B, 0, SAMPLED)
        drawn = seen.draw_unseen(np.arange(len(cases)), target_B, uniform)
    else:
        drawn, open_rows = _popular_unseen(seen, counts_N, cases.target_B, config.evaluation_seed)
        if len(open_rows):
            user = cases.store.users.decode(cases.users_B[open_rows[:1]] + 1)[0]
            raise EnsueError(
                f"protocol popularity-100 needs {SAMPLED} unseen items with training events for every user, but user "
                f"{user!r} has fewer: use full"
            )
    return np.concatenate((target_B[:, None], drawn), axis=1)


def _popular_unseen(
    seen: SeenItems, counts_N: np.ndarray, keys_B: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first 100 distinct unseen items of each row's draws by count, [B, 100], and the rows that have fewer."""
    cumulative = np.cumsum(counts_N, dtype=np.float64)
    chosen = np.zeros((len(keys_B), SAMPLED), dtype=np.int64)
    open_rows = np.arange(len(keys_B))
    # Rows with too many repeated draws are drawn again: the same draws first, then more.
    for count in DRAWS:
        uniform = hashed_uniform(seed, "popularity-100", keys_B[open_rows], 0, count)
        drawn = np.searchsorted(cumulative, uniform * cumulative[-1], side="right") + 1
        fresh = _first_in_row(drawn) & ~seen.contains(open_rows, drawn)
        place = fresh.cumsum(1)
        enough = place[:, -1] >= SAMPLED
        chosen[open_rows[enough]] = drawn[enough][(fresh & (place <= SAMPLED))[enough]].reshape(-1, SAMPLED)
        open_rows = open_rows[~enough]
        if len(open_rows) == 0:
            break
    return chosen, open_rows


def _first_in_row(items_BK: np.ndarray) -> np.ndarray:
    """Whether each cell is the first in its row with its item: bool [B, K]."""
    order = np.argsort(items_BK, axis=1, kind="stable")
    ordered = np.take_along_axis(items_BK, order, axis=1)
    first = np.zeros(items_BK.shape, dtype=bool)
    np.put_along_axis(first, order, np.diff(ordered, axis=1, prepend=0) != 0, axis=1)
    return first
