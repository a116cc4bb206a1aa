"""Buckets of the intervals between events, and the vectors and scalars that attention looks up by bucket.

Suffixes: `P` events of all rows, `B` rows, `G` rows of a group, `T` events of its longest row, `A` asked events of the
row that has the most, `H` heads, `R` buckets, `D` width, `E` 3 D, `1` a dimension of one.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ensue.batches.layout import Layout
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import lookup
from ensue.nn.ops.attention import strips
from ensue.nn.ops.relation_terms import Buckets as StripBuckets
from ensue.nn.ops.relation_terms import Relations

Relation = Literal["embedding", "bias"]
Buckets = Literal["linear", "log"]
# Width of a logarithmic bucket in natural logarithms: 2.3 buckets per octave (HSTU's constant).
LOG_STEP = 0.301


def smallest_gap(times_P: Tensor, lengths_B: Tensor) -> Tensor:
    """The smallest non-zero gap between neighbouring events of each row, float64 [B]; 1 for rows without one."""
    row_P = torch.arange(len(lengths_B), device=times_P.device).repeat_interleave(lengths_B)
    gaps = times_P.diff().abs().double()
    gaps.masked_fill_((row_P[1:] != row_P[:-1]) | (gaps == 0), float("inf"))
    least = torch.full((len(lengths_B),), float("inf"), dtype=torch.float64, device=times_P.device)
    least.scatter_reduce_(0, row_P[1:], gaps, "amin")
    return least.masked_fill_(least.isinf(), 1.0)


def bucket_of(gap: Tensor, unit: Tensor, kind: Buckets, last: int) -> Tensor:
    """The bucket, 0..last, of gaps in seconds (float64, may be negative): int64.

    `linear`: floor(|gap| / unit), as TiSASRec; `log`: floor(ln(max(1, |gap| / unit)) / 0.301), as HSTU (Zhai et al.,
    ICML 2024).
    """
    units = gap.abs().div_(unit)
    if kind == "log":
        units = units.clamp_(min=1.0).float().log_().div_(LOG_STEP)
    return units.clamp_(max=last).long()


class TimeRelations(nn.Module):
    """The relation terms of attention, shared by all blocks as in the authors' code.

    Args:
        maxlen: length of the longest history.
        hidden_units: D.
        num_heads: H.
        dropout_rate: on position and interval vectors; for the latter per row and bucket. The paper draws per pair of
            events, which would need a mask of [T, T, D].
        relation: `embedding`: vectors for keys and values by interval and by position (TiSASRec); `bias`: a scalar
            per head and bucket (HSTU), without position vectors.
        buckets: how an interval is mapped to a bucket.
        time_span: the largest bucket.
        time_unit: seconds per unit; 0: the row's smallest non-zero gap for linear buckets, a second for log ones.
    """

    def __init__(
        self,
        maxlen: int,
        hidden_units: int,
        num_heads: int,
        dropout_rate: float,
        relation: Relation,
        buckets: Buckets,
        time_span: int,
        time_unit: int,
    ) -> None:
        super().__init__()
        self.relation, self.kind, self.time_span, self.time_unit = relation, buckets, time_span, time_unit
        self.dropout = Dropout(dropout_rate)
        if relation == "embedding":
            self.position_keys = nn.Parameter(torch.empty(maxlen, hidden_units))
            self.position_values = nn.Parameter(torch.empty(maxlen, hidden_units))
            self.interval_keys = nn.Parameter(torch.empty(time_span + 1, hidden_units))
            self.interval_values = nn.Parameter(torch.empty(time_span + 1, hidden_units))
        else:
            self.interval_bias = nn.Parameter(torch.empty(num_heads, time_span + 1))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Set the scalars to zero, so that attention initially ignores time; vectors follow the general rule."""
        if self.relation == "bias":
            self.interval_bias.zero_()

    def forward(
        self, times_P: Tensor, query_times_P: Tensor, lengths_B: Tensor, layout: Layout, causal: bool = True
    ) -> Relations:
        """The relations of a batch.

        Args:
            times_P: seconds of each event, as a key.
            query_times_P: seconds of each event as a query: its own time, or that of the request.
            lengths_B: number of events in each row.
            layout: the batch's rectangles and asked events.
            causal: whether attention is causal.
        """
        buckets, asked = self._buckets(times_P, query_times_P, lengths_B, layout, causal)
        if self.relation == "bias":
            return Relations(buckets, asked, bias_HR=self.interval_bias)
        age_P = layout.age_P
        keys_PD = self.dropout(lookup(self.position_keys, age_P))
        values_PD = self.dropout(lookup(self.position_values, age_P))
        position_PE = torch.cat((torch.zeros_like(keys_PD), keys_PD, values_PD), -1)
        rows = len(lengths_B) if self.training and self.dropout.rate else 1
        keys_BRD, values_BRD = (
            self.dropout(table.expand(rows, -1, -1)) for table in (self.interval_keys, self.interval_values)
        )
        return Relations(buckets, asked, position_PE, keys_BRD, values_BRD)

    @torch.no_grad()
    def _buckets(
        self, times_P: Tensor, query_times_P: Tensor, lengths_B: Tensor, layout: Layout, causal: bool
    ) -> tuple[tuple[StripBuckets, ...], tuple[StripBuckets, ...]]:
        """r_ij by group and strip, for all queries and for the asked ones (empty if all are asked)."""
        if self.time_unit:
            unit_B = torch.full_like(lengths_B, self.time_unit, dtype=torch.float64)
        elif self.kind == "linear":
            unit_B = smallest_gap(times_P, lengths_B)
        else:
            unit_B = torch.ones_like(lengths_B, dtype=torch.float64)
        columns = (times_P.double(), query_times_P.double(), unit_B.repeat_interleave(lengths_B))
        buckets, asked = [], []
        for number, x_GT3 in enumerate(layout.pad(torch.stack(columns, -1))):
            key_G1T, query_GT1, unit_G11 = x_GT3[:, None, :, 0], x_GT3[:, :, None, 1], x_GT3[:, :1, None, 2]
            buckets.append(
                tuple(
                    bucket_of(query_GT1[:, lo:hi] - key_G1T[..., :keys], unit_G11, self.kind, self.time_span)
                    for lo, hi, keys in strips(x_GT3.shape[1], causal)
                )
            )
            if layout.asked is not None:
                query_GA1 = query_GT1.squeeze(2).gather(1, layout.asked.places[number]).unsqueeze(2)
                asked.append((bucket_of(query_GA1 - key_G1T, unit_G11, self.kind, self.time_span),))
        return tuple(buckets), tuple(asked)


