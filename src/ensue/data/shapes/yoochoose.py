"""YooChoose of the RecSys Challenge 2015, clicks and buys, without a header.

Clicks are `session,time,item,category`, buys `session,time,item,price,quantity`.
"""

from __future__ import annotations

from ensue.data.shape import SHAPES, Sample, Shape, all_match, by_place

_TIME = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z"


@SHAPES.register("yoochoose")
def recognise(sample: Sample) -> Shape | None:
    """Numbers around a time in the second place."""
    patterns = {0: r"\d+", 1: _TIME, 2: r"\d+"}
    if not (all_match(sample, patterns, 4) or all_match(sample, patterns, 5)):
        return None
    return by_place(sample, "yoochoose", "session, time, item without a header", user="1", item="3", time="2")
