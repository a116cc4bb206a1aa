"""Multi-head attention over packed sequences: causal or not, with or without relations, for all events or some.

Source: Vaswani et al., NeurIPS 2017, eq. 1; scale 1/sqrt(head width). Rows are padded on the right. With a causal mask
no event sees the padding after it; without one, a key mask hides the padding. Padding therefore affects no state.

Suffixes: `B` rows of the batch, `P` events of all rows, `Q` asked events, `G` rows of a group, `T` events of its
longest row, `H` heads, `X` rows and heads of a group (G * H), `A` queries of a rectangle or strip, `K` keys of a strip,
`R` buckets, `D` width, `d` width of a head, `E` queries, keys and values side by side, `S` number of these parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ensue.batches.layout import Group, Layout, pad_group, place, slices, take, unpad_group
from ensue.nn.ops.dropout import drop, dropped, keep_mask, random_bytes, threshold
from ensue.nn.ops.heads import heads_first, join_heads, split_heads
from ensue.nn.ops.relation_terms import Relations, Terms

# Queries per strip: the smallest number whose products still run at full speed (measured on CPU, width 50).
STRIP = 40
Strip = tuple[int, int, int]


# Sizes are powers of two, so all cached masks together are at most 4/3 of the size of the largest.
@cache
def _mask_of_size(size: int) -> Tensor:
    return torch.full((1, size, size), float("-inf")).triu_(1)


def causal_mask(width: int, like: Tensor) -> Tensor:
    """[1, T, T]: 0 where key j <= query i, -inf elsewhere, in the type of `like`; on a CPU in float32 a cached view."""
    return _mask_of_size(1 << (width - 1).bit_length())[:, :width, :width].to(like)


def strips(width: int, causal: bool = True) -> list[Strip]:
    """Cut the queries of a rectangle into strips (lo, hi, keys): queries lo..hi - 1 see at most the first `keys` keys.

    With a causal mask `keys` is `hi`, so nearly half of all cells are never computed. Without one there is one strip.
    """
    count = max(1, width // STRIP) if causal else 1
    return [(lo, hi, hi) for lo, hi in pairwise(width * i // count for i in range(count + 1))]


@dataclass(frozen=True, slots=True)
class _Plan:
    """The inputs for computing the attention of one group.

    Attributes:
        keys: the rectangle of the keys and values.
        queries: the rectangle of the queries; `keys` itself if all events are asked.
        places_GA: the place of each query in its row; None if all events are asked.
        events: the group's slice of the packed events.
        asked: its slice of the asked events.
        rows: its slice of the rows.
        strips: strips of the queries.
        buckets: r_ij of each strip; None without relations.
        causal: whether keys newer than a query are hidden from it.
        heads: H.
        drop_below: threshold of dropout on the weights.
    """

    keys: Group
    queries: Group
    places_GA: Tensor | None
    events: slice
    asked: slice
    rows: slice
    strips: list[Strip]
    buckets: Sequence[Tensor] | None
    causal: bool
    heads: int
    drop_below: int

    def bucket(self, strip: int) -> Tensor | None:
        """r_ij of a strip for every head, [X, A, K]; None without relations."""
        if self.buckets is None:
            return None
        bucket_GAK = self.buckets[strip]
        return bucket_GAK if self.heads == 1 else bucket_GAK.repeat_interleave(self.heads, 0)

    def is_hidden(self) -> Tensor:
        """Whether a key is hidden from a query, [G, A, T] or [G, 1, T]; not used for causal attention of all events."""
        t = torch.arange(self.keys.width, device=self.keys.length_G.device)
        if self.causal and self.places_GA is not None:
            return t > self.places_GA[:, :, None]
        return t >= self.keys.length_G[:, None, None]

    def mask(self, like: Tensor) -> Tensor:
        """The mask added to the scores, 0 or -inf: [X or 1, A or 1, T]."""
        if self.causal and self.places_GA is None:
            return causal_mask(self.keys.width, like)
        hidden = self.is_hidden()
        return like.new_zeros(hidden.shape).masked_fill_(hidden, float("-inf")).repeat_interleave(self.heads, 0)


def _plans(layout: Layout, causal: bool, relations: Relations | None, heads: int, drop_below: int) -> list[_Plan]:
    asked = layout.asked
    groups = layout.groups if asked is None else asked.groups
    parts = slices(layout.sizes if asked is None else asked.sizes)
    plans = []
    for number, (keys, events, rows) in enumerate(layout.parts()):
        queries = groups[number]
        cuts = strips(keys.width, causal) if asked is None else [(0, queries.width, keys.width)]
        buckets = None
        if relations is not None:
            buckets = (relations.buckets if asked is None else relations.asked_buckets)[number]
        places = None if asked is None else asked.places[number]
        plans.append(
            _Plan(keys, queries, places, events, parts[number], rows, cuts, buckets, causal, heads, drop_below)
        )
    return plans


class _Attention(torch.autograd.Function):
    """dropout(softmax(mask + scale q k^T)) v, by rectangles and strips, with a hand-written gradient.

    Compared with autograd's gradient, it saves the masked part of the work, several passes over the weights, and most
    copies between packed events and rectangles. `naive_attention` is the plain form.
    """

    @staticmethod
    def forward(ctx: Any, plans: list[_Plan], packed_PE: Tensor, q_QD: Tensor | None, *tables: Tensor | None) -> Tensor:
        # Saved for each group: the rectangles of the packed values and of the queries (None if the packed values
        # include them); then for each strip, the weights and the random bytes (None without dropout).
        saved: list[Tensor | None] = []
        out_QD = packed_PE.new_empty((len(packed_PE), packed_PE.shape[1] // 3) if q_QD is None else q_QD.shape)
        for plan in plans:
            packed_SXTd = split_heads(place(packed_PE[plan.events], plan.keys), 3 if q_QD is None else 2, plan.heads)
            q_XAd = None if q_QD is None else split_heads(place(q_QD[plan.asked], plan.queries), 1, plan.heads)[0]
            saved += packed_SXTd, q_XAd
            terms = Terms.of_rows(tables, plan.rows, plan.heads)
            out_XAd = _attend(*_qkv(packed_SXTd, q_XAd), plan, terms, saved)
            take(join_heads(out_XAd[None], plan.heads), plan.queries, out_QD[plan.asked])
        ctx.plans, ctx.count, ctx.shapes = plans, len(saved), (packed_PE.shape, None if q_QD is None else q_QD.shape)
        ctx.save_for_backward(*saved, *tables)
        return out_QD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved, tables = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        packed_shape, q_shape = ctx.shapes
        grad_PE = grads[0].new_empty(packed_shape)
        grad_QD = None if q_shape is None else grads[0].new_empty(q_shape)
        grad_tables = [None if table is None else torch.zeros_like(table) for table in tables]
        for plan in reversed(ctx.plans):
            count = 2 + 2 * len(plan.strips)
            (packed_SXTd, q_XAd, *weights), saved = saved[-count:], saved[:-count]
            terms = Terms.of_rows(tables, plan.rows, plan.heads)
            grad_terms = terms.zeros()
            grad_XAd = split_heads(place(grads[0][plan.asked], plan.queries), 1, plan.heads)[0]
            grad_GTE, grad_kv = _empty_heads(plan.keys, len(packed_SXTd), plan.heads, grad_XAd)
            grad_q = grad_kv[0]
            if grad_QD is not None:
                grad_GAD, (grad_q,) = _empty_heads(plan.queries, 1, plan.heads, grad_XAd)
            _attend_backward(
                grad_XAd, _qkv(packed_SXTd, q_XAd), (grad_q, *grad_kv[-2:]), plan, terms, grad_terms, weights
            )
            take(grad_GTE, plan.keys, grad_PE[plan.events])
            if grad_QD is not None:
                take(grad_GAD, plan.queries, grad_QD[plan.asked])
            grad_terms.add_to(grad_tables, plan.rows, plan.heads)
        return None, grad_PE, grad_QD, *grad_tables


def _qkv(packed: Tensor, q: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values; the queries are part of the packed values, or given separately."""
    k, v = packed[-2:]
    return packed[0] if q is None else q, k, v


