"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018).

Suffixes: `P` events of all rows, `Q` asked events, `D` width.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.data.features import parse_features
from ensue.models.base import MODELS, CausalConfig, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.models.tied import TiedEncoder
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import PositionEmbedding, Positions
from ensue.nn.relations import PairRelations
from ensue.nn.relative import RelativePositions
from ensue.nn.rotary import Rotary
from ensue.nn.trunk import Trunk, TrunkConfig


class SASRecConfig(TrunkConfig, CausalConfig):
    """Settings of SASRec; the defaults are the paper's for MovieLens-1M, but with pre-norm."""

    name: Literal["sasrec"] = "sasrec"
    positions: Positions = Field(
        "learned", description="positions, from the newest event; relative: a bias by the distance of two events"
    )
    pair_bias: str | None = Field(
        None, description="one of the features, of events: a bias of attention for each pair of its values"
    )

    @model_validator(mode="after")
    def _check_positions(self) -> Self:
        width = self.hidden_units // self.num_heads
        if self.positions == "rotary" and width % 2:
            raise ValueError(f"positions rotary needs an even hidden_units / num_heads (got {width})")
        if self.positions == "relative":
            self.check_full("positions 'relative'")
        if self.pair_bias is not None:
            self.check_full("biases of pairs")
            if self.positions == "relative":
                raise ValueError("pair_bias and positions 'relative' both add a bias to attention: set one of them")
            if self.pair_bias not in parse_features(self.features):
                raise ValueError(
                    f"pair_bias {self.pair_bias!r} must be one of the features (got {list(self.features)})"
                )
        return self


class SASRec(TiedEncoder):
    """h = trunk(dropout(sqrt(D) E[items] + P[age])), score(h, i) = h . E[i], with tied item vectors.

    Differences from the authors' code: attention has an output projection (as in the widely used PyTorch version);
    `norm="original"` restores their normalisation; dropout rates are rounded to 1/256 on a CPU.
    """

    def __init__(self, config: SASRecConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, config.hidden_units)
        self.scale = config.hidden_units**0.5
        self.positions = PositionEmbedding(config.maxlen, config.hidden_units, config.positions)
        self.dropout = Dropout(config.dropout_rate)
        width = config.hidden_units // config.num_heads
        rotary = Rotary(config.maxlen, width) if config.positions == "rotary" else None
        self.relative = RelativePositions(config.num_heads, config.maxlen) if config.positions == "relative" else None
        self.trunk = Trunk(config, config.maxlen, rotary)
        self.pair_bias = config.pair_bias or ""
        self.pairs = None
        # The memory of a model is checked before its features are known.
        if config.pair_bias is not None and catalogue.features:
            self.pairs = PairRelations(catalogue.event_feature(config.pair_bias).rows, config.num_heads)

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D]."""
        x_PD = self.dropout(self.positions(self.events(batch) * self.scale, batch.layout.age_P))
        relations = None if self.relative is None else self.relative(batch.layout)
        if self.pairs is not None and batch.features is not None:
            relations = self.pairs(batch.features[self.pair_bias], batch.layout)
        h_QD: Tensor = self.trunk(x_PD, batch.layout, relations)
        return h_QD


MODELS.register("sasrec")(ModelEntry(SASRecConfig, SASRec))
