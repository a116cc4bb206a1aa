"""Yelp reviews: JSON Lines with `review_id,user_id,business_id,stars,date`; tips have no stars."""

from __future__ import annotations

from ensue.data.shape import SHAPES, Sample, Shape, by_header


@SHAPES.register("yelp")
def recognise(sample: Sample) -> Shape | None:
    """The names of a review or a tip."""
    return by_header(
        sample,
        "yelp",
        "review_id user_id business_id stars date",
        rating="stars",
        user="user_id",
        item="business_id",
        time="date",
    ) or by_header(sample, "yelp", "user_id business_id date", user="user_id", item="business_id", time="date")
