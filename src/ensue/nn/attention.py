"""Causal multi-head attention over packed sequences.

Source: Vaswani et al., NeurIPS 2017, eq. 1; scale 1/sqrt(head width). Rows are padded on the right, and a causal
mask never looks right, so no key mask is needed: padding changes no state.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.layout import Group, Layout
from ensue.nn.dropout import LEVELS, keep_mask, random_bytes, threshold

# Queries per strip: the smallest whose products still run at full speed (measured on CPU, width 50).
STRIP = 40


@lru_cache(maxsize=2)
def _mask_of_size(size: int) -> Tensor:
    return torch.full((1, size, size), float("-inf")).triu_(1)


def causal_mask(width: int) -> Tensor:
    """[1, T, T] float32: 0 where key j <= query i, -inf elsewhere; a view of a cached table, for the CPU path."""
    return _mask_of_size(1 << (width - 1).bit_length())[:, :width, :width]


def _strips(width: int) -> list[tuple[int, int]]:
    """Cut the queries into strips: strip (lo, hi) needs only the keys before hi, half of all cells in the end."""
    count = max(1, width // STRIP)
    edges = [width * i // count for i in range(count + 1)]
    return list(pairwise(edges))


class _CausalAttention(torch.autograd.Function):
    """softmax(mask + scale q k^T), dropout, times v, strip by strip, with its gradient by hand.

    Beside autograd's own it spares the masked part of the work and several passes over the weights.
    `naive_attention` is the obvious form and checks this one.
    """

    @staticmethod
    def forward(ctx: Any, q_XTD: Tensor, k_XTD: Tensor, v_XTD: Tensor, drop_below: int) -> Tensor:
        scale, mask = q_XTD.shape[-1] ** -0.5, causal_mask(q_XTD.shape[1])
        out = torch.empty(v_XTD.shape, dtype=v_XTD.dtype)
        saved = []
        for lo, hi in _strips(q_XTD.shape[1]):
            scores = torch.baddbmm(mask[:, lo:hi, :hi], q_XTD[:, lo:hi], k_XTD[:, :hi].transpose(1, 2), alpha=scale)
            attention = torch.softmax(scores, -1)
            saved.append(attention)
            kept = attention
            if drop_below:
                saved.append(random_bytes(attention.shape))
                kept = keep_mask(saved[-1], drop_below).mul_(attention)
            out[:, lo:hi] = kept.bmm(v_XTD[:, :hi])
        ctx.drop_below = drop_below
        ctx.save_for_backward(q_XTD, k_XTD, v_XTD, *saved)
        return out.mul_(LEVELS / (LEVELS - drop_below)) if drop_below else out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_XTD, k_XTD, v_XTD, *saved = ctx.saved_tensors
        scale = q_XTD.shape[-1] ** -0.5
        grad = grads[0]
        if ctx.drop_below:
            grad = grad * (LEVELS / (LEVELS - ctx.drop_below))
        grad_q = torch.empty(q_XTD.shape, dtype=q_XTD.dtype)
        # The last strip comes first: it alone reaches every key, so its products are the sums to add to.
        for lo, hi in reversed(_strips(q_XTD.shape[1])):
            bytes_XTT = saved.pop() if ctx.drop_below else None
            attention = kept = saved.pop()
            grad_attention = grad[:, lo:hi].bmm(v_XTD[:, :hi].transpose(1, 2))
            if bytes_XTT is not None:
                mask = keep_mask(bytes_XTT, ctx.drop_below)
                grad_attention.mul_(mask)
                kept = mask.mul_(attention)
            grad_scores = torch._softmax_backward_data(grad_attention, attention, -1, attention.dtype).mul_(scale)
            grad_q[:, lo:hi] = grad_scores.bmm(k_XTD[:, :hi])
            strip_k = grad_scores.transpose(1, 2).bmm(q_XTD[:, lo:hi])
            strip_v = kept.transpose(1, 2).bmm(grad[:, lo:hi])
            if hi == q_XTD.shape[1]:
                grad_k, grad_v = strip_k, strip_v
            else:
                grad_k[:, :hi] += strip_k
                grad_v[:, :hi] += strip_v
        return grad_q, grad_k, grad_v, None


def causal_attention(q_GHTD: Tensor, k_GHTD: Tensor, v_GHTD: Tensor, dropout_rate: float = 0.0) -> Tensor:
    """Causal attention with dropout on the attention weights.

    Args:
        q_GHTD: queries [G, H, T, d].
        k_GHTD: keys, the same shape.
        v_GHTD: values, the same shape.
        dropout_rate: rate in [0, 1); 0 outside training.

    Returns:
        [G, H, T, d].
    """
    shape = q_GHTD.shape
    if q_GHTD.device.type != "cpu" or q_GHTD.dtype not in (torch.float32,):
        return F.scaled_dot_product_attention(q_GHTD, k_GHTD, v_GHTD, dropout_p=dropout_rate, is_causal=True)
    q, k, v = (x.reshape(shape[0] * shape[1], *shape[2:]) for x in (q_GHTD, k_GHTD, v_GHTD))
    out: Tensor = _CausalAttention.apply(q, k, v, threshold(dropout_rate))  # type: ignore[no-untyped-call]
    return out.view(shape)


def naive_attention(q_GHTD: Tensor, k_GHTD: Tensor, v_GHTD: Tensor) -> Tensor:
    """The obvious form of `causal_attention` without dropout, in any precision; it checks the fast one."""
    scores = q_GHTD @ k_GHTD.transpose(-1, -2) * q_GHTD.shape[-1] ** -0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    weights: Tensor = scores.masked_fill(future, float("-inf")).softmax(-1)
    return weights @ v_GHTD


def newest_attention(q_GHD: Tensor, k_GHTD: Tensor, v_GHTD: Tensor, length_G: Tensor) -> Tensor:
    """Attention of each row's newest event alone, over that row's events: [G, H, d]."""
    scores = torch.einsum("ghd,ghtd->ght", q_GHD, k_GHTD) * q_GHD.shape[-1] ** -0.5
    beyond = torch.arange(k_GHTD.shape[2], device=length_G.device) >= length_G[:, None]
    weights = scores.float().masked_fill(beyond[:, None], float("-inf")).softmax(-1).to(v_GHTD.dtype)
    return torch.einsum("ght,ghtd->ghd", weights, v_GHTD)


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention with output projection: [P, D] -> [P, D]."""

    def __init__(self, hidden_units: int, num_heads: int, dropout_rate: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout_rate = dropout_rate
        self.qkv = nn.Linear(hidden_units, 3 * hidden_units)
        self.out = nn.Linear(hidden_units, hidden_units)

    def forward(self, x_PD: Tensor, layout: Layout, newest: bool = False, query_PD: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x_PD: the events, [P, D].
            layout: the batch's rectangles.
            newest: compute the output of each row's newest event alone.
            query_PD: what the queries are made of, where it is not `x_PD` (SASRec's own normalisation).

        Returns:
            [P, D]; with `newest`, [B, D].
        """
        qkv = self._project(x_PD, query_PD)
        rectangles = layout.pad(qkv)
        if newest:
            parts = [self._newest(x, group) for x, group in zip(rectangles, layout.groups, strict=True)]
            return self._output(layout.join_rows(parts))
        return self._output(layout.unpad([self._attend(x) for x in rectangles]))

    def _project(self, x_PD: Tensor, query_PD: Tensor | None) -> Tensor:
        if query_PD is None:
            projected: Tensor = self.qkv(x_PD)
            return projected
        width = x_PD.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        query = F.linear(query_PD, weight[:width], bias[:width])
        return torch.cat((query, F.linear(x_PD, weight[width:], bias[width:])), -1)

    def _heads(self, x_GTD: Tensor) -> Tensor:
        rows, width, _ = x_GTD.shape
        return x_GTD.view(rows, width, self.num_heads, -1).transpose(1, 2)

    def _attend(self, qkv_GTD: Tensor) -> Tensor:
        q, k, v = (self._heads(x) for x in qkv_GTD.chunk(3, -1))
        rate = self.dropout_rate if self.training else 0.0
        return causal_attention(q, k, v, rate).transpose(1, 2).flatten(2)

    def _newest(self, qkv_GTD: Tensor, group: Group) -> Tensor:
        q, k, v = (self._heads(x) for x in qkv_GTD.chunk(3, -1))
        rows = torch.arange(group.rows, device=q.device)
        return newest_attention(q[rows, :, group.length_G - 1], k, v, group.length_G).flatten(1)

    def _output(self, x_PD: Tensor) -> Tensor:
        projected: Tensor = self.out(x_PD)
        return projected
