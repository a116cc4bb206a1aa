"""Dropout from bytes: the stated rate, an exact expectation, and the same mask in the gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ensue.nn.dropout import Dropout
from ensue.nn.ops.dropout import LEVELS, draws_from, dropped, keep_mask, naive_dropout, random_bytes, threshold


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_rate_and_scale(rate: float) -> None:
    torch.manual_seed(0)
    layer = Dropout(rate).train()
    y = layer(torch.ones(400_000))
    kept = y[y != 0]
    exact = threshold(rate) / LEVELS
    assert abs(exact - rate) <= 0.5 / LEVELS
    # Five standard deviations of the share of 400,000 draws.
    assert abs(float((y == 0).float().mean()) - exact) < 5 * (exact * (1 - exact) / 400_000) ** 0.5
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - exact)))


@pytest.mark.parametrize("rate", [0.003, 0.2, 0.5, 0.97, 0.9999])
def test_expectation_over_all_bytes_is_exact(rate: float) -> None:
    """Each byte is equally likely: the mean over all 256 of mask times scale is one."""
    drop_below = threshold(rate)
    mask = keep_mask(torch.arange(LEVELS).to(torch.uint8), drop_below)
    assert float(mask.double().mean()) * LEVELS / (LEVELS - drop_below) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (3, 5), (2, 3, 9), (0, 4)])
def test_bytes_of_any_shape(shape: tuple[int, ...]) -> None:
    drawn = random_bytes(shape)
    assert drawn.shape == shape
    assert drawn.dtype == torch.uint8


def test_bytes_are_uniform() -> None:
    torch.manual_seed(1)
    counts = torch.bincount(random_bytes((256_000,)).long(), minlength=256).double()
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 360  # chi-square, 255 degrees of freedom: p = 1e-5


def test_gradient_uses_the_same_mask() -> None:
    torch.manual_seed(2)
    x = torch.randn(300, 7, requires_grad=True)
    upstream = torch.randn(300, 7)
    y = Dropout(0.3).train()(x)
    factor = torch.where(y == 0, 0.0, LEVELS / (LEVELS - threshold(0.3)))
    torch.testing.assert_close(y, x * factor)
    y.backward(upstream)
    torch.testing.assert_close(x.grad, upstream * factor)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_type_is_kept(dtype: torch.dtype) -> None:
    x = torch.randn(50, dtype=dtype, requires_grad=True)
    y = Dropout(0.5).train()(x)
    assert y.dtype == dtype
    y.sum().backward()
    assert x.grad.dtype == dtype


def test_evaluation_and_rate_zero_are_the_identity() -> None:
    x = torch.randn(4, 3)
    before = torch.get_rng_state()
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_gives_the_same_mask() -> None:
    layer, x = Dropout(0.4).train(), torch.ones(1000)

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return layer(x)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.999])
def test_bytes_decide_as_in_the_plain_form(rate: float) -> None:
    x, drawn = torch.randn(40, 7), random_bytes((40, 7))
    expected = naive_dropout(x, drawn, rate)
    torch.testing.assert_close(dropped(x, drawn, threshold(rate)), expected)


CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "layer", [Dropout(0.4), nn.Dropout(0.4), nn.GRU(6, 6, num_layers=2, dropout=0.4)], ids=["ours", "torch's", "gru"]
)
def test_draws_depend_on_the_seed_alone(layer: nn.Module) -> None:
    """Torch's layers draw from its global generator, which is seeded within and restored after."""
    x = torch.ones(20, 5, 6)

    def drawn(seed: int) -> torch.Tensor:
        with draws_from(seed, CPU):
            out = layer.train()(x)
        return out[0] if isinstance(out, tuple) else out

    torch.manual_seed(0)
    first = drawn(1)
    torch.manual_seed(99)
    assert torch.equal(drawn(1), first)
    assert not torch.equal(drawn(2), first)


def test_the_global_generator_is_as_it_was_even_after_an_error() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), draws_from(1, CPU):
        nn.Linear(2, 2)(nn.Dropout(0.5).train()(torch.ones(9)))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(random_bytes((64,)), random_bytes((64,)))
