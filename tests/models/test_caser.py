"""Caser keeps the contract, and all windows of a row at once are the windows one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ensue.batches.batch import SequenceBatch
from ensue.batches.tasks import make_windows, next_of
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.models import Catalogue, build_model
from ensue.models.caser import Caser, CaserConfig, naive_filters
from ensue.nn.embedding import initialise
from ensue.testing import ModelContract

SMALL = CaserConfig(
    maxlen=16, hidden_units=16, next_items=1, horizontal_filters=4, vertical_filters=2, dropout_rate=0.1
)
ROWS = [[3, 1, 4, 1, 5, 9, 2], [9], [2, 6, 5]]


class TestCaser(ModelContract):
    config = SMALL


class TestUser(ModelContract):
    config = SMALL.replace(user="history", window_events=1)
    train: ClassVar = ModelContract.train.replace(num_epochs=15, eval_epochs=15)


@pytest.mark.parametrize("length", [1, 2, 5, 9])
@torch.no_grad()
def test_all_windows_at_once_are_the_windows_one_by_one(length: int) -> None:
    model = build_model(SMALL.replace(window_events=length, user="history"), Catalogue(30))
    assert isinstance(model, Caser)
    assert model.liked is not None
    initialise(model, 0)
    model.double().eval()
    states = model.encode(SequenceBatch.from_lists(ROWS).asking_all())
    expected = []
    for row in ROWS:
        for stop in range(1, len(row) + 1):
            vectors = model.inputs.weight[row[max(0, stop - length) : stop]]
            window = F.pad(vectors, (0, 0, length - len(vectors), 0))
            state = F.relu(model.out(naive_filters(model.filters, window)))
            user = model.liked.weight[row[:stop]].mean(0)
            expected.append(torch.cat((state, user, torch.ones(1, dtype=torch.float64))))
    torch.testing.assert_close(states, torch.stack(expected))


@torch.no_grad()
def test_users_have_vectors_and_unknown_ones_zeros() -> None:
    model = build_model(SMALL.replace(user="vectors"), Catalogue(30, num_users=5))
    assert isinstance(model, Caser)
    assert model.users is not None
    initialise(model.eval(), 0)
    model.users.weight.copy_(torch.randn(model.users.weight.shape, generator=torch.Generator().manual_seed(0)))
    batch = SequenceBatch.from_lists(ROWS)
    plain = model.encode(batch)
    assert not plain[:, 16:32].any()
    states = model.encode(replace(batch, users_B=torch.tensor([4, 0, 2])))
    assert torch.equal(states[:, :16], plain[:, :16])
    assert torch.equal(states[[0, 2], 16:32], model.users.weight[[4, 2]])
    assert not states[1, 16:32].any()


def test_a_target_is_one_of_the_next_items_and_every_one_comes_up() -> None:
    """The items of a row are consecutive numbers, so that the target's distance can be read from them."""
    rows = np.arange(1, 9) + 20 * np.arange(30)[:, None]
    store = SequenceStore.from_arrays(offsets=np.arange(31) * 8, items=rows.reshape(-1).astype(np.int32))
    windows = make_windows(make_split(store, SplitConfig()).train, 16)
    batch = next_of(3).make(windows, np.arange(30), np.random.default_rng(0))
    assert batch.target_Q is not None
    ahead_Q = batch.target_Q - batch.items_P
    for age, distances in enumerate(({1}, {1, 2}, {1, 2, 3}, {1, 2, 3})):
        assert set(ahead_Q[batch.layout.age_P == age].tolist()) == distances
