"""Settings and small worlds that many tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import settings

from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary

torch.set_num_threads(1)
# Examples are the same in every run, and a slow machine fails nothing.
settings.register_profile("ensue", deadline=None, derandomize=True)
settings.load_profile("ensue")

MakeStore = Callable[..., SequenceStore]


@pytest.fixture
def make_store() -> MakeStore:
    """Histories (lists of item numbers, oldest first) -> a store in memory."""

    def make(histories: Sequence[Sequence[int]], num_items: int | None = None) -> SequenceStore:
        items = np.concatenate([np.asarray(history, dtype=np.int32) for history in histories])
        offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
        item_ids = None if num_items is None else Vocabulary.of_range(num_items)
        return SequenceStore.from_arrays(offsets=offsets, items=items, item_ids=item_ids)

    return make
