"""Sinkhorn's projection onto the doubly stochastic matrices, for many small matrices at once.

Source: Sinkhorn & Knopp 1967; as mHC uses it, DeepSeek-AI 2025 (arXiv 2512.24880), section 4.2.

Suffixes: `S` rows and `T` columns of a matrix (equally many), `P` matrices, `X` any leading dimensions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Entries below exp(-80) times a matrix's largest entry are raised to that value, so that all sums are normal float32.
FLOOR = -80.0
# Iterations have converged if they leave at most this share of a disturbance, by the bound of `_left_after`, and every
# column sum is within this of 1.
CONVERGED = 3e-3
# Fewer iterations than this never count as converged, since the bound only holds near the limit.
FEW = 10


class _Sinkhorn(torch.autograd.Function):
    """H = diag(u) K diag(v), K = exp(logits); saves K and H, not the iterations.

    For matrices whose iterations have converged, the gradient is that of the limit (`_limit_gradient`), which takes a
    tenth of the work. For the others, and with few iterations, the iterations are repeated and differentiated
    (`_unrolled_gradient`).
    """

    @staticmethod
    def forward(ctx: Any, logits_SSP: Tensor, iterations: int) -> Tensor:
        kernel = (logits_SSP - logits_SSP.amax((0, 1))).clamp_(min=FLOOR).exp_()
        u, v = deque(_iterate(kernel, iterations), maxlen=1)[0]
        matrix = (kernel * u[:, None]).mul_(v)
        ctx.iterations = iterations
        ctx.save_for_backward(kernel, matrix)
        return matrix

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        kernel, matrix = ctx.saved_tensors
        if ctx.iterations < FEW:
            return _unrolled_gradient(kernel, matrix, grads[0], ctx.iterations), None
        grad = _limit_gradient(matrix, grads[0])
        far_P = _left_after(matrix, ctx.iterations).maximum((matrix.sum(0) - 1).abs().amax(0))
        apart = far_P.gt(CONVERGED).nonzero()[:, 0]
        if len(apart):
            parts = [part.index_select(2, apart) for part in (kernel, matrix, grads[0])]
            grad.index_copy_(2, apart, _unrolled_gradient(parts[0], parts[1], parts[2], ctx.iterations))
        return grad, None


def _left_after(matrix: Tensor, iterations: int) -> Tensor:
    """An upper bound of the share of a disturbance of the scales that remains after the iterations: [P].

    Near the limit, an iteration acts on the scales as H and its transpose do. Each of them shrinks the non-constant
    part at least by the factor 1 - (the sum of its columns' smallest entries) (Doeblin's bound).
    """
    rate_P = (1 - matrix.amin(0).sum(0)) * (1 - matrix.amin(1).sum(0))
    return rate_P.clamp_(min=0).pow_(iterations)


def _limit_gradient(matrix: Tensor, grad: Tensor) -> Tensor:
    """The logits' gradient by the implicit function theorem.

    A change of the logits by L changes log H by L + x 1^T + 1 y^T, where x and y keep the row sums, 1, and the column
    sums, c, unchanged. The gradient g = G * H is therefore projected to g - H * (x 1^T + 1 y^T), where
    x = g 1 - H y and (diag(c) - H^T H) y = g^T 1 - H^T g 1.
    """
    grad = grad * matrix
    rows_SP = grad.sum(1)
    system = torch.stack([_weighted_rows(matrix, column_SP) for column_SP in matrix.unbind(1)]).neg_()
    system.diagonal(dim1=0, dim2=1).add_(matrix.sum(0).T)
    y_SP = _solve(system, grad.sum(0) - _weighted_rows(matrix, rows_SP))
    x_SP = rows_SP - _weighted_rows(matrix.transpose(0, 1), y_SP)
    return grad.addcmul_(matrix, x_SP[:, None] + y_SP, value=-1)


def _unrolled_gradient(kernel: Tensor, matrix: Tensor, grad: Tensor, iterations: int) -> Tensor:
    """The logits' gradient through the iterations, which are repeated.

    It works on log u and log v: their gradients stay bounded even where those of u and v do not; u_s v_t is at most
    1 / K_st.
    """
    scales = list(_iterate(kernel, iterations))
    before = [torch.ones_like(kernel[:, 0]), *(u for u, _ in scales[:-1])]
    grad = grad * matrix
    grad_log_u, grad_log_v = grad.sum(1), grad.sum(0)
    through = torch.zeros_like(kernel)
    for u_before, (u, v) in zip(reversed(before), reversed(scales), strict=True):
        a = grad_log_u.mul_(u)
        b = (grad_log_v - _weighted_rows(kernel, a).mul_(v)).mul_(v)
        through.addcmul_(a[:, None], v).addcmul_(u_before[:, None], b)
        grad_log_u = _weighted_rows(kernel.transpose(0, 1), b).mul_(u_before).neg_()
        grad_log_v = torch.zeros_like(b)
    return grad.addcmul_(kernel, through, value=-1)


def _iterate(kernel: Tensor, iterations: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The scales of rows and columns, (u, v), after each iteration: columns first, rows last."""
    u, transposed = torch.ones_like(kernel[:, 0]), kernel.transpose(0, 1)
    for _ in range(iterations):
        v = _weighted_rows(kernel, u).reciprocal_()
        u = _weighted_rows(transposed, v).reciprocal_()
        yield u, v


