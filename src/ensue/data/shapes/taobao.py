"""Taobao UserBehavior.csv: user, item, category, behaviour (pv, buy, cart, fav), seconds; without a header."""

from __future__ import annotations

from ensue.data.shape import SHAPES, Sample, Shape, all_match, by_place


@SHAPES.register("taobao")
def recognise(sample: Sample) -> Shape | None:
    """Five fields, the fourth one of the four behaviours."""
    if not all_match(sample, {0: r"\d+", 1: r"\d+", 2: r"\d+", 3: "pv|buy|cart|fav", 4: r"-?\d+"}, 5):
        return None
    evidence = "five fields, the fourth pv, buy, cart or fav"
    return by_place(sample, "taobao", evidence, user="1", item="2", time="5")
