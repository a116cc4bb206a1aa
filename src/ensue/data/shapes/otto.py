"""OTTO sessions: one JSON object per line, `{"session": 1, "events": [{"aid": 2, "ts": 1661200010000, ...}]}`."""

from __future__ import annotations

import polars as pl

from ensue.data.shape import NO_COLUMN, SHAPES, Sample, Shape
from ensue.data.table import Table


@SHAPES.register("otto")
def recognise(sample: Sample) -> Shape | None:
    """Columns `session` and `events`, the latter a list of objects with `aid` and `ts`."""
    events = sample.schema.get("events")
    if "session" not in sample.schema or not isinstance(events, pl.List) or not isinstance(events.inner, pl.Struct):
        return None
    if not {"aid", "ts"} <= {field.name for field in events.inner.fields}:
        return None

    def read() -> Table:
        assert sample.rows is not None
        rows = sample.rows.select("session", "events").explode("events").unnest("events")
        return Table(rows, rows.collect_schema().names(), sample.where)

    meanings = {"user": "session", "item": "aid", "time": "ts", "rating": NO_COLUMN}
    return Shape("otto", "one session per line with a list of events (aid, ts, type)", meanings, read)
