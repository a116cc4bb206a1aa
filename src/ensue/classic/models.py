"""SASRec and TiSASRec as SASRec.pytorch and TiSASRec.pytorch compute them, padding included.

Those programs pad every history on the left to `maxlen` with item 0 and mask only the future. Events therefore attend
to the padding before them, and the scores of a short history depend on the amount of padding. Weights trained in this
way need the same computation to give the same scores; new models do not need it.

Suffixes: `B` rows, `P` events of all rows (padding included in filled rows), `Q` asked events, `D` width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import make_layout
from ensue.errors import DataError
from ensue.models.base import MODELS, ModelConfig, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.models.tied import TiedEncoder
from ensue.models.tisasrec import IntervalUnit
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import PositionEmbedding
from ensue.nn.ops.relation_terms import Relations
from ensue.nn.relations import TimeRelations, smallest_gap
from ensue.nn.trunk import Trunk, TrunkConfig


@dataclass(frozen=True, slots=True)
class Filled:
    """A batch whose rows are filled on the left to one length.

    Attributes:
        batch: item 0 (and time 0) stands for padding; [B maxlen] events in all.
        cell_P: the event number of each real event among the filled rows.
        real: 1.0 for real events and 0.0 for padding, float32 [B maxlen, 1].
    """

    batch: SequenceBatch
    cell_P: Tensor
    real: Tensor


def fill_left(batch: SequenceBatch, maxlen: int) -> Filled:
    """Fill every row of a batch on the left with item 0; the asked events stay the same.

    Args:
        batch: rows of at most `maxlen` events.
        maxlen: the length of all rows after filling.
    """
    rows = len(batch.lengths_B)
    row_P = torch.arange(rows, device=batch.items_P.device).repeat_interleave(batch.lengths_B)
    cell_P = row_P * maxlen + (maxlen - 1) - batch.layout.age_P

    def spread(values_P: Tensor) -> Tensor:
        return values_P.new_zeros(rows * maxlen).index_copy_(0, cell_P, values_P)

    asked_Q = cell_P[batch.asked_Q]
    # If all events are asked, as in training, it is cheaper to compute the padding too and to drop it at the end.
    asks_all = batch.layout.asked is None
    filled = SequenceBatch(
        spread(batch.items_P),
        torch.full_like(batch.lengths_B, maxlen),
        make_layout(np.full(rows, maxlen), None if asks_all else asked_Q.cpu().numpy()).to(batch.items_P.device),
        asked_Q,
        batch.row_Q,
        times_P=None if batch.times_P is None else spread(batch.times_P),
    )
    real = torch.zeros(rows * maxlen, 1, device=cell_P.device).index_fill_(0, cell_P, 1.0)
    return Filled(filled, cell_P, real)


def padded_states(
    trunk: Trunk, x_PD: Tensor, filled: Filled, clear: bool, relations: Relations | None = None
) -> Tensor:
    """The trunk over filled rows: the states of the asked events, [Q, D].

    Args:
        trunk: the blocks and the final normalisation.
        x_PD: the trunk's input for all events of the filled rows.
        filled: the rows.
        clear: set the states of padding to zero before every block instead of only before the first.
        relations: for attention.
    """
    state, layout = trunk.stream.open(x_PD * filled.real), filled.batch.layout
    last = len(trunk.blocks) - 1
    for number, block in enumerate(trunk.blocks):
        state = block(state, layout if number == last else layout.everything, relations)
        if clear and number < last:
            # A stream is zero where all parts of its state are zero.
            state = tuple(part * filled.real.view(-1, *(1 for _ in part.shape[1:])) for part in state)
    h_QD: Tensor = trunk.norm(trunk.stream.close(state))
    return h_QD if layout.asked is not None else h_QD.index_select(0, filled.cell_P)


class PaddedSASRecConfig(TrunkConfig, ModelConfig):
    """Settings of SASRec with attended padding."""

    name: Literal["sasrec-padded"] = "sasrec-padded"
    clear_padding: bool = Field(False, description="set states of padding to zero before every block (code of 2020)")


class PaddedSASRec(TiedEncoder):
    """SASRec as SASRec.pytorch computes it: padding takes part in attention and starts as the zero vector.

    Source: github.com/pmixer/SASRec.pytorch; Kang & McAuley, ICDM 2018. Its code of 2020 (`clear_padding`) sets
    the padding to zero before every block; later code lets the padding pass through the blocks.
    """

    def __init__(self, config: PaddedSASRecConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, config.hidden_units)
        self.scale = config.hidden_units**0.5
        self.clear = config.clear_padding
        self.positions = PositionEmbedding(config.maxlen, config.hidden_units, "learned")
        self.dropout = Dropout(config.dropout_rate)
        self.trunk = Trunk(config, config.maxlen)

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D]."""
        filled = fill_left(batch, self.maxlen)
        x_PD = self.positions(self.items(filled.batch.items_P) * self.scale, filled.batch.layout.age_P)
        return padded_states(self.trunk, self.dropout(x_PD), filled, self.clear)


