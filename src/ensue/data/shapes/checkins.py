"""Gowalla and Brightkite check-ins: user, time, latitude, longitude, place; tabs, no header.

Rows run from the newest to the oldest event of a user. Some rows of Brightkite lack time and place.
"""

from __future__ import annotations

from ensue.data.shape import SHAPES, Sample, Shape, all_match, by_place

_TIME = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z|"
_DEGREES = r"-?\d*\.?\d*"


@SHAPES.register("checkins")
def recognise(sample: Sample) -> Shape | None:
    """Five fields: a number, a time, two coordinates and a place."""
    patterns = {0: r"\d+", 1: _TIME, 2: _DEGREES, 3: _DEGREES, 4: r"\w*"}
    if sample.separator != "\t" or not all_match(sample, patterns, 5) or "T" not in sample.fields[0][1]:
        return None
    evidence = "user, time, latitude, longitude, place without a header"
    return by_place(sample, "checkins", evidence, user="1", item="5", time="2")
