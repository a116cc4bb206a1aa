"""MIND behaviors.tsv: impression, user, time, history `N1 N2`, impressions `N3-1 N4-0`, without a header.

The history of a user has no times and is the same in each of the user's rows. The events are the history of the user's
earliest row, then the clicked impressions in the order of their times. Impressions that were not clicked are not read.
"""

from __future__ import annotations

import polars as pl

from ensue.data.shape import NO_COLUMN, SHAPES, Sample, Shape, all_match, with_rows
from ensue.data.table import Table

_TIME = r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d{2}:\d{2} [AP]M"
_FORMAT = "%m/%d/%Y %I:%M:%S %p"


@SHAPES.register("mind")
def recognise(sample: Sample) -> Shape | None:
    """Five fields: a user `U...`, a time with AM or PM, and news ids `N...` with -0 or -1 (of test files without)."""
    patterns = {1: r"U\d+", 2: _TIME, 3: r"(N\d+ ?)*", 4: r"(N\d+(-[01])? ?)*"}
    if sample.separator != "\t" or not all_match(sample, patterns, 5):
        return None
    evidence = (
        "user, time, history and impressions (N1-0 N2-1); order only: the history has no times; impressions that were "
        "not clicked are not read"
    )
    meanings = {"user": "user", "item": "item", "time": NO_COLUMN, "rating": NO_COLUMN}
    return Shape("mind", evidence, meanings, lambda: sample.open("\t", header=False), _events)


def _events(table: Table) -> Table:
    """The user's history, then the clicks by time; rows with equal times keep the order of the file."""
    time = pl.col("3").str.to_datetime(_FORMAT, strict=False)
    rows = table.rows.select(pl.col("2").alias("user"), time.alias("time"), "4", "5").with_row_index("row")
    rows = rows.sort("user", "time", "row").with_columns(first=pl.col("user").is_first_distinct())
    history = pl.when(pl.col("first")).then(_words("4")).otherwise(pl.lit([], dtype=pl.List(pl.String)))
    clicked = _words("5").list.eval(pl.element().filter(pl.element().str.ends_with("-1")).str.strip_suffix("-1"))
    rows = rows.select("user", item=pl.concat_list(history, clicked)).filter(pl.col("item").list.len() > 0)
    return with_rows(table, rows.explode("item"))


def _words(column: str) -> pl.Expr:
    return pl.col(column).fill_null("").str.extract_all(r"\S+")
