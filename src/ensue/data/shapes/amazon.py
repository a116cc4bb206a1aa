"""Amazon reviews of 2014, 2018 and 2023, as ratings without a header, as CSV and as JSON Lines.

Ratings without a header are `user,item,rating,time` in 2014 and `item,user,rating,time` in 2018: which column has the
products is seen from the form of their ids. In 2023 an item is `parent_asin`, and times are in milliseconds.
"""

from __future__ import annotations

from ensue.data.shape import SHAPES, Sample, Shape, all_match, by_header, by_place

# Product ids have ten characters: B and nine more, or an ISBN. Ids of newer users have up to 28.
_ASIN, _USER = "B[0-9A-Z]{9}|[0-9]{9}[0-9X]", "A[0-9A-Z]{10,27}"
_RATING, _SECONDS = r"[0-5](\.\d+)?", r"\d{9,10}"


@SHAPES.register("amazon")
def recognise(sample: Sample) -> Shape | None:
    """The names of the reviews, or four fields with an ASIN, a user, a rating and seconds."""
    rest = {2: _RATING, 3: _SECONDS}
    if all_match(sample, {0: _USER, 1: _ASIN, **rest}, 4):
        evidence = "user, ASIN, rating, seconds without a header (2014)"
        return by_place(sample, "amazon", evidence, user="1", item="2", rating="3", time="4")
    if all_match(sample, {0: _ASIN, 1: _USER, **rest}, 4):
        evidence = "ASIN, user, rating, seconds without a header (2018: the product comes first)"
        return by_place(sample, "amazon", evidence, user="2", item="1", rating="3", time="4")
    return by_header(
        sample,
        "amazon",
        "reviewerID asin overall unixReviewTime",
        user="reviewerID",
        item="asin",
        rating="overall",
        time="unixReviewTime",
    ) or by_header(
        sample,
        "amazon",
        "user_id parent_asin rating timestamp",
        user="user_id",
        item="parent_asin",
        rating="rating",
        time="timestamp",
    )