class PaddedTiSASRecConfig(TrunkConfig, ModelConfig):
    """Settings of TiSASRec with attended padding."""

    name: Literal["tisasrec-padded"] = "tisasrec-padded"
    time_span: int = Field(256, ge=1, description="the largest interval; longer ones count as this one")
    time_unit: int = Field(
        0, ge=0, description="seconds per unit of the intervals; 0: the smallest gap among the events read"
    )

    @model_validator(mode="after")
    def _check_attention(self) -> Self:
        self.check_full("model tisasrec-padded reads intervals between events, which")
        return self

    @property
    def reads_times(self) -> bool:
        """Always."""
        return True


class PaddedTiSASRec(TiedEncoder):
    """TiSASRec as TiSASRec.pytorch computes it.

    Source: github.com/pmixer/TiSASRec.pytorch; Li, Wang & McAuley, WSDM 2020. The states of padding are zero before
    every block, but padding takes part in attention, with its own position vectors and at time 0. The time of an event
    is round((t - t of the row's first event) / unit) + 1. In that program the unit is the smallest gap in the user's
    whole history, including held-out events; here it is the smallest gap among the newest `maxlen` events, or
    `time_unit`.
    """

    def __init__(self, config: PaddedTiSASRecConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, config.hidden_units)
        self.scale = config.hidden_units**0.5
        self.time_unit = config.time_unit
        self.relations = TimeRelations(
            config.maxlen,
            config.hidden_units,
            config.num_heads,
            config.dropout_rate,
            "embedding",
            "linear",
            config.time_span,
            1,
        )
        self.dropout = Dropout(config.dropout_rate)
        self.trunk = Trunk(config, config.maxlen)

    @property
    def interval_unit(self) -> tuple[int, IntervalUnit]:
        """The unit of the intervals, such as 3600 seconds; the relations only see intervals in this unit."""
        return (self.time_unit, "seconds") if self.time_unit else (1, "smallest gaps")

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D].

        Raises:
            DataError: the batch has no times.
        """
        if batch.times_P is None:
            raise DataError("model tisasrec-padded needs times of events, but this data has none")
        filled = fill_left(self._in_units(batch, batch.times_P), self.maxlen)
        inner = filled.batch
        x_PD = self.dropout(self.items(inner.items_P) * self.scale)
        assert inner.times_P is not None
        relations = self.relations(inner.times_P, inner.times_P, inner.lengths_B, inner.layout)
        return padded_states(self.trunk, x_PD, filled, True, relations)

    def _in_units(self, batch: SequenceBatch, times_P: Tensor) -> SequenceBatch:
        """The batch with times in units, counted from 1."""
        lengths_B = batch.lengths_B
        first_P = times_P[lengths_B.cumsum(0) - lengths_B].repeat_interleave(lengths_B)
        unit_B = smallest_gap(times_P, lengths_B)
        if self.time_unit:
            unit_B = torch.full_like(unit_B, self.time_unit)
        units_P = ((times_P - first_P).double() / unit_B.repeat_interleave(lengths_B)).round().long() + 1
        return replace(batch, times_P=units_P)


MODELS.register("sasrec-padded")(ModelEntry(PaddedSASRecConfig, PaddedSASRec))
MODELS.register("tisasrec-padded")(ModelEntry(PaddedTiSASRecConfig, PaddedTiSASRec))