def _empty_heads(group: Group, parts: int, heads: int, like_XAd: Tensor) -> tuple[Tensor, Tensor]:
    """An empty tensor [G, T, parts H d], and a view of it as [parts, G, H, T, d]."""
    empty = like_XAd.new_empty(group.rows, group.width, parts * heads * like_XAd.shape[-1])
    return empty, heads_first(empty, parts, heads)


def _attend(q: Tensor, k: Tensor, v: Tensor, plan: _Plan, terms: Terms, saved: list[Tensor | None]) -> Tensor:
    """Attention of one rectangle, [X, A, d]; appends each strip's weights and bytes to `saved`."""
    scale, mask = q.shape[-1] ** -0.5, plan.mask(q)
    outs = []
    for number, (lo, hi, keys) in enumerate(plan.strips):
        strip_mask = mask[:, lo:hi, :keys] if mask.shape[1] > 1 else mask
        scores = torch.baddbmm(strip_mask, q[:, lo:hi], k[:, :keys].transpose(1, 2), alpha=scale)
        if (bucket := plan.bucket(number)) is not None:
            terms.add_to_scores(scores, q[:, lo:hi], bucket, scale)
        kept = attention = torch.softmax(scores, -1)
        drawn = None
        if plan.drop_below:
            drawn = random_bytes(attention.shape, attention.device)
            kept = dropped(attention, drawn, plan.drop_below)
        saved += attention, drawn
        outs.append(kept.bmm(v[:, :keys]))
        if bucket is not None:
            terms.add_to_output(outs[-1], kept, bucket)
    return torch.cat(outs, 1) if len(outs) > 1 else outs[0]


