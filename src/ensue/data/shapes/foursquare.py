"""Foursquare check-ins in New York and Tokyo (TSMC 2014): eight fields, the last one a time in Twitter's format.

The `.txt` files have no header; the `.csv` copies have one (`userId,venueId,...,utcTimestamp`).
"""

from __future__ import annotations

import polars as pl

from ensue.data.shape import SHAPES, Sample, Shape, all_match, by_header, by_place, with_times
from ensue.data.shapes.times import TWITTER, twitter_time


@SHAPES.register("foursquare")
def recognise(sample: Sample) -> Shape | None:
    """Eight fields that end in a time such as `Tue Apr 03 18:00:09 +0000 2012`, or the header of the copies."""
    if all_match(sample, {1: "[0-9a-f]{24}", 2: "[0-9a-f]{24}", 7: TWITTER}, 8):
        evidence = "eight fields that end in a time such as 'Tue Apr 03 18:00:09 +0000 2012'"
        return by_place(
            sample,
            "foursquare",
            evidence,
            with_times("time", twitter_time(pl.col("8"))),
            user="1",
            item="2",
            time="time",
        )
    return by_header(
        sample,
        "foursquare",
        "userId venueId venueCategoryId utcTimestamp",
        with_times("time", twitter_time(pl.col("utcTimestamp"))),
        user="userId",
        item="venueId",
        time="time",
    )
