"""The attention layer: projections around causal attention, plain or with relations between events."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.layout import Group, Layout
from ensue.nn.ops.attention import causal_attention, newest_attention
from ensue.nn.ops.time_attention import Relations, newest_time_attention, time_attention
from ensue.nn.rotary import Rotary


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention with output projection: [P, D] -> [P, D]."""

    def __init__(self, hidden_units: int, num_heads: int, dropout_rate: float, rotary: Rotary | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout_rate = dropout_rate
        self.qkv = nn.Linear(hidden_units, 3 * hidden_units)
        self.out = nn.Linear(hidden_units, hidden_units)
        self.rotary = rotary

    def forward(
        self,
        x_PD: Tensor,
        layout: Layout,
        newest: bool = False,
        query_PD: Tensor | None = None,
        relations: Relations | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x_PD: the events, [P, D].
            layout: the batch's rectangles.
            newest: compute the output of each row's newest event alone.
            query_PD: what the queries are made of, where it is not `x_PD` (SASRec's own normalisation).
            relations: what is known of pairs of events beside their states.

        Returns:
            [P, D]; with `newest`, [B, D].
        """
        qkv_PE = self.project(x_PD, layout, query_PD)
        rate = self.dropout_rate if self.training else 0.0
        if relations is not None:
            if newest:
                return self._output(newest_time_attention(qkv_PE, layout, relations, self.num_heads))
            return self._output(time_attention(qkv_PE, layout, relations, self.num_heads, rate))
        if newest:
            rectangles = zip(layout.pad(qkv_PE), layout.groups, strict=True)
            return self._output(layout.join_rows([self._newest(x, group) for x, group in rectangles]))
        return self._output(causal_attention(qkv_PE, layout, self.num_heads, rate))

    def project(self, x_PD: Tensor, layout: Layout, query_PD: Tensor | None = None) -> Tensor:
        """Queries, keys and values of all events beside each other, [P, 3 D]; arguments as in `forward`."""
        if query_PD is None:
            qkv_PE: Tensor = self.qkv(x_PD)
        else:
            width = x_PD.shape[-1]
            weight, bias = self.qkv.weight, self.qkv.bias
            query = F.linear(query_PD, weight[:width], bias[:width])
            qkv_PE = torch.cat((query, F.linear(x_PD, weight[width:], bias[width:])), -1)
        if self.rotary is not None:
            qkv_PE = self.rotary(qkv_PE, layout.age_P)
        return qkv_PE

    def _heads(self, x_GTD: Tensor) -> Tensor:
        rows, width, _ = x_GTD.shape
        return x_GTD.view(rows, width, self.num_heads, -1).transpose(1, 2)

    def _newest(self, qkv_GTD: Tensor, group: Group) -> Tensor:
        q, k, v = (self._heads(x) for x in qkv_GTD.chunk(3, -1))
        rows = torch.arange(group.rows, device=q.device)
        return newest_attention(q[rows, :, group.length_G - 1], k, v, group.length_G).flatten(1)

    def _output(self, x_PD: Tensor) -> Tensor:
        projected: Tensor = self.out(x_PD)
        return projected
