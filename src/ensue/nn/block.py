"""The transformer block: attention and a point-wise feed-forward, each with normalisation and residual."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ensue.batches.layout import Layout
from ensue.nn.attention import CausalSelfAttention
from ensue.nn.dropout import Dropout
from ensue.nn.residual import Carry, PlainResidual

Norm = Literal["pre", "post", "original"]
LAYER_NORM_EPS = 1e-8


class FeedForward(nn.Module):
    """Linear - ReLU - dropout - linear - dropout, on each event alone: [P, D] -> [P, D] (SASRec, eq. 4)."""

    def __init__(self, hidden_units: int, dropout_rate: float) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_units, hidden_units)
        self.outer = nn.Linear(hidden_units, hidden_units)
        self.dropout = Dropout(dropout_rate)

    def forward(self, x_PD: Tensor) -> Tensor:
        """Apply to every event."""
        out: Tensor = self.dropout(self.outer(self.dropout(self.inner(x_PD).relu_())))
        return out


class Block(nn.Module):
    """Two sublayers: read from the stream, normalise, transform, write back.

    `norm` says where: `pre` before each sublayer; `post` after each write; `original` as SASRec's authors do,
    where the queries (and the feed-forward's input) are normalised and the residual adds the normalised value.
    """

    def __init__(self, hidden_units: int, num_heads: int, dropout_rate: float, norm: Norm = "pre") -> None:
        super().__init__()
        self.norm = norm
        self.attention = CausalSelfAttention(hidden_units, num_heads, dropout_rate)
        self.feed_forward = FeedForward(hidden_units, dropout_rate)
        self.attention_norm = nn.LayerNorm(hidden_units, eps=LAYER_NORM_EPS)
        self.feed_forward_norm = nn.LayerNorm(hidden_units, eps=LAYER_NORM_EPS)
        self.attention_residual = PlainResidual()
        self.feed_forward_residual = PlainResidual()

    def forward(self, state: Tensor, layout: Layout, newest: bool = False) -> Tensor:
        """Map the stream at all events to the stream at all events, or at each row's newest event alone.

        Args:
            state: the stream, [P, ...].
            layout: the batch's rectangles.
            newest: return the stream of the newest events, [B, ...]; the last block of a query needs no other.
        """
        x_PD, carry = self.attention_residual.read(state)
        if self.norm == "original":
            query_PD = self.attention_norm(x_PD)
            y_PD, carry = self.attention(x_PD, layout, newest, query_PD), (query_PD,)
        else:
            y_PD = self.attention(self.attention_norm(x_PD) if self.norm == "pre" else x_PD, layout, newest)
        state = self.attention_residual.write(_choose(carry, layout.last_B) if newest else carry, y_PD)
        if self.norm == "post":
            state = self.attention_norm(state)

        x_PD, carry = self.feed_forward_residual.read(state)
        if self.norm == "original":
            x_PD = self.feed_forward_norm(x_PD)
            carry = (x_PD,)
        y_PD = self.feed_forward(self.feed_forward_norm(x_PD) if self.norm == "pre" else x_PD)
        state = self.feed_forward_residual.write(carry, y_PD)
        return self.feed_forward_norm(state) if self.norm == "post" else state


def _choose(carry: Carry, events: Tensor) -> Carry:
    return tuple(part.index_select(0, events) for part in carry)
