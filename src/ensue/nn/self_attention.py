"""The attention layer: attention with its projections.

Suffixes: `P` events of all rows, `Q` asked events, `D` width, `E` queries, keys and values side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.layout import Layout
from ensue.nn.attention import FullAttention, Heads
from ensue.nn.ops.relation_terms import Relations
from ensue.nn.rotary import Rotary


class SelfAttention(nn.Module):
    """Multi-head self-attention with output projection: [P, D] -> [Q, D].

    Args:
        hidden_units: D.
        num_heads: heads; divides D.
        dropout_rate: on the attention weights.
        rotary: rotates queries and keys by their age.
        causal: whether an event sees only itself and the events before it, or all events of its row.
        kind: which events see which, an entry of `nn.attention.ATTENTIONS`; by default the full attention.
    """

    def __init__(
        self,
        hidden_units: int,
        num_heads: int,
        dropout_rate: float,
        rotary: Rotary | None = None,
        causal: bool = True,
        kind: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.causal = causal
        self.heads = Heads(num_heads, hidden_units // num_heads, dropout_rate, causal)
        self.kind = kind or FullAttention(self.heads)
        self.qkv = nn.Linear(hidden_units, 3 * hidden_units)
        self.out = nn.Linear(hidden_units, hidden_units)
        self.rotary = rotary

    def forward(self, query_QD: Tensor, x_PD: Tensor, layout: Layout, relations: Relations | None = None) -> Tensor:
        """Attend from the asked events.

        Args:
            query_QD: input of the queries, at the asked events; often `x_PD` itself.
            x_PD: input of the keys and values, at all events.
            layout: the batch's rectangles and asked events.
            relations: relation terms for pairs of events, or None.

        Returns:
            [Q, D].
        """
        q_QD, packed_PE = self.project(query_QD, x_PD, layout)
        attended: Tensor = self.out(self.kind(packed_PE, layout, relations, q_QD))
        return attended

    def project(self, query_QD: Tensor, x_PD: Tensor, layout: Layout) -> tuple[Tensor | None, Tensor]:
        """The projected arguments of the attention; the arguments are those of `forward`.

        Returns:
            If `query_QD` is `x_PD`: None, and queries, keys and values side by side, [P, 3 D], from one product.
            Otherwise: the queries, [Q, D], and keys and values side by side, [P, 2 D].
        """
        if query_QD is x_PD:
            return None, self._turned(self.qkv(x_PD), layout.age_P)
        width = x_PD.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q_QD = F.linear(query_QD, weight[:width], bias[:width])
        if self.rotary is not None:
            q_QD = self.rotary(q_QD, layout.choose(layout.age_P))
        return q_QD, self._turned(F.linear(x_PD, weight[width:], bias[width:]), layout.age_P)

    def _turned(self, packed_PE: Tensor, age_P: Tensor) -> Tensor:
        """The packed values with queries and keys rotated by age; the values, which are last, stay."""
        if self.rotary is None:
            return packed_PE
        turned, values = packed_PE.tensor_split([-self.out.in_features], 1)
        return torch.cat((self.rotary(turned, age_P), values), 1)
