"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.models.base import MODELS, ModelConfig, ModelEntry
from ensue.nn.block import LAYER_NORM_EPS, Block, Norm
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import ItemEmbedding, PositionEmbedding, Positions
from ensue.nn.residual import PlainResidual


class SASRecConfig(ModelConfig):
    """Settings of SASRec; the defaults are the paper's for MovieLens-1M, with pre-norm."""

    name: Literal["sasrec"] = "sasrec"
    hidden_units: int = Field(50, ge=1, description="width of item vectors and states")
    num_blocks: int = Field(2, ge=1, description="transformer blocks")
    num_heads: int = Field(1, ge=1, description="attention heads; divides hidden_units")
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="dropout on embeddings, attention and feed-forward")
    norm: Norm = Field("pre", description="where layers are normalised: pre, post, or original (the authors' form)")
    positions: Positions = Field("learned", description="position vectors, counted from the newest event")

    @model_validator(mode="after")
    def _check(self) -> SASRecConfig:
        if self.hidden_units % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide hidden_units {self.hidden_units}")
        return self


class SASRec(nn.Module):
    """h = trunk(dropout(sqrt(D) E[items] + P[age])), score(h, i) = h . E[i], with tied item vectors.

    Where we differ from the authors' code: attention has an output projection (as the widely used PyTorch version);
    `norm="original"` restores their normalisation; dropout rates are rounded to 1/256 on a CPU.
    """

    def __init__(self, config: SASRecConfig, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.maxlen = config.maxlen
        self.scale = config.hidden_units**0.5
        self.items = ItemEmbedding(num_items, config.hidden_units)
        self.positions = PositionEmbedding(config.maxlen, config.hidden_units, config.positions)
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(
            Block(config.hidden_units, config.num_heads, config.dropout_rate, config.norm)
            for _ in range(config.num_blocks)
        )
        self.residual = PlainResidual()
        self.norm = nn.LayerNorm(config.hidden_units, eps=LAYER_NORM_EPS)

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at all events, [P, D]."""
        return self._trunk(batch, newest=False)

    def query(self, batch: SequenceBatch) -> Tensor:
        """States at each row's newest event, [B, D]; the last block works for those events alone."""
        return self._trunk(batch, newest=True)

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Vectors of `items`, [..., D], or of the whole catalogue, [N, D]."""
        if items is None:
            return self.items.catalogue()
        vectors: Tensor = self.items(items)
        return vectors

    def score(self, batch: SequenceBatch, items_BC: Tensor | None = None) -> Tensor:
        """Inner products of the query with the candidates: [B, C], or [B, N] for the whole catalogue."""
        query_BD = self.query(batch)
        if items_BC is None:
            return query_BD @ self.item_vectors().T
        return torch.einsum("bd,bcd->bc", query_BD, self.item_vectors(items_BC))

    def _trunk(self, batch: SequenceBatch, newest: bool) -> Tensor:
        layout = batch.layout
        x_PD = self.dropout(self.positions(self.items(batch.items_P) * self.scale, layout.age_P))
        state = self.residual.open(x_PD)
        for block in self.blocks[:-1]:
            state = block(state, layout)
        state = self.blocks[-1](state, layout, newest)
        h_XD: Tensor = self.norm(self.residual.close(state))
        return h_XD


MODELS.register("sasrec")(ModelEntry(SASRecConfig, SASRec))
