"""What models that read the times of events share.

Suffix: `P` events of all rows.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.errors import DataError
from ensue.models.base import CausalConfig


class TimedConfig(CausalConfig):
    """Settings of a causal model that reads the times of a history's events, and perhaps that of the request."""

    time: Literal["timestamps", "order"] = Field("timestamps", description="order: intervals count events, not seconds")
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

    def times_of(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """The times of the events as keys, and their times as queries, int64 [P].

        Raises:
            DataError: the batch has no times, or not those of the requests, and the model reads them.
        """
        if self.time == "order":
            times_P = -batch.layout.age_P
            return times_P, times_P
        if batch.times_P is None:
            raise DataError(
                f"model {self.name} needs times of events, but there are none: give them (ensue prepare --time COLUMN; "
                "of a request times=, --times), train with time = 'order' (--time order), so that intervals count "
                "events, or use a model that reads none, such as sasrec"
            )
        if not self.query_time:
            return batch.times_P, batch.times_P
        if batch.query_times_P is None:
            raise DataError("this model was trained with query_time: give the time of the request (at=, --at)")
        return batch.times_P, batch.query_times_P
