"""The trunk that every transformer model shares: blocks along one residual stream, and a final normalisation."""

from __future__ import annotations

from typing import cast

from pydantic import Field, model_validator
from torch import Tensor, nn

from ensue.batches.layout import Layout
from ensue.config import Config
from ensue.nn.block import LAYER_NORM_EPS, Block, Norm
from ensue.nn.hyper_connections import MAX_STREAMS_OF_PERMUTATIONS, HyperConnection
from ensue.nn.ops.time_attention import Relations
from ensue.nn.residual import GatedResidual, PlainResidual, Residual, ResidualName
from ensue.nn.rotary import Rotary


class TrunkConfig(Config):
    """Settings of the trunk; the defaults are SASRec's for MovieLens-1M, with pre-norm."""

    hidden_units: int = Field(50, ge=1, description="width of item vectors and states")
    num_blocks: int = Field(2, ge=1, description="transformer blocks")
    num_heads: int = Field(1, ge=1, description="attention heads; divides hidden_units")
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="dropout on embeddings, attention and feed-forward")
    norm: Norm = Field("pre", description="where layers are normalised: pre, post, or original (the authors' form)")
    residual: ResidualName = Field("plain", description="how sublayers join the stream; mhc: manifold-constrained")
    mhc_expansion_rate: int = Field(4, ge=2, le=16, description="residual streams of hc, mhc and mhc_lite")
    mhc_sinkhorn_iter: int = Field(20, ge=1, description="mhc: Sinkhorn iterations")

    @model_validator(mode="after")
    def _check_trunk(self) -> TrunkConfig:
        if self.hidden_units % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide hidden_units {self.hidden_units}")
        if self.residual == "mhc_lite" and self.mhc_expansion_rate > MAX_STREAMS_OF_PERMUTATIONS:
            raise ValueError(
                f"mhc_expansion_rate must be at most {MAX_STREAMS_OF_PERMUTATIONS} for residual mhc_lite, which weighs "
                f"all permutations of the streams (got {self.mhc_expansion_rate})"
            )
        return self


def make_residual(config: TrunkConfig, sublayer: int) -> nn.Module:
    """The residual of a sublayer; it keeps the `Residual` protocol.

    Args:
        config: which one, and its settings.
        sublayer: number of the sublayer in the trunk, two to a block.
    """
    if config.residual == "plain":
        return PlainResidual()
    if config.residual == "gated":
        return GatedResidual(config.hidden_units)
    streams, iterations = config.mhc_expansion_rate, config.mhc_sinkhorn_iter
    return HyperConnection(config.hidden_units, streams, config.residual, iterations, sublayer)


class Trunk(nn.Module):
    """Events [P, D] to states [P, D], or to the states of each row's newest event, [B, D].

    Args:
        config: the settings.
        rotary: what turns queries and keys by their age, if anything does.
    """

    def __init__(self, config: TrunkConfig, rotary: Rotary | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(
                config.hidden_units,
                config.num_heads,
                config.dropout_rate,
                config.norm,
                (make_residual(config, 2 * number), make_residual(config, 2 * number + 1)),
                rotary,
            )
            for number in range(config.num_blocks)
        )
        self.norm = nn.LayerNorm(config.hidden_units, eps=LAYER_NORM_EPS)

    def forward(self, x_PD: Tensor, layout: Layout, newest: bool = False, relations: Relations | None = None) -> Tensor:
        """Run the blocks.

        Args:
            x_PD: the events.
            layout: the batch's rectangles.
            newest: return each row's newest event alone; the last block then works for those alone.
            relations: what attention knows of pairs of events beside their states.
        """
        ends = cast(Residual, self.blocks[0].attention_residual)
        state = ends.open(x_PD)
        for block in self.blocks[:-1]:
            state = block(state, layout, False, relations)
        state = self.blocks[-1](state, layout, newest, relations)
        h_XD: Tensor = self.norm(ends.close(state))
        return h_XD
