"""Every loss equals its paper's formula written out as a float64 loop, in value and gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ensue.errors import ConfigError
from ensue.nn.native.library import TORCH, computing_with
from ensue.nn.ops import full_softmax
from ensue.objectives import losses
from ensue.objectives.objective import SMOOTHED, ObjectiveConfig

Formula = Callable[[Tensor, list[Tensor]], Tensor]


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def bce(pos: Tensor, neg: list[Tensor]) -> Tensor:
    return -torch.log(sigmoid(pos)) - sum(torch.log(1 - sigmoid(n)) for n in neg)


def gbce(beta: float) -> Formula:
    def formula(pos: Tensor, neg: list[Tensor]) -> Tensor:
        total = torch.log(sigmoid(pos) ** beta) + sum(torch.log(1 - sigmoid(n)) for n in neg)
        return -total / (len(neg) + 1)

    return formula


def sampled_softmax(pos: Tensor, neg: list[Tensor]) -> Tensor:
    return -torch.log(torch.exp(pos) / (torch.exp(pos) + sum(torch.exp(n) for n in neg)))


def smoothed(pos: Tensor, neg: list[Tensor]) -> Tensor:
    logits = torch.stack([pos, *neg])
    target = torch.zeros((), dtype=torch.int64)
    return torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.2)


def bpr(pos: Tensor, neg: list[Tensor]) -> Tensor:
    return -sum(torch.log(sigmoid(pos - n)) for n in neg) / len(neg)


def weights(neg: list[Tensor]) -> list[Tensor]:
    total = sum(torch.exp(n) for n in neg)
    return [torch.exp(n) / total for n in neg]


def bpr_max(regularisation: float) -> Formula:
    def formula(pos: Tensor, neg: list[Tensor]) -> Tensor:
        w = weights(neg)
        ranking = -torch.log(sum(w_k * sigmoid(pos - n) for w_k, n in zip(w, neg, strict=True)))
        return ranking + regularisation * sum(w_k * n**2 for w_k, n in zip(w, neg, strict=True))

    return formula


def top1(pos: Tensor, neg: list[Tensor]) -> Tensor:
    return sum(sigmoid(n - pos) + sigmoid(n**2) for n in neg) / len(neg)


def top1_max(pos: Tensor, neg: list[Tensor]) -> Tensor:
    return sum(w * (sigmoid(n - pos) + sigmoid(n**2)) for w, n in zip(weights(neg), neg, strict=True))


PAIRS: dict[str, tuple[losses.Loss, Formula]] = {
    "bce": (losses.bce, bce),
    "gbce": (losses.gbce(0.37), gbce(0.37)),
    "sampled-softmax": (losses.sampled_softmax, sampled_softmax),
    "sampled-softmax, smoothed": (losses.smoothed_sampled_softmax(0.2), smoothed),
    "bpr": (losses.bpr, bpr),
    "bpr-max": (losses.bpr_max(1.0), bpr_max(1.0)),
    "bpr-max 0.3": (losses.bpr_max(0.3), bpr_max(0.3)),
    "top1": (losses.top1, top1),
    "top1-max": (losses.top1_max, top1_max),
}


def test_every_registered_loss_is_checked() -> None:
    assert set(losses.LOSSES) - {"ce", "likelihood"} <= set(PAIRS)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("num_negatives", [1, 5])
def test_loss_equals_the_formula(name: str, num_negatives: int) -> None:
    loss, formula = PAIRS[name]
    generator = torch.Generator().manual_seed(1)
    pos = torch.randn(7, generator=generator) * 3
    neg = torch.randn(7, num_negatives, generator=generator) * 3
    weight = torch.rand(7, generator=generator)
    fast = [pos.clone().requires_grad_(), neg.clone().requires_grad_()]
    slow = [pos.double().requires_grad_(), neg.double().requires_grad_()]
    got = loss(fast[0], fast[1])
    expected = torch.stack([formula(slow[0][p], list(slow[1][p])) for p in range(7)])
    assert got.shape == (7,)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=2e-5, atol=2e-6)
    (got * weight).sum().backward()
    (expected * weight).sum().backward()
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_is_finite_for_extreme_logits(name: str, dtype: torch.dtype) -> None:
    extremes = torch.tensor([-1e4, -20.0, 0.0, 20.0, 1e4])
    pos = extremes.repeat_interleave(25).to(dtype).requires_grad_()
    neg = torch.stack((extremes.repeat(25), extremes.repeat_interleave(5).repeat(5)), 1).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = PAIRS[name][0](pos, neg)
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    loss.sum().backward()
    assert pos.grad.isfinite().all()
    assert neg.grad.isfinite().all()


def test_bce_at_extremes_is_the_logit_itself() -> None:
    loss = losses.bce(torch.tensor([-1e4, 1e4]), torch.tensor([[-1e4], [1e4]]))
    assert loss.tolist() == [1e4, 1e4]


def test_gbce_beta_at_both_ends() -> None:
    assert losses.gbce_beta(16, 101, 0.0) == pytest.approx(1.0)
    assert losses.gbce_beta(16, 101, 1.0) == pytest.approx(0.16)
    assert losses.gbce_beta(256, 3417, 0.75) == pytest.approx(0.75 * 256 / 3416 + 0.25)
    assert losses.gbce_beta(256, 60, 0.75) == losses.gbce_beta(1, 1, 0.75) == 1.0


# ---- full softmax ----


def problem(positions: int = 23, items: int = 11, width: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    h = torch.randn(positions, width, generator=generator)
    catalogue = torch.randn(items, width, generator=generator)
    return h, torch.randint(0, items, (positions,), generator=generator), catalogue


@pytest.mark.parametrize("cells", [1, 11, 40, 1_000_000])
@pytest.mark.parametrize("uniform", [True, False])
def test_cross_entropy_equals_torch(monkeypatch: pytest.MonkeyPatch, cells: int, uniform: bool) -> None:
    monkeypatch.setattr(full_softmax, "CHUNK_CELLS", cells)
    monkeypatch.setattr(full_softmax, "CHUNK_ROWS", 1)
    h, target, items = problem()
    upstream = torch.full((23,), 1 / 23) if uniform else torch.linspace(-1, 2, 23)
    a, b = h.clone().requires_grad_(), items.clone().requires_grad_()
    c, d = h.double().requires_grad_(), items.double().requires_grad_()
    got = full_softmax.cross_entropy(a, target, b)
    expected = full_softmax.naive_cross_entropy(c, target, d)
    torch.testing.assert_close(expected, torch.nn.functional.cross_entropy(c @ d.T, target, reduction="none"))
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    (got * upstream).sum().backward()
    (expected * upstream.double()).sum().backward()
    torch.testing.assert_close(a.grad.double(), c.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(b.grad.double(), d.grad, rtol=1e-4, atol=1e-6)


def test_label_smoothing_equals_torch() -> None:
    h, target, items = problem()
    a, b = h.clone().requires_grad_(), items.clone().requires_grad_()
    c, d = h.double().requires_grad_(), items.double().requires_grad_()
    got = losses.smoothed_cross_entropy(0.1)(a, target, b)
    expected = torch.nn.functional.cross_entropy(c @ d.T, target, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    got.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(a.grad.double(), c.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(b.grad.double(), d.grad, rtol=1e-4, atol=1e-6)


def test_label_smoothing_needs_a_softmax() -> None:
    with pytest.raises(ConfigError, match="label_smoothing needs loss ce or sampled-softmax"):
        ObjectiveConfig(loss="bpr", label_smoothing=0.1)
    for name in SMOOTHED:
        config = ObjectiveConfig(loss=name, label_smoothing=0.1)
        assert losses.LOSSES[name](config, 9).function not in (losses.sampled_softmax, full_softmax.cross_entropy)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_cross_entropy_when_only_one_side_learns(wanted: tuple[bool, bool]) -> None:
    h, target, items = problem()
    a, b = h.requires_grad_(wanted[0]), items.requires_grad_(wanted[1])
    loss = full_softmax.cross_entropy(a, target, b).mean()
    assert loss.requires_grad == any(wanted)
    if any(wanted):
        loss.backward()
    assert (a.grad is not None, b.grad is not None) == wanted


def test_cross_entropy_of_a_tied_table_adds_both_gradients() -> None:
    """States made from the table itself: the case of every tied model."""
    _, target, items = problem()
    a, b = items.clone().requires_grad_(), items.double().requires_grad_()
    rows = torch.arange(23) % 11
    full_softmax.cross_entropy(a[rows] * 2, target, a).mean().backward()
    torch.nn.functional.cross_entropy((b[rows] * 2) @ b.T, target).backward()
    torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=1e-6)


def test_cross_entropy_is_finite_for_extreme_logits() -> None:
    h = torch.tensor([[1e4], [-1e4], [0.0]]).requires_grad_()
    items = torch.tensor([[1.0], [-1.0], [0.0]]).requires_grad_()
    loss = full_softmax.cross_entropy(h, torch.tensor([1, 1, 2]), items)
    torch.testing.assert_close(loss, torch.tensor([2e4, 0.0, math.log(3)]))
    loss.sum().backward()
    assert h.grad.isfinite().all()
    assert items.grad.isfinite().all()


@pytest.mark.parametrize("uniform", [True, False])
def test_cross_entropy_under_autocast(uniform: bool) -> None:
    h, target, items = problem(positions=64, items=50, width=16)
    upstream = torch.ones(64) if uniform else torch.linspace(0.5, 2, 64)
    states = h.bfloat16().requires_grad_()
    table = items.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = full_softmax.cross_entropy(states, target, table)
    assert loss.dtype == torch.float32
    (loss * upstream).sum().backward()
    exact_h, exact_items = h.double().requires_grad_(), items.double().requires_grad_()
    exact = torch.nn.functional.cross_entropy(exact_h @ exact_items.T, target, reduction="none")
    (exact * upstream).sum().backward()
    torch.testing.assert_close(loss.double(), exact, rtol=0.02, atol=0.05)
    assert table.grad.dtype == torch.float32
    assert states.grad.dtype == torch.bfloat16
    error = (table.grad.double() - exact_items.grad).norm() / exact_items.grad.norm()
    assert error < 0.02
    error = (states.grad.double() - exact_h.grad).norm() / exact_h.grad.norm()
    assert error < 0.02


class LargestTensor(TorchDispatchMode):
    """Records the most cells that any result of an operation has."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.cells = max(self.cells, value.numel())
        return result


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("rows", [1, 20])
def test_cross_entropy_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch, uniform: bool, rows: int) -> None:
    monkeypatch.setattr(full_softmax, "CHUNK_CELLS", 4_000)
    monkeypatch.setattr(full_softmax, "CHUNK_ROWS", rows)
    h, target, items = problem(positions=300, items=1_000, width=3)
    upstream = torch.ones(300) if uniform else torch.linspace(0, 1, 300)
    probe = LargestTensor()
    with computing_with(TORCH), probe:
        loss = full_softmax.cross_entropy(h.requires_grad_(), target, items.requires_grad_())
        (loss * upstream).sum().backward()
    assert probe.cells == max(4, rows) * 1_000
