"""Causal attention that also knows the interval between every two events, without a [T, T, D] tensor.

Source: TiSASRec, Li, Wang & McAuley, WSDM 2020, eq. 5 to 8:

    e_ij = q_i . (k_j + R^K[r_ij]) / sqrt(d)        z_i = sum_j softmax(e)_ij (v_j + R^V[r_ij])

r_ij is one of a few hundred buckets, so q_i . R^K[r_ij] is a gather from the small product q R^K^T, and the value term
is a scatter-add of the weights into buckets, then a product with R^V: O(T T + T R) memory per head.
`naive_time_attention` is the obvious form and checks this one. The position vectors of eq. 5 belong to single events,
so they come with k and v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ensue.batches.layout import Group, Layout, place, take
from ensue.nn.ops.attention import causal_mask, join_heads, split_heads, strips
from ensue.nn.ops.dropout import drop, dropped, keep_mask, random_bytes, threshold


@dataclass(frozen=True, slots=True)
class Relations:
    """What attention knows of pairs of events, for one batch; the same in every block.

    Attributes:
        buckets: for each group of the layout, for each strip of its queries, r_ij: int64 [rows, queries, keys].
        newest: for each group, r_ij of each row's newest event: int64 [rows, keys].
        position_PE: vectors to add to queries (zeros), keys and values, beside each other, [P, 3 D]; or None.
        keys_BRD: R^K for each row, [B, R, D], rows as the layout sorts them, or for all, [1, R, D]; None: no such term.
        values_BRD: R^V, likewise.
        bias_HR: a scalar for each head and bucket, added to e_ij. None: no such term.
    """

    buckets: tuple[tuple[Tensor, ...], ...]
    newest: tuple[Tensor, ...]
    position_PE: Tensor | None = None
    keys_BRD: Tensor | None = None
    values_BRD: Tensor | None = None
    bias_HR: Tensor | None = None


class _TimeAttention(torch.autograd.Function):
    """Rectangle by rectangle and strip by strip; saves the attention weights and bytes, gradient by hand."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv_PE: Tensor,
        keys_BRD: Tensor | None,
        values_BRD: Tensor | None,
        bias_HR: Tensor | None,
        layout: Layout,
        buckets: tuple[tuple[Tensor, ...], ...],
        heads: int,
        drop_below: int,
    ) -> Tensor:
        out_PD = qkv_PE.new_empty(qkv_PE.shape[0], qkv_PE.shape[1] // 3)
        saved: list[Tensor] = []
        for (group, events, rows), strips_of_group in zip(layout.parts(), buckets, strict=True):
            terms = _Terms.of_rows(keys_BRD, values_BRD, bias_HR, rows, heads)
            qkv_3XTD = split_heads(place(qkv_PE[events], group), 3, heads)
            saved.append(qkv_3XTD)
            out_XTD = _attend(qkv_3XTD, terms, strips_of_group, drop_below, saved)
            take(join_heads(out_XTD[None], heads), group, out_PD[events])
        ctx.layout, ctx.buckets, ctx.heads, ctx.drop_below = layout, buckets, heads, drop_below
        ctx.tables = len(saved)
        ctx.save_for_backward(*saved, keys_BRD, values_BRD, bias_HR)
        return out_PD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved, heads = list(ctx.saved_tensors), ctx.heads
        tables, saved = saved[ctx.tables :], saved[: ctx.tables]
        grad_qkv = grads[0].new_empty(grads[0].shape[0], 3 * grads[0].shape[1])
        grad_tables = [None if table is None else torch.zeros_like(table) for table in tables]
        for (group, events, rows), strips_of_group in zip(
            reversed(ctx.layout.parts()), reversed(ctx.buckets), strict=True
        ):
            terms = _Terms.of_rows(tables[0], tables[1], tables[2], rows, heads)
            terms_grad = _Terms.zeros_like(terms)
            grad_XTD = split_heads(place(grads[0][events], group), 1, heads)[0]
            grad = _attend_backward(grad_XTD, terms, terms_grad, strips_of_group, ctx.drop_below, saved)
            take(join_heads(grad, heads), group, grad_qkv[events])
            terms_grad.add_to(grad_tables, rows, heads)
        return grad_qkv, *grad_tables, None, None, None, None


@dataclass
class _Terms:
    """The tables as one group's heads see them: keys and values [X, R, d], bias [H, R]."""

    keys: Tensor | None
    values: Tensor | None
    bias: Tensor | None

    @classmethod
    def of_rows(
        cls, keys_BRD: Tensor | None, values_BRD: Tensor | None, bias_HR: Tensor | None, rows: slice, heads: int
    ) -> _Terms:
        def of(table_BRD: Tensor | None) -> Tensor | None:
            if table_BRD is None:
                return None
            part = table_BRD[rows] if table_BRD.shape[0] > 1 else table_BRD.expand(rows.stop - rows.start, -1, -1)
            return split_heads(part, 1, heads)[0]

        return cls(of(keys_BRD), of(values_BRD), bias_HR)

    @classmethod
    def zeros_like(cls, other: _Terms) -> _Terms:
        return cls(*(None if t is None else t.new_zeros(t.shape) for t in (other.keys, other.values, other.bias)))

    def add_to(self, tables: list[Tensor | None], rows: slice, heads: int) -> None:
        """Add these gradients, of one group, to those of the whole tables."""
        for part_XRD, table in zip((self.keys, self.values), tables, strict=False):
            if part_XRD is not None and table is not None:
                joined = join_heads(part_XRD[None], heads)
                if table.shape[0] > 1:
                    table[rows] += joined
                else:
                    table += joined.sum(0, keepdim=True)
        if self.bias is not None and tables[2] is not None:
            tables[2] += self.bias


def _spread(bucket_GQK: Tensor, count: int) -> Tensor:
    """The buckets of a strip for every head, [X, Q, K]: rows repeated, heads within a row."""
    heads = count // bucket_GQK.shape[0]
    return bucket_GQK if heads == 1 else bucket_GQK.repeat_interleave(heads, 0)


def _by_bucket(weights_XQK: Tensor, bucket_XQK: Tensor, count: int) -> Tensor:
    """The weights of a query's keys summed by bucket: [X, Q, R]."""
    return weights_XQK.new_zeros(*weights_XQK.shape[:2], count).scatter_add_(2, bucket_XQK, weights_XQK)


def _add_relations(scores: Tensor, q: Tensor, terms: _Terms, bucket: Tensor, scale: float) -> None:
    """scores += scale q . R^K[r] + bias[r], in place."""
    table = None if terms.keys is None else q.bmm(terms.keys.transpose(1, 2)).mul_(scale)
    if terms.bias is not None:
        heads, count = terms.bias.shape
        bias_XQR = terms.bias.repeat(q.shape[0] // heads, 1)[:, None].expand(-1, q.shape[1], count)
        table = bias_XQR if table is None else table + bias_XQR
    if table is not None:
        scores.add_(table.gather(2, bucket))


def _attend(
    qkv_3XTD: Tensor, terms: _Terms, buckets: tuple[Tensor, ...], drop_below: int, saved: list[Tensor]
) -> Tensor:
    """Attention of one rectangle, [X, T, d]; appends each strip's weights, and bytes if any, to `saved`."""
    q, k, v = qkv_3XTD
    scale, mask = q.shape[-1] ** -0.5, causal_mask(q.shape[1], q)
    out: Tensor = q.new_empty(q.shape)
    for (lo, hi), bucket_GQK in zip(strips(q.shape[1]), buckets, strict=True):
        bucket = _spread(bucket_GQK, q.shape[0])
        scores = torch.baddbmm(mask[:, lo:hi, :hi], q[:, lo:hi], k[:, :hi].transpose(1, 2), alpha=scale)
        _add_relations(scores, q[:, lo:hi], terms, bucket, scale)
        kept = attention = torch.softmax(scores, -1)
        saved.append(attention)
        if drop_below:
            saved.append(random_bytes(attention.shape, attention.device))
            kept = dropped(attention, saved[-1], drop_below)
        strip = kept.bmm(v[:, :hi])
        if terms.values is not None:
            strip.baddbmm_(_by_bucket(kept, bucket, terms.values.shape[1]), terms.values)
        out[:, lo:hi] = strip
    return out


def _attend_backward(
    grad: Tensor, terms: _Terms, terms_grad: _Terms, buckets: tuple[Tensor, ...], drop_below: int, saved: list[Tensor]
) -> Tensor:
    """Gradients of one rectangle's q, k and v, [3, X, T, d]; those of the tables are added to `terms_grad`."""
    cuts = strips(grad.shape[1])
    first = len(saved) - len(cuts) * (2 if drop_below else 1) - 1
    q, k, v = saved[first]
    scale = q.shape[-1] ** -0.5
    grads = grad.new_zeros(3, *grad.shape)
    for (lo, hi), bucket_GQK in zip(reversed(cuts), reversed(buckets), strict=True):
        bucket = _spread(bucket_GQK, q.shape[0])
        bytes_XQK = saved.pop() if drop_below else None
        kept = attention = saved.pop()
        g = grad[:, lo:hi]
        grad_attention = g.bmm(v[:, :hi].transpose(1, 2))
        if terms.values is not None:
            grad_attention.add_(g.bmm(terms.values.transpose(1, 2)).gather(2, bucket))
        if bytes_XQK is not None:
            keep = keep_mask(bytes_XQK, drop_below, attention.dtype)
            drop(grad_attention, keep, drop_below, out=grad_attention)
            kept = drop(attention, keep, drop_below, out=keep)
        grad_scores = torch._softmax_backward_data(grad_attention, attention, -1, attention.dtype)
        grads[2, :, :hi].baddbmm_(kept.transpose(1, 2), g)
        if terms_grad.values is not None:
            terms_grad.values.baddbmm_(_by_bucket(kept, bucket, terms_grad.values.shape[1]).transpose(1, 2), g)
        grads[0, :, lo:hi] = _query_gradient(grad_scores, q[:, lo:hi], k[:, :hi], terms, terms_grad, bucket, scale)
        grads[1, :, :hi].baddbmm_(grad_scores.transpose(1, 2), q[:, lo:hi], alpha=scale)
    saved.pop()
    return grads


def _query_gradient(
    grad_scores: Tensor, q: Tensor, k: Tensor, terms: _Terms, terms_grad: _Terms, bucket: Tensor, scale: float
) -> Tensor:
    """The gradient of a strip's queries; those of R^K and the bias are added to `terms_grad`."""
    grad_q = grad_scores.bmm(k)
    table = terms_grad.keys if terms_grad.keys is not None else terms_grad.bias
    if table is not None:
        by_bucket = _by_bucket(grad_scores, bucket, table.shape[1])
        if terms.keys is not None and terms_grad.keys is not None:
            grad_q.baddbmm_(by_bucket, terms.keys)
            terms_grad.keys.baddbmm_(by_bucket.transpose(1, 2), q, alpha=scale)
        if terms_grad.bias is not None:
            heads = terms_grad.bias.shape[0]
            terms_grad.bias += by_bucket.sum(1).view(-1, heads, by_bucket.shape[2]).sum(0)
    return grad_q.mul_(scale)


def _with_positions(qkv_PE: Tensor, relations: Relations) -> Tensor:
    """Queries, keys and values, position vectors added; float32 in mixed precision, for the sums by bucket need it."""
    if relations.position_PE is not None:
        qkv_PE = qkv_PE + relations.position_PE
    return qkv_PE.to(torch.promote_types(qkv_PE.dtype, torch.float32))


def time_attention(
    qkv_PE: Tensor, layout: Layout, relations: Relations, num_heads: int, dropout_rate: float = 0.0
) -> Tensor:
    """Causal attention within each row of a packed batch, with the relations between events.

    Args:
        qkv_PE: queries, keys and values beside each other, [P, 3 D].
        layout: the batch's rectangles.
        relations: intervals and their vectors.
        num_heads: heads, H; each takes D / H columns of everything of width D.
        dropout_rate: on the attention weights, in [0, 1); 0 outside training.

    Returns:
        [P, D].
    """
    qkv_PE = _with_positions(qkv_PE, relations)
    ordered = qkv_PE if layout.order_P is None else qkv_PE.index_select(0, layout.order_P)
    tables = [
        None if table is None else table.to(ordered.dtype)
        for table in (relations.keys_BRD, relations.values_BRD, relations.bias_HR)
    ]
    with torch.autocast(ordered.device.type, enabled=False):
        out_PD: Tensor = _TimeAttention.apply(  # type: ignore[no-untyped-call]
            ordered, *tables, layout, relations.buckets, num_heads, threshold(dropout_rate)
        )
    return out_PD if layout.inverse_P is None else out_PD.index_select(0, layout.inverse_P)


def newest_time_attention(qkv_PE: Tensor, layout: Layout, relations: Relations, num_heads: int) -> Tensor:
    """`time_attention` of each row's newest event alone, without dropout: [B, D]."""
    rectangles = layout.pad(_with_positions(qkv_PE, relations))
    outs = []
    with torch.autocast(qkv_PE.device.type, enabled=False):
        for x_GTE, (group, _, rows), bucket_GK in zip(rectangles, layout.parts(), relations.newest, strict=True):
            terms = _Terms.of_rows(relations.keys_BRD, relations.values_BRD, relations.bias_HR, rows, num_heads)
            outs.append(_newest_of_group(x_GTE, group, terms, bucket_GK, num_heads))
    return layout.join_rows(outs)


def _newest_of_group(x_GTE: Tensor, group: Group, terms: _Terms, bucket_GK: Tensor, num_heads: int) -> Tensor:
    """Attention of the newest event of each row of one rectangle: [rows, D]."""
    q, k, v = split_heads(x_GTE, 3, num_heads)
    length_X = group.length_G.repeat_interleave(num_heads)
    q_X1D = q[torch.arange(len(length_X), device=q.device), length_X - 1][:, None]
    scale, bucket = q.shape[-1] ** -0.5, _spread(bucket_GK[:, None], q.shape[0])
    scores = q_X1D.bmm(k.transpose(1, 2)).mul_(scale)
    _add_relations(scores, q_X1D, terms, bucket, scale)
    beyond = torch.arange(group.width, device=q.device) >= length_X[:, None, None]
    weights = scores.masked_fill(beyond, float("-inf")).softmax(-1)
    out = weights.bmm(v)
    if terms.values is not None:
        out = out.baddbmm(_by_bucket(weights, bucket, terms.values.shape[1]), terms.values)
    return join_heads(out[None], num_heads)[:, 0]


def naive_time_attention(
    q_HTD: Tensor,
    k_HTD: Tensor,
    v_HTD: Tensor,
    bucket_TT: Tensor,
    keys_HRD: Tensor | None = None,
    values_HRD: Tensor | None = None,
    bias_HR: Tensor | None = None,
    keep_HTT: Tensor | None = None,
) -> Tensor:
    """The obvious O(T T D) form of one row, in any precision and with autograd's gradient; it checks the fast one.

    Args:
        q_HTD: queries; keys and values, with the position vectors in them, are like them.
        k_HTD: keys.
        v_HTD: values.
        bucket_TT: r_ij.
        keys_HRD: R^K, dropped out as in the fast form; values likewise.
        values_HRD: R^V.
        bias_HR: a scalar for each head and bucket.
        keep_HTT: what dropout multiplies the weights with, the scale included.
    """
    scores = q_HTD @ k_HTD.transpose(-1, -2)
    if keys_HRD is not None:
        scores = scores + (q_HTD[:, :, None] * keys_HRD[:, bucket_TT]).sum(-1)
    scores = scores * q_HTD.shape[-1] ** -0.5
    if bias_HR is not None:
        scores = scores + bias_HR[:, bucket_TT]
    future = torch.ones_like(bucket_TT, dtype=torch.bool).triu(1)
    weights: Tensor = scores.masked_fill(future, float("-inf")).softmax(-1)
    if keep_HTT is not None:
        weights = weights * keep_HTT
    out = weights @ v_HTD
    if values_HRD is not None:
        out = out + (weights[..., None] * values_HRD[:, bucket_TT]).sum(2)
    return out
