"""HSTU keeps the contract, and is its equations written out."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toys import ASKED, ITEMS, NUM_ITEMS, TIMES, built, timed_batch

from ensue.batches.batch import SequenceBatch
from ensue.errors import ConfigError, DataError
from ensue.models.hstu import HSTU, HSTUBlock, HSTUConfig
from ensue.testing import ModelContract

SMALL = HSTUConfig(maxlen=16, hidden_units=16, num_blocks=2, dropout_rate=0.1)


class TestHSTU(ModelContract):
    config = SMALL.replace(query_time=True, num_heads=2)


class TestOrder(ModelContract):
    config = SMALL.replace(num_blocks=1, time="order")
    train: ClassVar = ModelContract.train.replace(num_epochs=35, eval_epochs=35)


def model_of(**changes: object) -> HSTU:
    return built(HSTU, SMALL.replace(**changes))


def naive_state(model: HSTU, row: int, looks_back_from: list[int], last_bucket: int) -> Tensor:
    """The equations for one row: head by head, pair by pair."""
    items, times = ITEMS[row], TIMES[row]
    ages = list(range(len(items) - 1, -1, -1))
    x_TD = model.items.weight[items] * 4 + model.positions.table[ages]  # type: ignore[index]
    for block in model.blocks:
        assert isinstance(block, HSTUBlock)
        u, v, q, k = F.silu(block.uvqk(block.norm(x_TD))).chunk(4, 1)
        out = torch.zeros_like(v)
        size = 16 // block.num_heads
        for head in range(block.num_heads):
            own = slice(head * size, head * size + size)
            for i in range(len(items)):
                for j in range(i + 1):
                    gap = max(1.0, abs(looks_back_from[i] - times[j]))
                    bucket = min(last_bucket, math.floor(math.log(gap) / 0.301))
                    bias = block.biases.position_bias[i - j] + block.biases.time_bias[bucket]
                    out[i, own] += F.silu(q[i, own] @ k[j, own] + bias) / model.maxlen * v[j, own]
        x_TD = x_TD + block.out(block.attended_norm(out) * u)
    return model.norm(x_TD[-1])


@pytest.mark.parametrize("query_time", [False, True])
@pytest.mark.parametrize("changes", [{"num_heads": 2}, {"time_buckets": 20}])
@torch.no_grad()
def test_it_is_its_equations(query_time: bool, changes: dict[str, int]) -> None:
    model = model_of(query_time=query_time, **changes)
    expected = []
    for row, own in enumerate(TIMES):
        looks_back_from = [*own[1:], ASKED[row]] if query_time else own
        expected.append(naive_state(model, row, looks_back_from, changes.get("time_buckets", 128) - 1))
    torch.testing.assert_close(model.encode(timed_batch()), torch.stack(expected))


def test_what_it_refuses() -> None:
    with pytest.raises(DataError, match=r"hstu needs times of events, but there are none.*--time order"):
        model_of().logits(SequenceBatch.from_lists([[1, 2]]))
    timed = SequenceBatch.from_numpy(np.array([1, 2]), np.array([2]), np.array([5, 9]))
    with pytest.raises(DataError, match="give the time of the request"):
        model_of(query_time=True).logits(timed)
    with pytest.raises(ConfigError, match="query_time needs time = 'timestamps'"):
        HSTUConfig.parse({"query_time": True, "time": "order"})
    assert model_of(time="order").logits(SequenceBatch.from_lists([[1, 2]])).shape == (1, NUM_ITEMS)