def _attend_backward(
    grad: Tensor,
    qkv: tuple[Tensor, Tensor, Tensor],
    grads: tuple[Tensor, Tensor, Tensor],
    plan: _Plan,
    terms: Terms,
    grad_terms: Terms,
    weights: list[Tensor | None],
) -> None:
    """Write the gradients of one rectangle.

    Args:
        grad: the gradient of the output, [X, A, d].
        qkv: queries, keys and values.
        grads: where their gradients are written, [G, H, A or T, d].
        plan: the group's plan.
        terms: its relation terms.
        grad_terms: where the gradients of the terms are added.
        weights: the tensors that `_attend` appended to `saved`.
    """
    (q, k, v), (grad_q, grad_k, grad_v) = qkv, grads
    rows, size, scale = len(q) // plan.heads, q.shape[-1], q.shape[-1] ** -0.5
    # The last strip is processed first: only it covers all keys, so its products initialise the sums.
    for number in reversed(range(len(plan.strips))):
        (lo, hi, keys), bucket = plan.strips[number], plan.bucket(number)
        attention, drawn = weights[2 * number : 2 * number + 2]
        assert attention is not None
        kept, q_strip, grad_strip = attention, q[:, lo:hi] * scale, grad[:, lo:hi]
        grad_attention = grad_strip.bmm(v[:, :keys].transpose(1, 2))
        if bucket is not None:
            terms.add_to_weights_gradient(grad_attention, grad_strip, bucket)
        if drawn is not None:
            keep = keep_mask(drawn, plan.drop_below, attention.dtype)
            drop(grad_attention, keep, plan.drop_below, out=grad_attention)
            kept = drop(attention, keep, plan.drop_below, out=keep)
        grad_scores = torch._softmax_backward_data(grad_attention, attention, -1, attention.dtype)
        strip_q = grad_scores.bmm(k[:, :keys])
        if bucket is not None:
            grad_terms.add_values_gradient(kept, grad_strip, bucket)
            terms.add_to_queries_gradient(strip_q, grad_terms.add_scores_gradient(grad_scores, q_strip, bucket))
        grad_q[:, :, lo:hi] = strip_q.mul_(scale).view(rows, plan.heads, hi - lo, size)
        strip_k = grad_scores.transpose(1, 2).bmm(q_strip).view(rows, plan.heads, keys, size)
        strip_v = kept.transpose(1, 2).bmm(grad_strip).view(rows, plan.heads, keys, size)
        if number == len(plan.strips) - 1:
            grad_k.copy_(strip_k)
            grad_v.copy_(strip_v)
        else:
            grad_k[:, :, :keys] += strip_k
            grad_v[:, :, :keys] += strip_v


