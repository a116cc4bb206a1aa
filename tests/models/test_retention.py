"""Retention keeps the contract, its parallel form is the recurrence, and a kept state answers as the whole history."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.errors import DataError
from ensue.models import Catalogue, build_model
from ensue.models.retention import Retention, RetentionBlock, RetentionConfig
from ensue.nn.embedding import initialise
from ensue.nn.ops.retention import naive_retention, retention
from ensue.testing import ModelContract, draw_biases

SMALL = RetentionConfig(maxlen=16, hidden_units=16, num_heads=2, num_blocks=1, dropout_rate=0.1)


class TestRetention(ModelContract):
    config = SMALL


class TestByOrder(ModelContract):
    config = SMALL.replace(time="order", num_blocks=2)


@pytest.mark.parametrize("width", [1, 4, 5, 23])
@pytest.mark.parametrize("scale", [0.1, 50.0])
def test_the_parallel_form_is_the_recurrence(width: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)

    def inputs() -> list[Tensor]:
        generator.manual_seed(0)
        parts = [torch.randn(2, 3, width, 4, dtype=torch.float64, generator=generator) for _ in range(3)]
        decay = -scale * torch.rand(2, 3, width, dtype=torch.float64, generator=generator)
        return [part.requires_grad_() for part in (*parts, decay)]

    fast, slow = inputs(), inputs()
    got, expected = retention(*fast, chunk=4), naive_retention(*slow)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    upstream = torch.randn(got.shape, dtype=torch.float64, generator=generator)
    for a, b in zip(
        torch.autograd.grad((got * upstream).sum(), fast),
        torch.autograd.grad((expected * upstream).sum(), slow),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def model_of(**changes: object) -> Retention:
    model = build_model(SMALL.replace(**changes), Catalogue(30))
    assert isinstance(model, Retention)
    initialise(model, 0)
    draw_biases(model)
    return model.double().eval()


def batch_of(histories: list[list[int]], times: list[list[int]]) -> SequenceBatch:
    lengths_B = np.array([len(history) for history in histories])
    return SequenceBatch.from_numpy(np.concatenate(histories), lengths_B, np.concatenate(times))


@pytest.mark.parametrize("time", ["timestamps", "order"])
@torch.no_grad()
def test_states_that_are_kept_give_the_answers_of_the_whole_history(time: str) -> None:
    model = model_of(time=time, num_blocks=2)
    histories = torch.tensor([[1, 2, 3, 30, 2], [9, 9, 8, 7, 1], [4, 5, 6, 7, 8]])
    times = torch.tensor([[5, 5, 90_000, 90_010, 4_000_000], [10, 20, 30, 40, 50], [7, 7, 7, 7_207, 7_207]])
    state = model.begin(3)
    for t in range(histories.shape[1]):
        state, h_BD = model.advance(state, histories[:, t], times[:, t])
        whole = batch_of(histories[:, : t + 1].tolist(), times[:, : t + 1].tolist())
        torch.testing.assert_close(h_BD, model.encode(whole))
    assert state.memory_LBHdd.shape == model.begin(3).memory_LBHdd.shape


@torch.no_grad()
def test_a_long_gap_fades_the_memory() -> None:
    model = model_of()
    soon, late, first = (
        model.encode(batch_of(rows, times))
        for rows, times in (([[1, 2]], [[0, 60]]), ([[1, 2]], [[0, 10**14]]), ([[2]], [[60]]))
    )
    assert not torch.allclose(soon, first, atol=1e-3)
    # After 3 million years the event before has lost almost all of its weight.
    assert float((late - first).norm()) < float((soon - first).norm())


@torch.no_grad()
def test_times_are_needed_only_if_a_memory_fades_with_time() -> None:
    batch = SequenceBatch.from_lists([[1, 2]])
    with pytest.raises(DataError, match=r"model retention needs times of events.*--time order"):
        model_of().encode(batch)
    with pytest.raises(DataError, match="give times_B"):
        model_of().advance(model_of().begin(1), torch.tensor([1]))
    assert model_of(time="order").encode(batch).shape == (1, 16)


def test_heads_start_with_memories_of_different_lengths() -> None:
    model = build_model(SMALL.replace(num_heads=4), Catalogue(30))
    initialise(model, 0)
    assert isinstance(model, Retention)
    block = model.blocks[0]
    assert isinstance(block, RetentionBlock)
    decay = torch.nn.functional.softplus(block.decay.bias)
    torch.testing.assert_close(1 / decay, torch.tensor([2.0, 10.08, 50.8, 256.0]), rtol=1e-2, atol=0)
