"""The transformer block: attention and a point-wise feed-forward, each with normalisation and residual."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from ensue.batches.layout import Layout
from ensue.nn.dropout import Dropout
from ensue.nn.ops.time_attention import Relations
from ensue.nn.residual import Residual, State
from ensue.nn.rotary import Rotary
from ensue.nn.self_attention import CausalSelfAttention

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

    `norm` says where layers are normalised: `pre` before each sublayer; `post` after each write; `original` as SASRec's
    authors do: the queries (and the feed-forward's input) are normalised, and the residual adds the normalised value.
    """

    def __init__(
        self,
        hidden_units: int,
        num_heads: int,
        dropout_rate: float,
        norm: Norm,
        residuals: tuple[nn.Module, nn.Module],
        rotary: Rotary | None = None,
    ) -> None:
        super().__init__()
        self.style = norm
        self.attention = CausalSelfAttention(hidden_units, num_heads, dropout_rate, rotary)
        self.feed_forward = FeedForward(hidden_units, dropout_rate)
        self.attention_norm = nn.LayerNorm(hidden_units, eps=LAYER_NORM_EPS)
        self.feed_forward_norm = nn.LayerNorm(hidden_units, eps=LAYER_NORM_EPS)
        self.attention_residual, self.feed_forward_residual = residuals

    def forward(self, state: State, layout: Layout, newest: bool = False, relations: Relations | None = None) -> State:
        """Map the stream at all events to the stream at all events, or at each row's newest event alone.

        Args:
            state: what the residual keeps of P events.
            layout: the batch's rectangles.
            newest: return the state of the B newest events; the last block of a query needs no other.
            relations: what attention knows of pairs of events beside their states.
        """
        residual = cast(Residual, self.attention_residual)
        x_PD, carry = residual.read(state)
        normed_PD = x_PD if self.style == "post" else self.attention_norm(x_PD)
        if self.style == "original":
            y_PD = self.attention(x_PD, layout, newest, normed_PD, relations)
        else:
            y_PD = self.attention(normed_PD, layout, newest, None, relations)
        if newest:
            carry = tuple(part.index_select(0, layout.last_B) for part in carry)
            x_PD, normed_PD = (part.index_select(0, layout.last_B) for part in (x_PD, normed_PD))
        state = self._join(residual, self.attention_norm, carry, y_PD, x_PD, normed_PD)

        residual = cast(Residual, self.feed_forward_residual)
        x_PD, carry = residual.read(state)
        normed_PD = x_PD if self.style == "post" else self.feed_forward_norm(x_PD)
        y_PD = self.feed_forward(normed_PD)
        return self._join(residual, self.feed_forward_norm, carry, y_PD, x_PD, normed_PD)

    def _join(
        self, residual: Residual, norm: nn.Module, carry: State, y_PD: Tensor, x_PD: Tensor, normed_PD: Tensor
    ) -> State:
        if self.style == "pre":
            return residual.write(carry, y_PD)
        whole_PD = norm(x_PD + y_PD) if self.style == "post" else normed_PD + y_PD
        return residual.write(carry, whole_PD, replaces=x_PD)
