"""Rotary positions: the paper's rotation, and products that depend on distance alone."""

from __future__ import annotations

import cmath

import numpy as np
import pytest
import torch

from ensue.batches.layout import make_layout
from ensue.errors import ConfigError
from ensue.models.sasrec import SASRecConfig
from ensue.nn.rotary import Rotary
from ensue.nn.self_attention import SelfAttention

HEADS, HALF, WIDTH = 2, 3, 12


def test_each_pair_is_turned_by_its_angle() -> None:
    qkv = torch.randn(5, 3 * WIDTH, generator=torch.Generator().manual_seed(0))
    age = torch.tensor([4, 3, 2, 1, 0])
    turned = Rotary(5, 2 * HALF)(qkv[:, : 2 * WIDTH], age)
    for event in range(5):
        for head in range(2 * HEADS):  # of the queries, then of the keys
            for pair in range(HALF):
                first = head * 2 * HALF + pair
                before = complex(qkv[event, first], qkv[event, first + HALF])
                angle = int(age[event]) * 10_000 ** (-2 * pair / (2 * HALF))
                after = before * cmath.exp(1j * angle)
                assert float(turned[event, first]) == pytest.approx(after.real, abs=1e-5)
                assert float(turned[event, first + HALF]) == pytest.approx(after.imag, abs=1e-5)


def test_products_depend_on_the_difference_of_ages() -> None:
    rotary = Rotary(100, 2 * HALF)
    qkv = torch.randn(1, 3 * WIDTH, generator=torch.Generator().manual_seed(1)).expand(100, -1)
    q, k = rotary(qkv[:, : 2 * WIDTH], torch.arange(100)).view(100, 2, HEADS, -1).unbind(1)
    products = torch.einsum("ihd,jhd->hij", q, k)
    for distance in (0, 1, 7, 60):
        along = products.diagonal(distance, 1, 2)
        torch.testing.assert_close(along, along[:, :1].expand_as(along), rtol=1e-3, atol=1e-4)
    assert float((products[:, 0, 0] - products[:, 0, 7]).abs().min()) > 1e-2


@pytest.mark.parametrize("asked", [None, [1, 4]])
def test_the_layer_turns_queries_and_keys_and_never_values(asked: list[int] | None) -> None:
    layer = SelfAttention(WIDTH, HEADS, 0.0, Rotary(3, 2 * HALF))
    layout = make_layout(np.array([3, 2]), None if asked is None else np.array(asked))
    x_PD = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
    plain_q, plain_k, plain_v = layer.qkv(x_PD).chunk(3, -1)
    query_QD = x_PD + 0 if asked is None else layout.choose(x_PD)
    q_QD, kv_PE = layer.project(query_QD, x_PD, layout)
    assert layer.rotary is not None
    torch.testing.assert_close(q_QD, layout.choose(layer.rotary(plain_q, layout.age_P)))
    torch.testing.assert_close(kv_PE, torch.cat((layer.rotary(plain_k, layout.age_P), plain_v), 1))


def test_pairs_need_an_even_width() -> None:
    with pytest.raises(ConfigError, match=r"needs an even hidden_units / num_heads \(got 5\)"):
        SASRecConfig.parse({"hidden_units": 10, "num_heads": 2, "positions": "rotary"})
