"""The trunk shared by all transformer models: blocks on one residual stream, and a final normalisation.

Suffixes: `P` events of all rows, `Q` asked events, `D` width.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from ensue.batches.layout import Layout
from ensue.config import Config
from ensue.nn.attention import AttentionConfig, Heads
from ensue.nn.block import LAYER_NORM_EPS, Activation, Block, Norm
from ensue.nn.hyper_connections import MAX_STREAMS_OF_PERMUTATIONS
from ensue.nn.native_trunk import native_states
from ensue.nn.ops.relation_terms import Relations
from ensue.nn.residual import RESIDUALS
from ensue.nn.rotary import Rotary
from ensue.nn.self_attention import SelfAttention


class HeadedConfig(Config):
    """Settings of a model with attention heads, which have equal parts of the width."""

    hidden_units: int = Field(50, ge=1, description="width of item vectors and states")
    num_heads: int = Field(1, ge=1, description="attention heads; divides hidden_units")

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.hidden_units % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide hidden_units {self.hidden_units}")
        return self


class TrunkConfig(HeadedConfig, AttentionConfig):
    """Settings of the trunk; the defaults are SASRec's for MovieLens-1M, but with pre-norm."""

    num_blocks: int = Field(2, ge=1, description="transformer blocks")
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="dropout on embeddings, attention and feed-forward")
    norm: Norm = Field("pre", description="where layers are normalised: pre, post, or original (the authors' form)")
    activation: Activation = Field("relu", description="activation of the feed-forward layers; none: linear")
    residual: Annotated[str, RESIDUALS] = Field(
        "plain", description="how sublayers are added to the stream; mhc: manifold-constrained"
    )
    mhc_expansion_rate: int = Field(4, ge=2, le=16, description="residual streams of hc, mhc and mhc_lite")
    mhc_sinkhorn_iter: int = Field(20, ge=1, description="mhc: Sinkhorn iterations")

    @model_validator(mode="after")
    def _check_trunk(self) -> Self:
        if self.residual == "mhc_lite" and self.mhc_expansion_rate > MAX_STREAMS_OF_PERMUTATIONS:
            raise ValueError(
                f"mhc_expansion_rate must be at most {MAX_STREAMS_OF_PERMUTATIONS} for residual mhc_lite, which has a "
                f"weight for each permutation of the streams (got {self.mhc_expansion_rate})"
            )
        return self


class Trunk(nn.Module):
    """From events [P, D] to the states of the asked events, [Q, D].

    Args:
        config: the settings.
        maxlen: number of events of the longest row.
        rotary: rotates queries and keys by their age, for rotary positions.
        causal: whether an event sees only itself and the events before it, or all events of its row.
    """

    def __init__(self, config: TrunkConfig, maxlen: int, rotary: Rotary | None = None, causal: bool = True) -> None:
        super().__init__()
        width, heads, rate = config.hidden_units, config.num_heads, config.dropout_rate
        entry = RESIDUALS[config.residual]
        self.stream = entry.stream(config)
        self.blocks = nn.ModuleList()
        for number in range(config.num_blocks):
            kind = config.attend(Heads(heads, width // heads, rate, causal, maxlen, number))
            attention = SelfAttention(width, heads, rate, rotary, causal, kind)
            residuals = entry.residual(config, 2 * number), entry.residual(config, 2 * number + 1)
            self.blocks.append(Block(width, attention, rate, config.norm, residuals, config.activation))
        self.norm = nn.LayerNorm(config.hidden_units, eps=LAYER_NORM_EPS)
        self.parts = tuple(self.modules())

    def forward(self, x_PD: Tensor, layout: Layout, relations: Relations | None = None) -> Tensor:
        """States at the asked events, [Q, D]; all blocks but the last compute those of all events.

        Args:
            x_PD: the events.
            layout: the batch's rectangles and asked events.
            relations: relation terms for pairs of events, or None.
        """
        native_QD = native_states(self, x_PD, layout, relations)
        if native_QD is not None:
            return native_QD
        state = self.stream.open(x_PD)
        for block in self.blocks[:-1]:
            state = block(state, layout.everything, relations)
        state = self.blocks[-1](state, layout, relations)
        h_QD: Tensor = self.norm(self.stream.close(state))
        return h_QD
