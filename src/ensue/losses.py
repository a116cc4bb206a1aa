"""One function per loss, never reduced: the training loop takes the mean once, over all positions.

`Loss = (pos_P, neg_PK) -> loss_P` compares the target's logit with those of K negatives. The full softmax,
`(h_PD, target_P, items_ND) -> loss_P`, sees the catalogue in chunks. All are computed in float32, but for the full
softmax under autocast, and are finite for logits of +-1e4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ensue.registry import Registry

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: Registry[Loss] = Registry("loss")

# Cells of a chunk of logits: 1 million float32 are 4 MB and stay in the cache (measured: 0.9 of the time of 4 million).
CHUNK_CELLS = 1_000_000
# But never fewer rows than this, below which the products are slow: 128 MB for a million items.
CHUNK_ROWS = 32


@LOSSES.register("bce")
def bce(pos_P: Tensor, neg_PK: Tensor) -> Tensor:
    """Binary cross-entropy: -log s(pos) - sum_k log(1 - s(neg_k)). Source: SASRec (2018), eq. 7.

    Args:
        pos_P: logits of the targets, [P].
        neg_PK: logits of the negatives, [P, K].

    Returns:
        [P].
    """
    return F.softplus(-pos_P.float()) + F.softplus(neg_PK.float()).sum(-1)


def gbce(beta: float) -> Loss:
    """Generalised binary cross-entropy, -(log s(pos)^beta + sum_k log(1 - s(neg_k))) / (K + 1).

    Source: gSASRec (Petrov & Macdonald, RecSys 2023), eq. 6. `beta` comes from `gbce_beta`.
    """

    def loss(pos_P: Tensor, neg_PK: Tensor) -> Tensor:
        total = beta * F.softplus(-pos_P.float()) + F.softplus(neg_PK.float()).sum(-1)
        return total / (neg_PK.shape[-1] + 1)

    return loss


def gbce_beta(num_negatives: int, num_items: int, t: float) -> float:
    """beta = a (t (1 - 1/a) + 1/a), with a = K / (N - 1) the sampling rate, at most 1 (gSASRec, eq. 10).

    t = 0 gives 1, the plain BCE; t = 1 gives a, which calibrates the scores to the full softmax. With as many draws as
    items, or more, there is nothing to calibrate: beta is 1.
    """
    rate = min(1.0, num_negatives / max(1, num_items - 1))
    return rate * (t * (1 - 1 / rate) + 1 / rate)


@LOSSES.register("sampled-softmax")
def sampled_softmax(pos_P: Tensor, neg_PK: Tensor) -> Tensor:
    """Cross-entropy among the target and its negatives: logsumexp(pos, neg_1..neg_K) - pos.

    With logits corrected by their log sampling rate (`logq`) it estimates the full softmax. Source: Bengio &
    Senecal, 2008; Yi et al., RecSys 2019.
    """
    pos = pos_P.float()
    return torch.logaddexp(pos, neg_PK.float().logsumexp(-1)) - pos


@LOSSES.register("bpr")
def bpr(pos_P: Tensor, neg_PK: Tensor) -> Tensor:
    """Pairwise ranking: -mean_k log s(pos - neg_k). Source: Rendle et al., UAI 2009."""
    return F.softplus(neg_PK.float() - pos_P.float()[:, None]).mean(-1)


def bpr_max(regularisation: float = 1.0) -> Loss:
    """-log sum_k w_k s(pos - neg_k) + r sum_k w_k neg_k^2, with w the softmax over the negatives.

    Source: Hidasi & Karatzoglou, CIKM 2018, eq. 10 and 12. The first term is a logsumexp of
    log w_k + log s(pos - neg_k), so it stays finite.
    """

    def loss(pos_P: Tensor, neg_PK: Tensor) -> Tensor:
        neg = neg_PK.float()
        log_w = neg.log_softmax(-1)
        ranking = -(log_w + F.logsigmoid(pos_P.float()[:, None] - neg)).logsumexp(-1)
        return ranking + regularisation * (log_w.exp() * neg.square()).sum(-1)

    return loss


LOSSES.register("bpr-max")(bpr_max())


@LOSSES.register("top1")
def top1(pos_P: Tensor, neg_PK: Tensor) -> Tensor:
    """mean_k s(neg_k - pos) + s(neg_k^2). Source: Hidasi et al., ICLR 2016, section 3.1.3."""
    neg = neg_PK.float()
    return ((neg - pos_P.float()[:, None]).sigmoid() + neg.square().sigmoid()).mean(-1)


@LOSSES.register("top1-max")
def top1_max(pos_P: Tensor, neg_PK: Tensor) -> Tensor:
    """sum_k w_k (s(neg_k - pos) + s(neg_k^2)), w the softmax over the negatives (CIKM 2018, eq. 8)."""
    neg = neg_PK.float()
    return (neg.softmax(-1) * ((neg - pos_P.float()[:, None]).sigmoid() + neg.square().sigmoid())).sum(-1)


def cross_entropy(h_PD: Tensor, target_P: Tensor, items_ND: Tensor) -> Tensor:
    """Full softmax cross-entropy, logsumexp_j(h . e_j) - h . e_target, in chunks of positions.

    The logits of a chunk live only while it is worked on. When gradients are needed they are computed in the same
    pass, for an upstream gradient of one; a mean over positions only scales them. An upstream gradient that
    differs between positions is right too, at the price of a second pass.

    Args:
        h_PD: states, [P, D].
        target_P: int64, rows of `items_ND` (item number - 1), [P].
        items_ND: item vectors, [N, D].

    Returns:
        [P], float32.
    """
    return apply_under_autocast(_CrossEntropy, h_PD, target_P, items_ND)


def apply_under_autocast(function: type[torch.autograd.Function], h_PD: Tensor, *others: Tensor) -> Tensor:
    """Apply a function that makes its own products: in the type of the states, which is autocast's if that is on.

    The products of its gradient are made outside autocast's sight, so it does not see those of the function either.
    """
    device = h_PD.device.type
    if torch.is_autocast_enabled(device):
        h_PD = h_PD.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        out: Tensor = function.apply(h_PD, *others)  # type: ignore[no-untyped-call]
    return out


def chunk_rows(num_items: int) -> int:
    """Rows of a chunk of logits over a catalogue."""
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
    """Loss [P], and with `upstream_P` the gradients [P, D] and [N, D]."""
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
        # The largest logit and its probability, which never underflows, give the logarithm of the softmax's sum.
        log_sum = logits.amax(1).float() - probability.amax(1).float().log()
        losses.append(log_sum - logits.gather(1, target_C)[:, 0].float())
        if upstream_P is not None and grad_h is not None and grad_items is not None:
            weight = upstream_P[start:stop, None].to(probability.dtype)
            delta = probability.mul_(weight).scatter_add_(1, target_C, -weight)
            torch.mm(delta, table_ND, out=grad_h[start:stop])
            grad_items += delta.T @ h_CD
    return torch.cat(losses), grad_h, grad_items
