"""Causal multi-head attention over packed sequences.

Source: Vaswani et al., NeurIPS 2017, eq. 1; scale 1/sqrt(head width). Rows are padded on the right, and a causal
mask never looks right, so no key mask is needed: padding changes no state.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ensue.batches.layout import Layout, place, take
from ensue.nn.ops.dropout import drop, dropped, keep_mask, random_bytes, threshold

# Queries per strip: the smallest whose products still run at full speed (measured on CPU, width 50).
STRIP = 40


# Sizes are powers of two, so all of them together hold no more than 4/3 of the largest.
@cache
def _mask_of_size(size: int) -> Tensor:
    return torch.full((1, size, size), float("-inf")).triu_(1)


def causal_mask(width: int, like: Tensor) -> Tensor:
    """[1, T, T]: 0 where key j <= query i, -inf elsewhere, of a tensor's type; on a CPU in float32 a cached view."""
    return _mask_of_size(1 << (width - 1).bit_length())[:, :width, :width].to(like)


def strips(width: int) -> list[tuple[int, int]]:
    """Cut the queries into strips: strip (lo, hi) needs only the keys before hi, half of all cells in the end."""
    count = max(1, width // STRIP)
    edges = [width * i // count for i in range(count + 1)]
    return list(pairwise(edges))


class _CausalAttention(torch.autograd.Function):
    """softmax(mask + scale q k^T), dropout, times v, rectangle by rectangle and strip by strip, gradient by hand.

    Beside autograd's own it spares the masked part of the work, several passes over the weights, and most copies
    between packed events and rectangles. `naive_attention` is the obvious form and checks it.
    """

    @staticmethod
    def forward(ctx: Any, qkv_PE: Tensor, layout: Layout, heads: int, drop_below: int) -> Tensor:
        out_PD = qkv_PE.new_empty(qkv_PE.shape[0], qkv_PE.shape[1] // 3)
        saved: list[Tensor] = []
        for group, events, _ in layout.parts():
            qkv_3XTD = split_heads(place(qkv_PE[events], group), 3, heads)
            saved.append(qkv_3XTD)
            out_XTD = _attend(qkv_3XTD, drop_below, saved)
            take(join_heads(out_XTD[None], heads), group, out_PD[events])
        ctx.layout, ctx.heads, ctx.drop_below = layout, heads, drop_below
        ctx.save_for_backward(*saved)
        return out_PD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        saved, heads = list(ctx.saved_tensors), ctx.heads
        grad_qkv = grads[0].new_empty(grads[0].shape[0], 3 * grads[0].shape[1])
        for group, events, _ in reversed(ctx.layout.parts()):
            grad_XTD = split_heads(place(grads[0][events], group), 1, heads)[0]
            take(_attend_backward(grad_XTD, ctx.drop_below, heads, saved), group, grad_qkv[events])
        return grad_qkv, None, None, None


def split_heads(x_GTE: Tensor, parts: int, heads: int) -> Tensor:
    """[G, T, parts * H * d] -> [parts, G * H, T, d]; a view when there is one head."""
    rows, width, _ = x_GTE.shape
    split = x_GTE.view(rows, width, parts, heads, -1).permute(2, 0, 3, 1, 4)
    return split.reshape(parts, rows * heads, width, -1)


def join_heads(x_SXTD: Tensor, heads: int) -> Tensor:
    """[parts, G * H, T, d] -> [G, T, parts * H * d], the inverse of `split_heads`."""
    parts, _, width, size = x_SXTD.shape
    joined = x_SXTD.view(parts, -1, heads, width, size).permute(1, 3, 0, 2, 4)
    return joined.reshape(-1, width, parts * heads * size)


def _attend(qkv_3XTD: Tensor, drop_below: int, saved: list[Tensor]) -> Tensor:
    """Attention of one rectangle, [X, T, d]; appends each strip's weights, and bytes if any, to `saved`."""
    q, k, v = qkv_3XTD
    scale, mask = q.shape[-1] ** -0.5, causal_mask(q.shape[1], q)
    outs = []
    for lo, hi in strips(q.shape[1]):
        scores = torch.baddbmm(mask[:, lo:hi, :hi], q[:, lo:hi], k[:, :hi].transpose(1, 2), alpha=scale)
        kept = attention = torch.softmax(scores, -1)
        saved.append(attention)
        if drop_below:
            saved.append(random_bytes(attention.shape, attention.device))
            kept = dropped(attention, saved[-1], drop_below)
        outs.append(kept.bmm(v[:, :hi]))
    return torch.cat(outs, 1) if len(outs) > 1 else outs[0]


def _attend_backward(grad: Tensor, drop_below: int, heads: int, saved: list[Tensor]) -> Tensor:
    """Gradients of one rectangle's q, k and v, beside each other as the projection wants them, [G, T, 3 H d].

    Takes what `_attend` appended off the end of `saved`.
    """
    cuts = strips(grad.shape[1])
    first = len(saved) - len(cuts) * (2 if drop_below else 1) - 1
    q, k, v = saved[first]
    rows, width, size = grad.shape
    scale = size**-0.5
    grad_GTE = grad.new_empty(rows // heads, width, 3 * heads * size)
    grad_q, grad_k, grad_v = grad_GTE.view(rows // heads, width, 3, heads, size).permute(2, 0, 3, 1, 4)
    # The last strip comes first: it alone reaches every key, so its products are the sums to add to.
    for lo, hi in reversed(cuts):
        bytes_XTT = saved.pop() if drop_below else None
        kept = attention = saved.pop()
        grad_attention = grad[:, lo:hi].bmm(v[:, :hi].transpose(1, 2))
        if bytes_XTT is not None:
            keep = keep_mask(bytes_XTT, drop_below)
            drop(grad_attention, keep, drop_below, out=grad_attention)
            kept = drop(attention, keep, drop_below, out=keep)
        grad_scores = torch._softmax_backward_data(grad_attention, attention, -1, attention.dtype).mul_(scale)
        grad_q[:, :, lo:hi] = grad_scores.bmm(k[:, :hi]).view(-1, heads, hi - lo, size)
        strip_k = grad_scores.transpose(1, 2).bmm(q[:, lo:hi]).view(-1, heads, hi, size)
        strip_v = kept.transpose(1, 2).bmm(grad[:, lo:hi]).view(-1, heads, hi, size)
        if hi == width:
            grad_k.copy_(strip_k)
            grad_v.copy_(strip_v)
        else:
            grad_k[:, :, :hi] += strip_k
            grad_v[:, :, :hi] += strip_v
    saved.pop()
    return grad_GTE


def causal_attention(qkv_PE: Tensor, layout: Layout, num_heads: int, dropout_rate: float = 0.0) -> Tensor:
    """Causal attention within each row of a packed batch, with dropout on the attention weights.

    Args:
        qkv_PE: queries, keys and values beside each other, [P, 3 D].
        layout: the batch's rectangles.
        num_heads: heads, H; each takes D / H columns of queries, keys and values.
        dropout_rate: rate in [0, 1); 0 outside training.

    Returns:
        [P, D].
    """
    if qkv_PE.device.type == "cpu" and qkv_PE.dtype != torch.float64:
        # Mixed precision leaves attention itself in float32: the conversions cost less than a CPU's own bfloat16 form.
        x_PE = qkv_PE.float()
        ordered = x_PE if layout.order_P is None else x_PE.index_select(0, layout.order_P)
        with torch.autocast("cpu", enabled=False):
            out_PD: Tensor = _CausalAttention.apply(  # type: ignore[no-untyped-call]
                ordered, layout, num_heads, threshold(dropout_rate)
            ).to(qkv_PE.dtype)
        return out_PD if layout.inverse_P is None else out_PD.index_select(0, layout.inverse_P)
    outs = []
    for x_GTE in layout.pad(qkv_PE):
        rows, width, _ = x_GTE.shape
        q, k, v = x_GTE.view(rows, width, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_rate, is_causal=True)
        outs.append(out.transpose(1, 2).flatten(2))
    return layout.unpad(outs)


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
