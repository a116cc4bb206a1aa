"""Relative positions: attention adds a learned bias of the distance between two events to their score.

Suffixes: `G` rows of a group, `A` queries of a strip or asked events, `K` keys, `T` events of the group's longest row,
`H` heads, `R` buckets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ensue.batches.layout import Layout
from ensue.nn.ops.attention import strips
from ensue.nn.ops.relation_terms import Relations

BUCKETS = 32


def distance_bucket(distance: Tensor, maxlen: int, count: int = BUCKETS) -> Tensor:
    """The bucket, 0..count - 1, of distances in events: int64.

    Half of the buckets are for one distance each, 0 .. count / 2 - 1; the others grow geometrically up to `maxlen`.
    """
    exact = count // 2
    ratio = max(maxlen, exact + 1) / exact
    beyond = (distance.clamp(min=exact) / exact).log() / math.log(ratio) * (count - exact)
    return torch.where(distance < exact, distance.clamp(min=0), (exact + beyond.long()).clamp(max=count - 1))


class RelativePositions(nn.Module):
    """The biases by head and bucket of the distance, shared by all blocks, for causal attention.

    Source: Raffel et al., T5, JMLR 2020, section 2.1; there the buckets grow up to a distance of 128.

    Args:
        num_heads: H.
        maxlen: number of events of the longest row.
    """

    def __init__(self, num_heads: int, maxlen: int) -> None:
        super().__init__()
        self.maxlen = maxlen
        self.bias_HR = nn.Parameter(torch.empty(num_heads, BUCKETS))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Set the biases to zero, so that attention initially ignores distances."""
        self.bias_HR.zero_()

    def forward(self, layout: Layout) -> Relations:
        """The relations of a batch."""
        buckets, asked = [], []
        for number, group in enumerate(layout.groups):
            place_T = torch.arange(group.width, device=self.bias_HR.device)
            buckets.append(
                tuple(
                    self._bucket(place_T[lo:hi].expand(group.rows, -1), place_T[:keys])
                    for lo, hi, keys in strips(group.width)
                )
            )
            if layout.asked is not None:
                asked.append((self._bucket(layout.asked.places[number], place_T),))
        return Relations(tuple(buckets), tuple(asked), bias_HR=self.bias_HR)

    def _bucket(self, query_GA: Tensor, key_K: Tensor) -> Tensor:
        """The buckets of the distances from queries back to keys, [G, A, K]."""
        return distance_bucket(query_GA[..., None] - key_K, self.maxlen)
