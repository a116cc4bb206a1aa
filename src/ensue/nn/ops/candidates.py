"""Scores of a few candidates for each state, computed by the cheapest kind of products.

Suffixes: `P` positions, `R` positions of a chunk, `C` candidates, `N` items, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ensue.nn.native.rows import candidates, is_native
from ensue.nn.ops.full_softmax import apply_under_autocast, chunk_rows

# Up to this many candidates, plain products are faster than a batch of tiny matrix products (two: 2.1 ms, not 8.1).
FEW = 2
# Up to this many items per candidate, scoring the whole catalogue is faster than gathering: benchmarks/candidates.py.
CATALOGUE = 64


def candidate_logits(h_PD: Tensor, items_PC: Tensor, item_vectors: Callable[..., Tensor], num_items: int) -> Tensor:
    """Inner products of each state with the vectors of its own candidates, [P, C].

    For many candidates of a small catalogue, the products with the whole catalogue are computed in chunks of states and
    the candidates are picked from them: a matrix product reads an item's vector once, but gathering copies it for every
    candidate. `naive_candidate_logits` is the plain form.

    Args:
        h_PD: states.
        items_PC: item numbers of the candidates, int64 in 1..N.
        item_vectors: an encoder's method: item numbers [...] -> [..., D]; without an argument the catalogue, [N, D].
        num_items: N.
    """
    count = items_PC.shape[1]
    if count <= FEW or num_items > CATALOGUE * count:
        vectors_PCD = item_vectors(items_PC)
        if is_native(h_PD, vectors_PCD):
            return candidates(h_PD, vectors_PCD)
        if count <= FEW:
            return (h_PD[:, None] * vectors_PCD).sum(-1)
        return torch.einsum("pd,pcd->pc", h_PD, vectors_PCD)
    return apply_under_autocast(_Picked, h_PD, items_PC - 1, item_vectors())


def naive_candidate_logits(h_PD: Tensor, items_PC: Tensor, items_ND: Tensor) -> Tensor:
    """The plain form of `candidate_logits`: gather the vectors of all candidates and compute one product each."""
    return (h_PD[:, None] * items_ND[items_PC - 1]).sum(-1)


class _Picked(torch.autograd.Function):
    """logits[p, c] = h[p] . items[picks[p, c]]; a chunk's products with the whole catalogue are freed after use."""

    @staticmethod
    def forward(ctx: Any, h_PD: Tensor, picks_PC: Tensor, items_ND: Tensor) -> Tensor:
        ctx.save_for_backward(h_PD, picks_PC, items_ND)
        table = items_ND.to(h_PD.dtype).T
        rows = chunk_rows(len(items_ND))
        parts = zip(torch.split(h_PD, rows), torch.split(picks_PC, rows), strict=True)
        return torch.cat([(h_RD @ table).gather(1, picks_RC) for h_RD, picks_RC in parts])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor]:
        h_PD, picks_PC, items_ND = ctx.saved_tensors
        table = items_ND.to(h_PD.dtype)
        rows = chunk_rows(len(items_ND))
        grad_h, grad_items = torch.empty_like(h_PD), torch.zeros_like(items_ND)
        parts = zip(*(torch.split(each, rows) for each in (h_PD, picks_PC, grads[0], grad_h)), strict=True)
        for h_RD, picks_RC, grad_RC, out_RD in parts:
            delta = h_RD.new_zeros(len(h_RD), len(table)).scatter_add_(1, picks_RC, grad_RC)
            torch.mm(delta, table, out=out_RD)
            grad_items += delta.T @ h_RD
        return grad_h, None, grad_items