def attention(
    packed_PE: Tensor,
    layout: Layout,
    num_heads: int,
    dropout_rate: float = 0.0,
    causal: bool = True,
    relations: Relations | None = None,
    q_QD: Tensor | None = None,
) -> Tensor:
    """Attention within each row of a packed batch, with dropout on the attention weights.

    Args:
        packed_PE: queries, keys and values side by side, [P, 3 D]; with `q_QD`, only keys and values, [P, 2 D].
        layout: the batch's rectangles and asked events.
        num_heads: heads, H; each has D / H columns of the queries, keys and values.
        dropout_rate: rate in [0, 1); 0 outside training.
        causal: whether a query sees only the events up to its own, or all events of its row.
        relations: terms for pairs of events, computed for the same `causal` and for this layout, or for a layout whose
            `everything` this is.
        q_QD: the queries of the asked events, in the order of `layout.asked_Q`; required if some events are not asked.

    Returns:
        [Q, D], for the asked events.
    """
    plans = _plans(layout, causal, relations, num_heads, threshold(dropout_rate))
    dtype, device = packed_PE.dtype, packed_PE.device.type
    tables: tuple[Tensor | None, ...] = (None, None, None)
    if relations is not None:
        tables = relations.keys_BRD, relations.values_BRD, relations.bias_HR
        if relations.position_PE is not None:
            position_PE = relations.position_PE
            packed_PE = packed_PE + (position_PE if q_QD is None else position_PE[:, -packed_PE.shape[1] :])
    packed_PE = _ordered(packed_PE, layout.order_P)
    asked = layout.asked
    order_Q, inverse_Q = (layout.order_P, layout.inverse_P) if asked is None else (asked.order_Q, asked.inverse_Q)
    if q_QD is not None:
        q_QD = _ordered(q_QD, order_Q)
    if relations is None and device != "cpu":
        out_QD = _fused(packed_PE, q_QD, plans, dropout_rate)
    else:
        # Under mixed precision attention stays in float32: on a CPU the conversions cost less than bfloat16 products,
        # and the sums by bucket need it.
        wide = torch.promote_types(dtype, torch.float32)
        values = (None if x is None else x.to(wide) for x in (packed_PE, q_QD, *tables))
        with torch.autocast(device, enabled=False):
            out_QD = _Attention.apply(plans, *values).to(dtype)  # type: ignore[no-untyped-call]
    return _ordered(out_QD, inverse_Q)


def _ordered(x_PD: Tensor, order_P: Tensor | None) -> Tensor:
    return x_PD if order_P is None else x_PD.index_select(0, order_P)


def _fused(packed_PE: Tensor, q_QD: Tensor | None, plans: list[_Plan], dropout_rate: float) -> Tensor:
    """Attention with torch's own kernels, without relations."""
    outs = []
    for plan in plans:
        packed_SGHTd = heads_first(pad_group(packed_PE[plan.events], plan.keys), 3 if q_QD is None else 2, plan.heads)
        q_GHAd = None if q_QD is None else heads_first(pad_group(q_QD[plan.asked], plan.queries), 1, plan.heads)[0]
        q, k, v = _qkv(packed_SGHTd, q_GHAd)
        whole = plan.causal and plan.places_GA is None
        mask = None if whole else ~plan.is_hidden()[:, None]
        out = F.scaled_dot_product_attention(q, k, v, mask, dropout_rate, is_causal=whole)
        outs.append(unpad_group(out.transpose(1, 2).flatten(2), plan.queries))
    return torch.cat(outs) if len(outs) > 1 else outs[0]


def naive_attention(
    q_HTd: Tensor,
    k_HTd: Tensor,
    v_HTd: Tensor,
    causal: bool = True,
    terms: Terms | None = None,
    bucket_TT: Tensor | None = None,
    keep_HTT: Tensor | None = None,
) -> Tensor:
    """The plain O(T T D) form of `attention` for one row, in any precision and with autograd's gradient.

    Args:
        q_HTd: queries of all events; without relations, there may be further leading dimensions.
        k_HTd: keys; with relations, including the position vectors.
        v_HTd: values, likewise.
        causal: whether a query sees only the events up to its own.
        terms: tables of relations, keys and values [H, R, d], bias [H, R].
        bucket_TT: r_ij, with `terms`.
        keep_HTT: dropout's factors of the weights, including the scale.
    """
    scores = q_HTd @ k_HTd.transpose(-1, -2)
    if terms is not None and terms.keys is not None:
        scores = scores + (q_HTd[:, :, None] * terms.keys[:, bucket_TT]).sum(-1)
    scores = scores * q_HTd.shape[-1] ** -0.5
    if terms is not None and terms.bias is not None:
        scores = scores + terms.bias[:, bucket_TT]
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
    weights = scores.softmax(-1)
    if keep_HTT is not None:
        weights = weights * keep_HTT
    out: Tensor = weights @ v_HTd
    if terms is not None and terms.values is not None:
        out = out + (weights[..., None] * terms.values[:, bucket_TT]).sum(2)
    return out
