"""The transformer block: attention and a point-wise feed-forward layer, each with normalisation and residual.

Suffixes: `P` events of all rows, `Q` asked events, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.layout import Layout
from ensue.nn.dropout import Dropout
from ensue.nn.ops.relation_terms import Relations
from ensue.nn.residual import Residual, State
from ensue.nn.self_attention import SelfAttention

Norm = Literal["pre", "post", "original"]
Activation = Literal["relu", "gelu", "none"]
Layer = Callable[[Tensor, Tensor], Tensor]
LAYER_NORM_EPS = 1e-8


def identity(x_PD: Tensor) -> Tensor:
    """The same tensor."""
    return x_PD


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "gelu": F.gelu, "none": identity}


class FeedForward(nn.Module):
    """Linear, activation, dropout, linear, dropout, applied to each event: [P, D] -> [P, D] (SASRec, eq. 4)."""

    def __init__(self, hidden_units: int, dropout_rate: float, activation: Activation = "relu") -> None:
        super().__init__()
        self.kind, self.activation = activation, ACTIVATIONS[activation]
        self.inner = nn.Linear(hidden_units, hidden_units)
        self.outer = nn.Linear(hidden_units, hidden_units)
        self.dropout = Dropout(dropout_rate)

    def forward(self, x_PD: Tensor) -> Tensor:
        """Apply to every event."""
        out: Tensor = self.dropout(self.outer(self.dropout(self.activation(self.inner(x_PD)))))
        return out


class Sublayer(NamedTuple):
    """The reading, normalisation and writing of a stream around a layer.

    Attributes:
        norm: where to normalise, see `Block`.
        normalise: the normalisation.
        residual: how the stream is read and written.
    """

    norm: Norm
    normalise: nn.Module
    residual: Residual

    def __call__(self, state: State, layer: Layer, choose: Callable[[Tensor], Tensor] = identity) -> State:
        """The stream at the asked events, from the stream at all events.

        Args:
            state: the stream.
            layer: maps (query_QD, x_PD) to [Q, D].
            choose: picks the asked events, [P, ...] -> [Q, ...].
        """
        x_PD, carry = self.residual.read(state)
        carry = tuple(choose(part) for part in carry)
        if self.norm == "pre":
            normed_PD = self.normalise(x_PD)
            return self.residual.write(carry, layer(choose(normed_PD), normed_PD))
        x_QD = choose(x_PD)
        if self.norm == "post":
            return self.residual.write(carry, self.normalise(x_QD + layer(x_QD, x_PD)), replaces=x_QD)
        normed_QD = self.normalise(x_QD)
        return self.residual.write(carry, normed_QD + layer(normed_QD, x_PD), replaces=x_QD)


class Block(nn.Module):
    """x = x + attention(norm(x)); x = x + feed_forward(norm(x)), where the sum may be any residual.

    Args:
        hidden_units: D.
        attention: the attention layer.
        dropout_rate: in the feed-forward layer.
        norm: where to normalise. `pre`: before each sublayer. `post`: after each sum. `original`: as SASRec's authors
            do, the queries (and the feed-forward layer's input), and the residual adds the normalised value.
        residuals: those of the attention and the feed-forward layer.
        activation: of the feed-forward layer.
    """

    attention_residual: Residual
    feed_forward_residual: Residual

    def __init__(
        self,
        hidden_units: int,
        attention: SelfAttention,
        dropout_rate: float,
        norm: Norm,
        residuals: tuple[Residual, Residual],
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.norm = norm
        self.attention = attention
        self.feed_forward = FeedForward(hidden_units, dropout_rate, activation)
        self.attention_norm = nn.LayerNorm(hidden_units, eps=LAYER_NORM_EPS)
        self.feed_forward_norm = nn.LayerNorm(hidden_units, eps=LAYER_NORM_EPS)
        self.attention_residual, self.feed_forward_residual = residuals

    def forward(self, state: State, layout: Layout, relations: Relations | None = None) -> State:
        """The stream at the asked events, from the stream at all events.

        Args:
            state: the residual's state of the P events.
            layout: the batch's rectangles and asked events.
            relations: relation terms for pairs of events, or None.
        """
        attention = Sublayer(self.norm, self.attention_norm, self.attention_residual)
        feed_forward = Sublayer(self.norm, self.feed_forward_norm, self.feed_forward_residual)
        state = attention(state, lambda query, x: self.attention(query, x, layout, relations), layout.choose)
        return feed_forward(state, lambda x, _: self.feed_forward(x))
