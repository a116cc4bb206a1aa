"""Tianchi's mobile recommendation log: `user_id,item_id,behavior_type,user_geohash,item_category,time`.

Times are a date and an hour (`2014-12-06 02`).
"""

from __future__ import annotations

import polars as pl

from ensue.data.shape import SHAPES, Sample, Shape, by_header, with_times

_HOUR = (pl.col("time") + ":00").str.to_datetime("%Y-%m-%d %H:%M", strict=False, time_unit="us")


@SHAPES.register("tianchi")
def recognise(sample: Sample) -> Shape | None:
    """The header of the log, with hours as times."""
    columns = "user_id item_id behavior_type item_category time"
    change = with_times("hour", _HOUR)
    return by_header(sample, "tianchi", columns, change, user="user_id", item="item_id", time="hour")