def _weighted_rows(matrix_STP: Tensor, weight_SP: Tensor) -> Tensor:
    """sum_s weight_s matrix_s: [T, P], row by row, which is twice as fast as a product and a sum."""
    total = matrix_STP[0] * weight_SP[0]
    for row_TP, weight_P in zip(matrix_STP[1:], weight_SP[1:], strict=True):
        total.addcmul_(row_TP, weight_P)
    return total


def _solve(system_SSP: Tensor, right_SP: Tensor) -> Tensor:
    """Solve a Laplacian system (zero row sums) by in-place elimination, with the last entry of the solution set to 0.

    Streams that do not mix cause zero pivots. Their part of the solution has no effect; the ridge keeps it small.
    """
    ridge = 8 * torch.finfo(system_SSP.dtype).eps
    last = system_SSP.shape[0] - 1
    for k in range(last):
        system_SSP[k, k] += ridge
        factor = system_SSP[k + 1 : last, k] / system_SSP[k, k]
        system_SSP[k + 1 : last, k + 1 : last].addcmul_(factor[:, None], system_SSP[k, k + 1 : last], value=-1)
        right_SP[k + 1 : last].addcmul_(factor, right_SP[k], value=-1)
    solution = torch.zeros_like(right_SP)
    for k in range(last - 1, -1, -1):
        known = (system_SSP[k, k + 1 : last] * solution[k + 1 : last]).sum(0)
        solution[k] = (right_SP[k] - known) / system_SSP[k, k]
    return solution


def sinkhorn(logits_SSP: Tensor, iterations: int = 20) -> Tensor:
    """exp(logits), with columns and rows normalised alternately `iterations` times, the rows (first dimension) last.

    Args:
        logits_SSP: [S, S, P]; entry (s, t) is the weight of input stream t in output stream s. The result is finite for
            logits up to +-50 and beyond.
        iterations: number of iterations.

    Returns:
        [S, S, P]: rows sum to 1 within rounding, columns up to the convergence of the iterations.
    """
    out: Tensor = _Sinkhorn.apply(logits_SSP, iterations)  # type: ignore[no-untyped-call]
    return out


def naive_sinkhorn(logits_XSS: Tensor, iterations: int = 20) -> Tensor:
    """The plain form of `sinkhorn`, on [..., S, S] and with autograd's gradient."""
    matrix = (logits_XSS - logits_XSS.amax((-2, -1), keepdim=True)).exp()
    for _ in range(iterations):
        matrix = matrix / matrix.sum(-2, keepdim=True)
        matrix = matrix / matrix.sum(-1, keepdim=True)
    return matrix
