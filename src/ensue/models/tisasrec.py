"""TiSASRec: time interval aware self-attention (Li, Wang & McAuley, WSDM 2020), with extensions."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.errors import DataError
from ensue.models.base import MODELS, CausalConfig, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.models.tied import TiedEncoder
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import PositionEmbedding, lookup
from ensue.nn.relations import Buckets, Relation, TimeRelations, bucket_of
from ensue.nn.trunk import Trunk, TrunkConfig

GAP_BUCKETS = 63
IntervalUnit = Literal["seconds", "smallest gaps", "events"]


class TiSASRecConfig(TrunkConfig, CausalConfig):
    """Settings of TiSASRec; by default the paper's intervals with SASRec's trunk."""

    name: Literal["tisasrec"] = "tisasrec"
    time_span: int = Field(256, ge=1, description="the largest interval bucket; longer intervals count as this one")
    time_unit: int = Field(
        0, ge=0, description="seconds per unit of the intervals; 0: the smallest gap among the events read"
    )
    time: Literal["timestamps", "order"] = Field("timestamps", description="order: intervals count events, not seconds")
    relation: Relation = Field("embedding", description="embedding: the paper's vectors; bias: a scalar per bucket")
    buckets: Buckets = Field("linear", description="mapping of intervals to buckets: linear as in the paper, or log")
    query_time: bool = Field(False, description="measure intervals from the request's time, not from the last event")

    @property
    def reads_query_time(self) -> bool:
        """The value of `query_time`."""
        return self.query_time

    @property
    def reads_times(self) -> bool:
        """True unless intervals count events."""
        return self.time == "timestamps"

    @model_validator(mode="after")
    def _check_time(self) -> Self:
        if self.query_time and self.time == "order":
            raise ValueError("query_time needs time = 'timestamps' (got 'order')")
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
        self.time = config.time
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
        self.trunk = Trunk(config)

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
        times_P, query_times_P = self._times(batch)
        x_PD = self.positions(self.items(batch.items_P) * self.scale, batch.layout.age_P)
        if self.gaps is not None:
            gap_P = bucket_of((query_times_P - times_P).double(), torch.ones_like(times_P[:1]), "log", GAP_BUCKETS)
            x_PD = x_PD + lookup(self.gaps, gap_P)
        relations = self.relations(times_P, query_times_P, batch.lengths_B, batch.layout)
        h_QD: Tensor = self.trunk(self.dropout(x_PD), batch.layout, relations)
        return h_QD

    def _times(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """The times of the events as keys, and their times as queries."""
        if self.time == "order":
            times_P = -batch.layout.age_P
            return times_P, times_P
        if batch.times_P is None:
            raise DataError(
                "model tisasrec needs times of events, but there are none: give them (times=, --times), or train with "
                "time = 'order' (--time order), so that intervals count events"
            )
        if not self.query_time:
            return batch.times_P, batch.times_P
        if batch.query_times_P is None:
            raise DataError("this model was trained with query_time: give the time of the request (at=, --at)")
        return batch.times_P, batch.query_times_P


MODELS.register("tisasrec")(ModelEntry(TiSASRecConfig, TiSASRec))
