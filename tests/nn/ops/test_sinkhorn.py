"""The fast Sinkhorn is the obvious one, in value and gradient; finite far out, and small in what it keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ensue.nn.hyper_connections import OFF_DIAGONAL
from ensue.nn.ops.sinkhorn import CONVERGED, naive_sinkhorn, sinkhorn


def logits(count: int = 7, streams: int = 4, spread: float = 3.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """[S, S, P] normal numbers."""
    generator = torch.Generator().manual_seed(0)
    return spread * torch.randn(streams, streams, count, generator=generator, dtype=dtype)


def naive(logits_SSP: Tensor, iterations: int) -> Tensor:
    """The obvious form in the fast one's layout."""
    return naive_sinkhorn(logits_SSP.permute(2, 0, 1), iterations).permute(1, 2, 0)


def around_mhc(spread: float, count: int = 2000, streams: int = 4) -> Tensor:
    """Logits around 0 and -3, where mHC starts with a spread of 0.003."""
    off = ((1 - torch.eye(streams, dtype=torch.float64)) * OFF_DIAGONAL)[:, :, None]
    return off + logits(streams=streams, count=count, spread=spread)


def gradients(x: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """The fast form's gradient and the obvious one's."""
    fast, slow = x.clone().requires_grad_(), x.clone().requires_grad_()
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    sinkhorn(fast, iterations).backward(upstream)
    naive(slow, iterations).backward(upstream)
    assert fast.grad is not None
    assert slow.grad is not None
    return fast.grad, slow.grad


@pytest.mark.parametrize("streams", [2, 4, 7])
@pytest.mark.parametrize("iterations", [1, 2, 20, 200])
@pytest.mark.parametrize("spread", [0.1, 3.0, 15.0])
def test_equals_the_obvious_form(streams: int, iterations: int, spread: float) -> None:
    x = logits(streams=streams, spread=spread)
    torch.testing.assert_close(sinkhorn(x, iterations), naive(x, iterations), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("streams", [2, 4, 7])
@pytest.mark.parametrize("spread", [0.1, 1.0, 2.0])
def test_gradient_equals_the_obvious_forms_in_the_limit(streams: int, spread: float) -> None:
    """Once the iterations have converged, to 1e-12."""
    got, expected = gradients(logits(streams=streams, spread=spread), 1000)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("streams", [2, 3, 4])
@pytest.mark.parametrize("iterations", [10, 12, 20])
@pytest.mark.parametrize("spread", [0.003, 0.1, 0.3, 1.0, 3.0, 10.0])
def test_gradient_is_near_the_obvious_forms(spread: float, iterations: int, streams: int) -> None:
    """The norm of the difference, as a share of the gradient's: where the columns hold, the gradient is the limit's."""
    got, expected = gradients(around_mhc(spread, streams=streams), iterations)
    assert float((got - expected).norm() / expected.norm()) < 5e-3


@pytest.mark.parametrize("streams", [2, 3, 4])
@pytest.mark.parametrize("iterations", [1, 2, 5, 9])
def test_gradient_at_few_iterations_is_the_obvious_forms(iterations: int, streams: int) -> None:
    got, expected = gradients(around_mhc(0.5, streams=streams), iterations)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_gradient_goes_through_the_iterations_where_they_have_not_converged() -> None:
    """Matrix by matrix: those that mix too little agree to rounding, whatever stands beside them."""
    x = around_mhc(1.0)
    matrix = naive(x, 20)
    apart = ((1 - matrix.amin(0).sum(0)) * (1 - matrix.amin(1).sum(0))) ** 20 > CONVERGED
    assert 0 < int(apart.sum()) < len(apart)
    got, expected = gradients(x, 20)
    torch.testing.assert_close(got[:, :, apart], expected[:, :, apart], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("streams", [2, 4])
def test_gradient_equals_differences(streams: int) -> None:
    x = logits(count=2, streams=streams, spread=0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sinkhorn(x, 100), (x,))


@pytest.mark.parametrize("spread", [50.0, 1000.0])
def test_float32_is_finite_far_out(spread: float) -> None:
    """Logits of both signs up to +-50, and beyond, in every arrangement that two values allow."""
    patterns = (torch.arange(1 << 9)[:, None] >> torch.arange(9) & 1).float().T.view(3, 3, -1)
    extreme = (2 * patterns - 1) * spread
    generator = torch.Generator().manual_seed(1)
    uniform = (2 * torch.rand(3, 3, 2000, generator=generator) - 1) * spread
    x = torch.cat((extreme, uniform), -1).requires_grad_()
    out = sinkhorn(x)
    assert out.dtype == torch.float32
    assert bool(out.isfinite().all())
    assert bool((out >= 0).all())
    torch.testing.assert_close(out.sum(1), torch.ones(3, x.shape[-1]), rtol=1e-5, atol=1e-5)
    out.backward(torch.randn(out.shape, generator=generator))
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def test_float32_is_near_float64() -> None:
    """For logits up to +-30; between those two the difference is rounding."""
    x = logits(count=500, spread=8.0).clamp(-30, 30)
    torch.testing.assert_close(sinkhorn(x.float()).double(), naive(x, 20), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(("spread", "columns"), [(0.003, 2e-6), (0.1, 5e-4), (1.0, 0.05), (5.0, 0.2)])
def test_rows_sum_to_one_and_columns_nearly(spread: float, columns: float) -> None:
    """Around mHC's 0 and -3, where it starts with a spread of 0.003; the columns' tolerance grows with the spread."""
    out = sinkhorn(around_mhc(spread).float())
    assert float((out.sum(1) - 1).abs().max()) < 1e-6
    assert float((out.sum(0) - 1).abs().max()) < columns


def test_what_is_doubly_stochastic_stays() -> None:
    shares = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.2, 0.5]])[:, :, None]
    torch.testing.assert_close(sinkhorn(shares.log()), shares)
    torch.testing.assert_close(sinkhorn(torch.full((4, 4, 2), -7.0)), torch.full((4, 4, 2), 0.25))


def test_added_to_a_row_or_a_column_changes_nothing() -> None:
    """In the limit of many iterations; so the gradient of a whole row or column is zero."""
    x = logits(spread=1.0).requires_grad_()
    shifted = x + torch.arange(4.0)[:, None, None] - 2 * torch.arange(4.0)[None, :, None]
    out = sinkhorn(shifted, 500)
    torch.testing.assert_close(out, sinkhorn(x, 500), rtol=1e-9, atol=1e-9)
    out.backward(logits().flip(0))
    assert x.grad is not None
    for axis in (0, 1):
        torch.testing.assert_close(x.grad.sum(axis), torch.zeros(4, 7, dtype=torch.float64), rtol=0, atol=1e-9)


def test_keeps_two_matrices_and_not_one_for_each_iteration() -> None:
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x = logits(count=50).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        sinkhorn(x, 20)
        assert sum(tensor.numel() for tensor in kept) == 2 * x.numel()
        kept.clear()
        naive(x, 20)
    assert sum(tensor.numel() for tensor in kept) > 20 * x.numel()
