"""Attention without relations equals the plain form, in value and gradient; causal attention never looks ahead."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from ensue.batches.layout import make_layout
from ensue.nn.ops import attention
from ensue.nn.ops.attention import causal_mask, naive_attention
from ensue.nn.ops.dropout import LEVELS, keep_mask, random_bytes, threshold
from ensue.nn.self_attention import SelfAttention

Triple = tuple[Tensor, Tensor, Tensor]


def qkv(rows: int = 3, heads: int = 2, width: int = 9, d: int = 5, seed: int = 0) -> Triple:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(rows, heads, width, d, generator=generator) for _ in range(3))
    return q, k, v


def causal_attention(q: Tensor, k: Tensor, v: Tensor, rate: float = 0.0) -> Tensor:
    """The packed attention, on rows of equal length, as a function of rectangles."""
    rows, heads, width, d = q.shape
    packed = torch.cat([x.transpose(1, 2).reshape(rows * width, heads * d) for x in (q, k, v)], 1)
    out = attention.attention(packed, make_layout(np.full(rows, width)), heads, rate)
    return out.view(rows, width, heads, d).transpose(1, 2)


def with_gradients(parts: Triple) -> Triple:
    q, k, v = (x.clone().requires_grad_() for x in parts)
    return q, k, v


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("width", [1, 2, 39, 81, 130])
def test_fast_equals_naive(heads: int, width: int) -> None:
    parts = qkv(heads=heads, width=width)
    fast, slow = with_gradients(parts), with_gradients(tuple(x.double() for x in parts))
    upstream = torch.randn(parts[0].shape, generator=torch.Generator().manual_seed(1))
    got, expected = causal_attention(*fast), naive_attention(*slow)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    got.backward(upstream)
    expected.backward(upstream.double())
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_equal_naive(dtype: torch.dtype) -> None:
    parts = tuple(x.to(dtype) for x in qkv())
    tolerance = 1e-9 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(causal_attention(*parts), naive_attention(*parts), rtol=tolerance, atol=tolerance)


def obvious_with_mask(parts: Triple, keep_XTT: Tensor) -> Tensor:
    q, k, v = parts
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + causal_mask(q.shape[2], q)).softmax(-1)
    return (weights * keep_XTT.view_as(weights)) @ v


def strip_by_strip(heads: int, width: int, drop_below: int) -> Tensor:
    """The factors of all weights, drawn in the order of the strips."""
    factor = torch.zeros(heads, width, width)
    for lo, hi, keys in attention.strips(width):
        factor[:, lo:hi, :keys] = keep_mask(random_bytes((heads, hi - lo, keys)), drop_below)
    return factor * LEVELS / (LEVELS - drop_below)


@pytest.mark.parametrize("rate", [0.2, 0.5])
@pytest.mark.parametrize("width", [7, 100])
def test_dropout_equals_autograd_through_the_same_bytes(rate: float, width: int) -> None:
    parts = qkv(rows=2, heads=2, width=width)
    fast, slow = with_gradients(parts), with_gradients(parts)
    upstream = torch.randn(parts[0].shape, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(11)
    got = causal_attention(*fast, rate)
    torch.manual_seed(11)
    expected = obvious_with_mask(slow, strip_by_strip(4, width, threshold(rate)))
    assert not torch.allclose(got, naive_attention(*parts))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    got.backward(upstream)
    expected.backward(upstream)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [1, 39, 40, 41, 79, 80, 200, 513])
def test_strips_cover_every_query_once(width: int) -> None:
    strips = attention.strips(width)
    assert strips[0][0] == 0
    assert strips[-1][1] == width
    assert all(a[1] == b[0] for a, b in pairwise(strips))
    assert all(lo < hi == keys for lo, hi, keys in strips)
    assert attention.strips(width, causal=False) == [(0, width, width)]


def test_causality_is_exact() -> None:
    for width, first in ((12, 8), (100, 30), (100, 70)):
        q, k, v = qkv(width=width)
        before = causal_attention(q, k, v)
        for changed in (q, k, v):
            changed[:, :, first:] = 1e3
        assert torch.equal(causal_attention(q, k, v)[:, :, :first], before[:, :, :first])


def test_extreme_scores_stay_finite() -> None:
    q, k, v = with_gradients(tuple(x * 1e4 for x in qkv()))
    out = causal_attention(q, k, v)
    assert out.isfinite().all()
    out.sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_training_after_an_evaluation_first_made_the_mask() -> None:
    """The cached mask may be made in inference mode and must serve training all the same."""
    attention._mask_of_size.cache_clear()
    with torch.inference_mode():
        causal_attention(*qkv())
    parts = with_gradients(qkv())
    causal_attention(*parts, 0.2).sum().backward()
    assert parts[0].grad is not None


LENGTHS = [3, 7, 1, 7, 2]


def layer_and_events(heads: int = 2, causal: bool = True) -> tuple[SelfAttention, Tensor]:
    torch.manual_seed(4)
    return SelfAttention(8, heads, 0.3, causal=causal).eval(), torch.randn(sum(LENGTHS), 8)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("own_query", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("asked", [None, [0, 2, 5, 9, 10, 11, 19]])
def test_layer_equals_a_loop_over_rows(heads: int, own_query: bool, causal: bool, asked: list[int] | None) -> None:
    layer, x = layer_and_events(heads, causal)
    layout = make_layout(np.array(LENGTHS), None if asked is None else np.array(asked))
    source = torch.randn_like(x) if own_query else x
    expected = []
    for events in torch.arange(len(x)).split(LENGTHS):
        q = torch.nn.functional.linear(source[events], layer.qkv.weight[:8], layer.qkv.bias[:8])
        k, v = torch.nn.functional.linear(x[events], layer.qkv.weight[8:], layer.qkv.bias[8:]).split(8, -1)
        heads_first = (y.view(1, len(events), heads, 8 // heads).transpose(1, 2) for y in (q, k, v))
        out = naive_attention(*heads_first, causal=causal).transpose(1, 2)
        expected.append(layer.out(out.reshape(len(events), 8)))
    got = layer(layout.choose(source), x, layout)
    torch.testing.assert_close(got, layout.choose(torch.cat(expected)), rtol=1e-5, atol=1e-6)


def test_layer_drops_attention_in_training_only() -> None:
    layer, x = layer_and_events()
    layout = make_layout(np.array(LENGTHS))
    assert torch.equal(layer(x, x, layout), layer(x, x, layout))
    layer.train()
    assert not torch.equal(layer(x, x, layout), layer(x, x, layout))


def test_nothing_asked_gives_nothing_and_zero_gradients() -> None:
    layer, x = layer_and_events()
    layout = make_layout(np.array(LENGTHS), np.array([], dtype=np.int64))
    x.requires_grad_()
    out = layer(layout.choose(x), x, layout)
    assert out.shape == (0, 8)
    out.sum().backward()
    assert not bool(x.grad.any())
