"""Goodreads: interactions.csv (`user_id,book_id,is_read,rating,is_reviewed`) and interactions of JSON Lines.

The CSV has no times. The JSON has `date_added` in Twitter's form; a rating of 0 means not rated.
"""

from __future__ import annotations

import polars as pl

from ensue.data.shape import SHAPES, Sample, Shape, by_header, with_times
from ensue.data.shapes.times import twitter_time


@SHAPES.register("goodreads")
def recognise(sample: Sample) -> Shape | None:
    """The names of one of the two files."""
    return by_header(
        sample,
        "goodreads",
        "user_id book_id rating date_added",
        with_times("time", twitter_time(pl.col("date_added"))),
        user="user_id",
        item="book_id",
        rating="rating",
        time="time",
    ) or by_header(
        sample,
        "goodreads",
        "user_id book_id is_read rating is_reviewed",
        user="user_id",
        item="book_id",
        rating="rating",
    )
