"""BSARec keeps the contract, and is its equations written out."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ensue.batches.batch import SequenceBatch
from ensue.data.split import SplitConfig, make_split
from ensue.datasets.simulate import ordered_sequences
from ensue.models import Catalogue, build_model
from ensue.models.bsarec import AttentionAndFrequency, BSARec, BSARecConfig, FrequencyBlock
from ensue.nn.embedding import initialise
from ensue.nn.frequency import naive_low_pass
from ensue.nn.self_attention import SelfAttention
from ensue.testing import ModelContract
from ensue.train.loop import Trainer

SMALL = BSARecConfig(maxlen=16, hidden_units=16, num_blocks=2, dropout_rate=0.1, frequencies=3)
NUM_ITEMS = 30


class TestBSARec(ModelContract):
    config = SMALL
    train: ClassVar = ModelContract.train.replace(num_epochs=6, eval_epochs=6)


class TestFrequencyLayerMostlyAndWindows(ModelContract):
    config = SMALL.replace(num_blocks=1, alpha=0.9, num_heads=2, maxlen=13, task="last")
    train: ClassVar = ModelContract.train.replace(num_epochs=50, eval_epochs=50, window="prefixes", batch_size=400)


def naive_state(model: BSARec, history: list[int], config: BSARecConfig) -> Tensor:
    """The equations for one row, one head."""
    ages = torch.arange(len(history) - 1, -1, -1)
    x_TD = model.norm(model.items.weight[history] + model.positions.table[ages])  # type: ignore[index]
    for block in model.blocks:
        assert isinstance(block, FrequencyBlock)
        assert isinstance(block.mixer, AttentionAndFrequency)
        mixer = block.mixer
        low_TD = naive_low_pass(x_TD, config.maxlen, config.frequencies)
        filtered_TD = low_TD + mixer.frequency.layer.filter.beta**2 * (x_TD - low_TD)  # type: ignore[union-attr]
        attention = mixer.attention.layer.attention
        assert isinstance(attention, SelfAttention)
        q, k, v = attention.qkv(x_TD).chunk(3, 1)
        hidden = torch.ones(len(history), len(history), dtype=torch.bool).triu(1)
        weight_TT = (q @ k.T / q.shape[1] ** 0.5).masked_fill(hidden, float("-inf")).softmax(1)
        filtered_TD = mixer.frequency.norm(x_TD + filtered_TD)
        attended_TD = mixer.attention.norm(x_TD + attention.out(weight_TT @ v))
        x_TD = config.alpha * filtered_TD + (1 - config.alpha) * attended_TD
        x_TD = block.norm(x_TD + block.outer(F.gelu(block.inner(x_TD))))
    return x_TD[-1]


@pytest.mark.parametrize(("maxlen", "frequencies"), [(16, 1), (16, 3), (16, 9), (13, 7), (13, 20)])
@torch.no_grad()
def test_it_is_its_equations(maxlen: int, frequencies: int) -> None:
    config = SMALL.replace(maxlen=maxlen, frequencies=frequencies)
    model = build_model(config, Catalogue(NUM_ITEMS))
    assert isinstance(model, BSARec)
    initialise(model, 0)
    model.double().eval()
    for block in model.blocks:
        # The kernel is kept in float32; the plain form is exact.
        low_pass = block.mixer.frequency.layer.filter.low_pass  # type: ignore[union-attr]
        impulse = torch.eye(maxlen, dtype=torch.float64)[:, :1]
        low_pass.kernel = naive_low_pass(impulse, maxlen, frequencies)[:, 0]  # type: ignore[union-attr]
    histories = [[5], [1, 2, 3, 30], [7, 7], list(range(1, maxlen + 1))]
    expected = torch.stack([naive_state(model, history, config) for history in histories])
    torch.testing.assert_close(model.encode(SequenceBatch.from_lists(histories)), expected)


def test_every_prefix_trains() -> None:
    """By default each event but the first of a history is the only target of an example."""
    split = make_split(ordered_sequences(num_users=20, num_items=NUM_ITEMS, length=10), SplitConfig())
    trainer = Trainer(TestBSARec().run_config(), split)
    assert len(trainer.loader.windows) == 20 * 7
    for work in trainer.work(0):
        for part in work.parts:
            assert part is not None
            assert torch.equal(part.asked_Q, part.layout.last_B)
