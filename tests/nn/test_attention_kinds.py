"""Every kind of attention equals its definition, in value and gradient, and never looks ahead."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ensue.batches.layout import Layout, make_layout
from ensue.errors import ConfigError
from ensue.models import model_config
from ensue.nn.attention import ATTENTIONS, AttentionConfig, Heads, RectangleAttention
from ensue.nn.block_attention import RandomAttention, draw
from ensue.nn.embedding import initialise
from ensue.nn.kernel_attention import EPSILON, FLOOR, LinearAttention, PerformerAttention
from ensue.nn.pooled_attention import LowRankAttention, MemoryAttention

KINDS = [name for name in ATTENTIONS if name != "full"]
W, M, HEADS, WIDTH, MAXLEN = 3, 4, 2, 5, 24
LENGTHS = np.array([5, 11, 1, 8, 2])


def layer_of(kind: str, causal: bool = True, dropout_rate: float = 0.0, window: int = W) -> RectangleAttention:
    config = AttentionConfig(attention=kind, attention_window=window, attention_size=M)
    layer = config.attend(Heads(HEADS, WIDTH, dropout_rate, causal, MAXLEN, layer=1))
    initialise(layer, 0)
    assert isinstance(layer, RectangleAttention)
    return layer.double()


def events(lengths: np.ndarray = LENGTHS) -> Tensor:
    return torch.randn(
        int(lengths.sum()), 3 * HEADS * WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )


def softmax_over(q: Tensor, keys: list[Tensor], values: list[Tensor], logs: list[Tensor]) -> Tensor:
    """softmax(q . k / sqrt(d) + log n) v over some events and summaries."""
    scores = torch.stack([q @ k * WIDTH**-0.5 + log for k, log in zip(keys, logs, strict=True)])
    return scores.softmax(0) @ torch.stack(values)


def share_of(layer: RectangleAttention, head: int, k: Tensor, place: int) -> Tensor:
    """How an event spreads itself over the summaries."""
    if isinstance(layer, LowRankAttention):
        return layer.projection_MT[:, place].softmax(0)
    assert isinstance(layer, MemoryAttention)
    return (layer.slots_HMd[head] @ k[place] * WIDTH**-0.5).softmax(0)


def summaries(
    kind: str, layer: RectangleAttention, head: int, k: Tensor, v: Tensor, block: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Keys, values and log sizes of what a query in a block reads of the far events in summary."""
    causal, length, result = layer.heads.causal, len(k), []
    if kind == "hierarchical":
        for other in range(math.ceil(length / W)):
            if other < block - 1 or (not causal and other > block + 1):
                part = slice(other * W, min(other * W + W, length))
                size = torch.tensor(float(part.stop - part.start), dtype=torch.float64)
                result.append((k[part].mean(0), v[part].mean(0), size.log()))
    elif kind in ("low-rank", "memory"):
        seen = range(max(block - 1, 0) * W) if causal else range(length)
        if len(seen):
            share = torch.stack([share_of(layer, head, k, place) for place in seen], 1)
            for row in share:
                mass = row.sum()
                result.append((row @ k[: len(seen)] / mass, row @ v[: len(seen)] / mass, mass.log()))
    return result


