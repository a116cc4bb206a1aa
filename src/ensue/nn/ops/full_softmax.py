"""Full softmax cross-entropy over a catalogue, in chunks of positions, with the gradient computed in the same pass.

Suffixes: `P` positions, `C` positions of a chunk, `N` items, `D` width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ensue.nn.native.rows import is_native
from ensue.nn.native.softmax import cross_entropy_pass

# Logits per chunk: 1 million float32 are 4 MB and stay in the cache (measured: 0.9 of the time of 4 million).
CHUNK_CELLS = 1_000_000
# Minimum number of rows per chunk, since products with fewer are slow: 128 MB for a million items.
CHUNK_ROWS = 32


def cross_entropy(h_PD: Tensor, target_P: Tensor, items_ND: Tensor) -> Tensor:
    """Full softmax cross-entropy, logsumexp_j(h . e_j) - h . e_target, in chunks of positions.

    The logits of a chunk are freed after use. If gradients are needed, they are computed in the same pass for an
    upstream gradient of one; a mean over positions only scales them. If the upstream gradient differs between
    positions, a second pass computes them. `naive_cross_entropy` is the plain form.

    Args:
        h_PD: states, [P, D].
        target_P: int64, rows of `items_ND` (item number - 1), [P].
        items_ND: item vectors, [N, D].

    Returns:
        [P], float32.
    """
    return apply_under_autocast(_CrossEntropy, h_PD, target_P, items_ND)


def naive_cross_entropy(h_PD: Tensor, target_P: Tensor, items_ND: Tensor) -> Tensor:
    """The plain form of `cross_entropy`, with all logits at once and autograd's gradient."""
    logits_PN = h_PD @ items_ND.T
    return logits_PN.logsumexp(1) - logits_PN.gather(1, target_P[:, None])[:, 0]


def apply_under_autocast(function: type[torch.autograd.Function], h_PD: Tensor, *others: Tensor) -> Tensor:
    """Apply a function that computes its products in the type of the states; under autocast, in autocast's type.

    Autocast does not apply to the products in a function's gradient, so it is switched off for the forward pass too.
    """
    device = h_PD.device.type
    if torch.is_autocast_enabled(device):
        h_PD = h_PD.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        out: Tensor = function.apply(h_PD, *others)  # type: ignore[no-untyped-call]
    return out


def chunk_rows(num_items: int) -> int:
    """The number of rows in a chunk of logits over a catalogue."""
    return max(CHUNK_ROWS, CHUNK_CELLS // num_items)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_PD: Tensor, target_P: Tensor, items_ND: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[2]
        ones = h_PD.new_ones(h_PD.shape[0]) if wanted else None
        loss_P, grad_h, grad_items = _cross_entropy_pass(h_PD, target_P, items_ND, ones)
        if wanted:
            assert grad_h is not None
            assert grad_items is not None
            ctx.save_for_backward(h_PD, target_P, items_ND, grad_h, grad_items)
        return loss_P

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        h_PD, target_P, items_ND, grad_h, grad_items = ctx.saved_tensors
        upstream_P = grads[0]
        if bool((upstream_P == upstream_P[0]).all()):
            return grad_h * upstream_P[0], None, grad_items * upstream_P[0]
        _, weighted_h, weighted_items = _cross_entropy_pass(h_PD, target_P, items_ND, upstream_P)
        return weighted_h, None, weighted_items


def _cross_entropy_pass(
    h_PD: Tensor, target_P: Tensor, items_ND: Tensor, upstream_P: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss [P] and, with `upstream_P`, the gradients [P, D] and [N, D]."""
    if is_native(h_PD, items_ND):
        return cross_entropy_pass(h_PD, target_P, items_ND, upstream_P)
    rows = chunk_rows(items_ND.shape[0])
    table_ND = items_ND.to(h_PD.dtype)
    losses = []
    grad_h = None if upstream_P is None else torch.empty_like(h_PD)
    grad_items = None if upstream_P is None else torch.zeros_like(items_ND)
    for start in range(0, h_PD.shape[0], rows):
        stop = min(start + rows, h_PD.shape[0])
        h_CD, target_C = h_PD[start:stop], target_P[start:stop, None]
        logits = h_CD @ table_ND.T
        probability = torch.softmax(logits, 1)
        # logsumexp = the largest logit - the log of its probability, which never underflows.
        log_sum = logits.amax(1).float() - probability.amax(1).float().log()
        losses.append(log_sum - logits.gather(1, target_C)[:, 0].float())
        if upstream_P is not None and grad_h is not None and grad_items is not None:
            weight = upstream_P[start:stop, None].to(probability.dtype)
            delta = probability.mul_(weight).scatter_add_(1, target_C, -weight)
            torch.mm(delta, table_ND, out=grad_h[start:stop])
            grad_items += delta.T @ h_CD
    return torch.cat(losses), grad_h, grad_items
