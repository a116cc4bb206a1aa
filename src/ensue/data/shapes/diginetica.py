"""Diginetica train-item-views.csv: `sessionId;userId;itemId;timeframe;eventdate`, rows unsorted.

The user is the session, since most users are unknown (NA). `timeframe` is in milliseconds inside the session, so the
time is the event's date plus that.
"""

from __future__ import annotations

import polars as pl

from ensue.data.shape import SHAPES, Sample, Shape, by_header, with_times

_DAY = pl.col("eventdate").cast(pl.String).str.to_datetime("%Y-%m-%d", time_unit="us", strict=False)
_INSIDE = pl.col("timeframe").cast(pl.Int64, strict=False) * 1_000


@SHAPES.register("diginetica")
def recognise(sample: Sample) -> Shape | None:
    """The header of the item views."""
    return by_header(
        sample,
        "diginetica",
        "sessionId itemId timeframe eventdate",
        with_times("time", _DAY + _INSIDE.cast(pl.Duration("us"))),
        user="sessionId",
        item="itemId",
        time="time",
    )