def seen_by(kind: str, layer: RectangleAttention, q: Tensor, k: Tensor, i: int) -> list[int]:
    """The events that the query of event i reads by themselves."""
    causal, length, block = layer.heads.causal, len(k), i // W
    every = range(i + 1) if causal else range(length)
    if kind == "content":
        cheap = (k[:, :8] @ q[i, :8]).tolist()
        others = sorted((j for j in every if j != i), key=lambda j: -cheap[j])
        return [i, *others[: M - 1]]
    if kind == "local":
        return [j for j in every if abs(i - j) < W]
    drawn = []
    if kind == "random":
        last = max((block - 1) * W, 0) if causal else MAXLEN
        drawn = draw(1, block, W, M, last).tolist()
    return [j for j in every if abs(j // W - block) <= 1 or (kind == "strided" and (i - j) % W == 0) or j in drawn]


def features(layer: RectangleAttention, x: Tensor) -> Tensor:
    if isinstance(layer, LinearAttention):
        return torch.where(x > 0, x + 1, x.exp())
    assert isinstance(layer, PerformerAttention)
    x = x / WIDTH**0.25
    return torch.stack([(layer.directions_Fd[f] @ x - x @ x / 2).exp() + FLOOR for f in range(M)])


def defined(kind: str, layer: RectangleAttention, head: int, q: Tensor, k: Tensor, v: Tensor, i: int) -> Tensor:
    """What the query of event i reads, written out: one row, one head."""
    if kind in ("linear", "performer"):
        phi = features(layer, q[i])
        if kind == "performer":  # The floor is added after the query's largest exponent was subtracted.
            exponents = (phi - FLOOR).log()
            phi = (exponents - exponents.detach().max()).exp() + FLOOR
        every = range(i + 1) if layer.heads.causal else range(len(k))
        weights = torch.stack([phi @ features(layer, k[j]) for j in every])
        return weights @ v[: len(every)] / (weights.sum() + EPSILON)
    seen = seen_by(kind, layer, q, k, i)
    far = summaries(kind, layer, head, k, v, i // W)
    zero = torch.tensor(0.0, dtype=torch.float64)
    return softmax_over(
        q[i],
        [k[j] for j in seen] + [k_far for k_far, _, _ in far],
        [v[j] for j in seen] + [v_far for _, v_far, _ in far],
        [zero] * len(seen) + [size for _, _, size in far],
    )


def naive(kind: str, layer: RectangleAttention, packed_PE: Tensor, asked: np.ndarray) -> Tensor:
    """The attention of the asked events, one after another."""
    outs = []
    for first, stop in pairwise(np.r_[0, LENGTHS.cumsum()]):
        q, k, v = packed_PE[first:stop].view(stop - first, 3, HEADS, WIDTH).permute(1, 2, 0, 3)
        for event in asked[(asked >= first) & (asked < stop)]:
            rows = [defined(kind, layer, h, q[h], k[h], v[h], int(event - first)) for h in range(HEADS)]
            outs.append(torch.cat(rows))
    return torch.stack(outs)


def run(layer: RectangleAttention, packed_PE: Tensor, layout: Layout) -> Tensor:
    if layout.asked is None:
        return layer(packed_PE, layout)
    q_QD = layout.choose(packed_PE[:, : HEADS * WIDTH])
    return layer(packed_PE[:, HEADS * WIDTH :], layout, None, q_QD)


EVERY = np.arange(LENGTHS.sum())
FEW, MANY = np.array([2, 14, 15, 24]), np.r_[EVERY[1:16], EVERY[18::2]]


@pytest.mark.parametrize("asked", [EVERY, FEW, MANY], ids=["all", "few", "many"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both sides"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_its_definition(kind: str, causal: bool, asked: np.ndarray) -> None:
    layer, fast, slow = layer_of(kind, causal), events().requires_grad_(), events().requires_grad_()
    got, expected = run(layer, fast, make_layout(LENGTHS, asked)), naive(kind, layer, slow, asked)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    upstream = torch.randn(got.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs = list(layer.parameters())
    got_grads = torch.autograd.grad((got * upstream).sum(), [fast, *inputs])
    grads = torch.autograd.grad((expected * upstream).sum(), [slow, *inputs])
    for a, b in zip(got_grads, grads, strict=True):
        assert bool(b.any())
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_no_event_sees_the_future(kind: str) -> None:
    layer, lengths = layer_of(kind).float(), np.array([17, 6])
    layout, packed = make_layout(lengths), events(lengths).float()
    before = layer(packed, layout)
    for first in (1, 3, 4, 9, 12, 16):
        changed = packed.clone()
        changed[first:17] = 1e3
        after = layer(changed, layout)
        assert torch.equal(after[:first], before[:first])
        assert torch.equal(after[17:], before[17:])
        assert not torch.equal(after[first], before[first])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_alone_is_the_row_in_a_batch(kind: str, causal: bool) -> None:
    layer, packed = layer_of(kind, causal), events()
    together = layer(packed, make_layout(LENGTHS))
    for first, stop in pairwise(np.r_[0, LENGTHS.cumsum()]):
        alone = layer(packed[first:stop], make_layout(np.array([stop - first])))
        torch.testing.assert_close(alone, together[first:stop], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_values_and_nothing_asked_stay_finite(kind: str) -> None:
    layer, packed = layer_of(kind).float(), (events() * 1e2).float().requires_grad_()
    for layout in (make_layout(LENGTHS), make_layout(LENGTHS, np.array([], dtype=np.int64))):
        out = run(layer, packed, layout)
        assert out.isfinite().all()
        (gradient,) = torch.autograd.grad(out.sum(), packed)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"linear", "performer"}))
def test_weights_have_dropout_in_training_only(kind: str) -> None:
    layer, packed, layout = layer_of(kind, dropout_rate=0.5), events(), make_layout(LENGTHS)
    assert not torch.equal(layer(packed, layout), layer(packed, layout))
    layer.eval()
    assert torch.equal(layer(packed, layout), layer(packed, layout))


def test_one_block_or_a_choice_of_all_is_full_attention() -> None:
    packed, layout = events(), make_layout(LENGTHS)
    for causal in (True, False):
        full = AttentionConfig().attend(Heads(HEADS, WIDTH, 0.0, causal))(packed, layout)
        for kind in ("local", "strided", "random", "hierarchical"):
            torch.testing.assert_close(layer_of(kind, causal, window=MAXLEN)(packed, layout), full)
    content = AttentionConfig(attention="content", attention_size=100).attend(Heads(HEADS, WIDTH, 0.0, causal=False))
    torch.testing.assert_close(content(packed, layout), full)


def test_summaries_of_equal_keys_are_exact() -> None:
    packed, layout = events(), make_layout(LENGTHS)
    packed[:, HEADS * WIDTH :] = packed[0, HEADS * WIDTH :]
    packed[:, 2 * HEADS * WIDTH :] = events()[0, : HEADS * WIDTH]
    full = AttentionConfig().attend(Heads(HEADS, WIDTH, 0.0))(packed, layout)
    for kind in ("hierarchical", "low-rank", "memory"):
        torch.testing.assert_close(layer_of(kind)(packed, layout), full)


def test_random_features_approach_the_softmax() -> None:
    config, heads = AttentionConfig(attention="performer", attention_size=4_000), Heads(HEADS, WIDTH, 0.0)
    performer, packed, layout = config.attend(heads), events() / 2, make_layout(LENGTHS)
    initialise(performer, 0)
    full = AttentionConfig().attend(heads)(packed, layout)
    assert float((performer.double()(packed, layout) - full).abs().mean()) < 0.05
    directions = performer.get_buffer("directions_Fd")[:WIDTH]
    products = directions @ directions.T
    torch.testing.assert_close(products, products.diag().diag(), rtol=0, atol=1e-5)


def test_random_events_depend_on_block_and_layer_alone() -> None:
    assert sorted(draw(0, 5, 3, 4, 12).tolist()) == sorted(set(draw(0, 5, 3, 4, 12).tolist()))
    assert draw(0, 5, 3, 4, 12).max() < 12
    assert draw(0, 9, 3, 4, 24).tolist() != draw(1, 9, 3, 4, 24).tolist()
    assert draw(0, 1, 3, 4, 0).tolist() == [-1] * 4
    assert isinstance(layer_of("random"), RandomAttention)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"content"}))
def test_the_cost_of_a_long_row_is_not_quadratic(kind: str) -> None:
    def products(length: int) -> int:
        # Strided and hierarchical attention also read one event of each block: a window of sqrt(T) is best.
        window = math.isqrt(length) if kind in ("strided", "hierarchical") else 16
        config = AttentionConfig(attention=kind, attention_window=window, attention_size=8)
        layer = config.attend(Heads(1, 8, 0.0, maxlen=1_024))
        packed, layout = torch.zeros(length, 24), make_layout(np.array([length]))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(packed, layout)
        return int(counter.get_total_flops())

    exponent = math.log(products(1_024) / products(256), 4)
    assert exponent < (1.55 if kind in ("strided", "hierarchical") else 1.05)


def test_every_transformer_has_the_setting_and_names_are_checked() -> None:
    for name in ("sasrec", "bert4rec", "bsarec", "sasrec-padded"):
        assert model_config({"name": name, "attention": "linear"}).model_dump()["attention"] == "linear"
    with pytest.raises(ConfigError, match="unknown attention 'lineer': did you mean 'linear'"):
        model_config({"name": "sasrec", "attention": "lineer"})
    for name in ("tisasrec", "tisasrec-padded"):
        with pytest.raises(ConfigError, match=rf"{name} reads intervals.*need attention 'full' \(got 'local'\)"):
            model_config({"name": name, "attention": "local"})