class PairRelations(nn.Module):
    """A bias of attention for each head and each pair of the kinds of two events, such as a view after a purchase.

    Args:
        kinds: number of kinds.
        num_heads: H.
    """

    def __init__(self, kinds: int, num_heads: int) -> None:
        super().__init__()
        self.kinds = kinds
        self.pair_bias = nn.Parameter(torch.empty(num_heads, kinds * kinds))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Set the biases to zero, so that attention initially ignores kinds."""
        self.pair_bias.zero_()

    def forward(self, kind_P: Tensor, layout: Layout, causal: bool = True) -> Relations:
        """The relations of a batch, from the kind of each event, 0 .. kinds - 1."""
        buckets, asked = [], []
        for number, kind_GT in enumerate(layout.pad(kind_P)):
            key_G1T, query_GT1 = kind_GT[:, None], kind_GT[:, :, None] * self.kinds
            parts = strips(kind_GT.shape[1], causal)
            buckets.append(tuple(query_GT1[:, lo:hi] + key_G1T[..., :keys] for lo, hi, keys in parts))
            if layout.asked is not None:
                query_GA1 = query_GT1.squeeze(2).gather(1, layout.asked.places[number]).unsqueeze(2)
                asked.append((query_GA1 + key_G1T,))
        return Relations(tuple(buckets), tuple(asked), bias_HR=self.pair_bias)
