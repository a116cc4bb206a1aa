"""TiSASRec: time interval aware self-attention (Li, Wang & McAuley, WSDM 2020), with extensions.

Suffixes: `B` rows, `P` events of all rows, `Q` asked events, `D` width.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.models.base import MODELS, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.models.tied import TiedEncoder
from ensue.models.timed import TimedConfig
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import PositionEmbedding, lookup
from ensue.nn.relations import Buckets, Relation, TimeRelations, bucket_of
from ensue.nn.trunk import Trunk, TrunkConfig

GAP_BUCKETS = 63
IntervalUnit = Literal["seconds", "smallest gaps", "events"]


class TiSASRecConfig(TrunkConfig, TimedConfig):
    """Settings of TiSASRec; by default the paper's intervals with SASRec's trunk."""

    name: Literal["tisasrec"] = "tisasrec"
    time_span: int = Field(256, ge=1, description="the largest interval bucket; longer intervals count as this one")
    time_unit: int = Field(
        0, ge=0, description="seconds per unit of the intervals; 0: the smallest gap among the events read"
    )
    relation: Relation = Field("embedding", description="embedding: the paper's vectors; bias: a scalar per bucket")
    buckets: Buckets = Field("linear", description="mapping of intervals to buckets: linear as in the paper, or log")

    @model_validator(mode="after")
    def _check_attention(self) -> Self:
        self.check_full("model tisasrec reads intervals between events, which")
        return self


class TiSASRec(TiedEncoder):
    """h = trunk(dropout(sqrt(D) E[items])) with attention that reads positions and intervals; tied item vectors.

    Extensions of the paper: `relation="bias"` replaces the interval vectors by HSTU's scalar per head and bucket, with
    SASRec's positions at the input. `query_time` measures intervals from the time of the request (in training, that of
    the next event), and adds a vector for the gap to it at the input. With `query_time` the model reads the target's
    timestamp, so its figures have a separate protocol name.

    Differences from the authors' code: attention has an output projection; `norm="original"` is their normalisation;
    dropout on interval vectors is drawn per row and bucket, not per pair of events; the unit of a row's intervals is
    the smallest gap among the events of that row, without held-out events.
    """

    def __init__(self, config: TiSASRecConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, config.hidden_units, config.query_time)
        self.scale = config.hidden_units**0.5
        self.time, self.times_of = config.time, config.times_of
        self.relations = TimeRelations(
            config.maxlen,
            config.hidden_units,
            config.num_heads,
            config.dropout_rate,
            config.relation,
            config.buckets,
            config.time_span,
            config.time_unit if config.time == "timestamps" else 1,
        )
        kind: Literal["learned", "none"] = "learned" if config.relation == "bias" else "none"
        self.positions = PositionEmbedding(config.maxlen, config.hidden_units, kind)
        self.gaps = nn.Parameter(torch.empty(GAP_BUCKETS + 1, config.hidden_units)) if config.query_time else None
        self.dropout = Dropout(config.dropout_rate)
        self.trunk = Trunk(config, config.maxlen)

    @property
    def interval_unit(self) -> tuple[int, IntervalUnit]:
        """The unit of the intervals, such as 3600 seconds."""
        if self.time == "order":
            return 1, "events"
        unit, kind = self.relations.time_unit, self.relations.kind
        return (1, "smallest gaps") if kind == "linear" and not unit else (unit or 1, "seconds")

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D].

        Raises:
            DataError: the model reads times of events or of requests, but the batch does not have them.
        """
        times_P, query_times_P = self.times_of(batch)
        x_PD = self.positions(self.events(batch) * self.scale, batch.layout.age_P)
        if self.gaps is not None:
            gap_P = bucket_of((query_times_P - times_P).double(), torch.ones_like(times_P[:1]), "log", GAP_BUCKETS)
            x_PD = x_PD + lookup(self.gaps, gap_P)
        relations = self.relations(times_P, query_times_P, batch.lengths_B, batch.layout)
        h_QD: Tensor = self.trunk(self.dropout(x_PD), batch.layout, relations)
        return h_QD


MODELS.register("tisasrec")(ModelEntry(TiSASRecConfig, TiSASRec))
