"""Tmall: the repeat buyers log of IJCAI-15, the log of IJCAI-16, and Tianchi's Rec-Tmall of 2014.

The first writes month and day only (`0829`); the data are of 2014. The second writes `20151011`.
"""

from __future__ import annotations

import polars as pl

from ensue.data.shape import SHAPES, Sample, Shape, all_match, by_header, by_place, with_times

_REC_TMALL = {0: r"\d+", 2: "click|collect|cart|alipay", 3: r"\d{4}[-/]\d{1,2}[-/]\d{1,2} .+"}


def _date(column: str, year: str = "") -> pl.Expr:
    text = pl.lit(year) + pl.col(column).cast(pl.String).str.zfill(4 if year else 8)
    return text.str.to_datetime("%Y%m%d", strict=False, time_unit="us")


@SHAPES.register("tmall")
def recognise(sample: Sample) -> Shape | None:
    """The header of one of the three logs; of the third, also its parts without a header (their U+0001 as tabs)."""
    if all_match(sample, _REC_TMALL, 4):
        evidence = "item, user, action (click, collect, cart or alipay), time without a header"
        return by_place(sample, "tmall", evidence, user="2", item="1", time="4")
    return (
        by_header(
            sample,
            "tmall",
            "user_id item_id cat_id seller_id brand_id time_stamp action_type",
            with_times("time", _date("time_stamp", "2014")),
            user="user_id",
            item="item_id",
            time="time",
        )
        or by_header(
            sample,
            "tmall",
            "use_ID sel_ID ite_ID cat_ID act_ID time",
            with_times("day", _date("time")),
            user="use_ID",
            item="ite_ID",
            time="day",
        )
        or by_header(sample, "tmall", "user_id item_id action vtime", user="user_id", item="item_id", time="vtime")
    )
