"""Relative positions: T5's buckets, and a bias that depends on the distance alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ensue.batches.layout import make_layout
from ensue.errors import ConfigError
from ensue.models.sasrec import SASRecConfig
from ensue.nn.embedding import initialise
from ensue.nn.ops.attention import naive_attention
from ensue.nn.ops.relation_terms import Terms
from ensue.nn.relative import BUCKETS, RelativePositions, distance_bucket
from ensue.nn.self_attention import SelfAttention

HEADS, WIDTH, MAXLEN = 2, 8, 100
LENGTHS = np.array([3, 90, 1, 41])


def test_small_distances_have_buckets_of_their_own_and_large_ones_grow() -> None:
    bucket = distance_bucket(torch.arange(1_000), 200)
    assert bucket[:16].tolist() == list(range(16))
    assert bool((bucket.diff() >= 0).all())
    assert bucket.max() == bucket[199] == BUCKETS - 1
    sizes = bucket[16:199].bincount()[16:]
    assert sizes[-2] > 4 * sizes[0] > 0
    # A window within the exact half has no other buckets.
    assert distance_bucket(torch.arange(5), 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("asked", [None, [0, 2, 40, 92, 93, 134]])
def test_scores_have_the_bias_of_their_distance(asked: list[int] | None) -> None:
    positions, layer = RelativePositions(HEADS, MAXLEN).double(), SelfAttention(WIDTH, HEADS, 0.0).double()
    initialise(positions, 0)
    assert not bool(positions.bias_HR.any())
    with torch.no_grad():
        positions.bias_HR.normal_(generator=torch.Generator().manual_seed(0))
    x_PD = torch.randn(int(LENGTHS.sum()), WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = []
    for x_TD in x_PD.split(LENGTHS.tolist()):
        q, k, v = layer.qkv(x_TD).view(len(x_TD), 3, HEADS, -1).permute(1, 2, 0, 3)
        t = torch.arange(len(x_TD))
        bucket = distance_bucket(t[:, None] - t, MAXLEN)
        out = naive_attention(q, k, v, terms=Terms(None, None, positions.bias_HR), bucket_TT=bucket)
        expected.append(layer.out(out.transpose(0, 1).flatten(1)))
    layout = make_layout(LENGTHS, None if asked is None else np.array(asked))
    # The layer takes x itself as the query only if all events are asked.
    query_QD = x_PD if asked is None else layout.choose(x_PD)
    got = layer(query_QD, x_PD, layout, positions(layout))
    whole = torch.cat(expected)
    torch.testing.assert_close(got, whole if asked is None else whole[asked])
    upstream = torch.randn(got.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (a,) = torch.autograd.grad((got * upstream).sum(), positions.bias_HR)
    (b,) = torch.autograd.grad(((whole if asked is None else whole[asked]) * upstream).sum(), positions.bias_HR)
    torch.testing.assert_close(a, b)


def test_they_need_full_attention() -> None:
    with pytest.raises(ConfigError, match=r"positions 'relative' need attention 'full' \(got 'local'\)"):
        SASRecConfig.parse({"positions": "relative", "attention": "local"})
