"""The three ways to score candidates give the same logits and the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ensue.nn.ops import candidates
from ensue.nn.ops.candidates import candidate_logits, naive_candidate_logits


def run(catalogue: int, dtype: torch.dtype, count: int, num_items: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, and the gradients of states and table, of a loss that weighs every logit differently."""
    generator = torch.Generator().manual_seed(count)
    table = torch.randn(num_items + 1, 6, dtype=dtype, generator=generator).requires_grad_()
    h_PD = torch.randn(70, 6, dtype=dtype, generator=generator).requires_grad_()
    items_PC = torch.randint(1, num_items + 1, (70, count), generator=generator)
    items_PC[:, -1] = items_PC[:, 0]  # a candidate that comes twice gets both gradients
    weight = torch.randn(70, count, dtype=dtype, generator=generator)

    def vectors(items: Tensor | None = None) -> Tensor:
        return table[1:] if items is None else table[items]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "CATALOGUE", catalogue)
        patch.setattr(candidates, "chunk_rows", lambda _: 32)
        logits = candidate_logits(h_PD, items_PC, vectors, num_items)
    (logits * weight).sum().backward()
    assert h_PD.grad is not None
    assert table.grad is not None
    return logits.detach(), h_PD.grad, table.grad


@pytest.mark.parametrize("count", [3, 9])
def test_picked_from_the_whole_catalogue_as_gathered(count: int) -> None:
    gathered, picked = run(0, torch.float64, count), run(1000, torch.float64, count)
    for one, other in zip(gathered, picked, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_few_candidates_as_many() -> None:
    generator = torch.Generator().manual_seed(0)
    table, h_PD = torch.randn(9, 4, generator=generator), torch.randn(5, 4, generator=generator)
    items_PC = torch.randint(1, 9, (5, 3), generator=generator)
    expected = naive_candidate_logits(h_PD, items_PC, table[1:])
    three = candidate_logits(h_PD, items_PC, lambda items: table[items], 10**6)
    two = candidate_logits(h_PD, items_PC[:, :2], lambda items: table[items], 10**6)
    torch.testing.assert_close(three, expected)
    torch.testing.assert_close(two, expected[:, :2])


def test_under_autocast_the_products_are_of_its_type() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits, grad_h, grad_table = run(1000, torch.float32, 9)
    assert logits.dtype == torch.bfloat16
    exact, exact_h, exact_table = run(1000, torch.float32, 9)
    torch.testing.assert_close(logits.float(), exact, rtol=0.05, atol=0.1)
    assert (grad_h.dtype, grad_table.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(grad_h, exact_h, rtol=0.05, atol=0.2)
    torch.testing.assert_close(grad_table, exact_table, rtol=0.05, atol=0.3)
