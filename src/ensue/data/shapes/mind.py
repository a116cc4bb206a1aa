"""MIND behaviors.tsv: impression, user, time, history `N1 N2`, impressions `N3-1 N4-0`, without a header.

The history of a user has no times and is the same in each of the user's rows. The events are the history of the user's
earliest row, then the clicked impressions in the order of their times. Impressions that were not clicked are not read.

`mind-impressions`, which is only used if it is stated, reads every impression instead, and not the history.
"""

from __future__ import annotations

import polars as pl

from ensue.data.shape import NO_COLUMN, SHAPES, Sample, Shape, all_match, with_rows
from ensue.data.table import Table

_TIME = r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d{2}:\d{2} [AP]M"
_FORMAT = "%m/%d/%Y %I:%M:%S %p"
_IMPRESSIONS = "mind-impressions"


@SHAPES.register("mind")
def recognise(sample: Sample) -> Shape | None:
    """Five fields: a user `U...`, a time with AM or PM, and news ids `N...` with -0 or -1 (of test files without)."""
    if not _is_mind(sample):
        return None
    evidence = (
        "user, time, history and impressions (N1-0 N2-1); order only: the history has no times; impressions that were "
        "not clicked are not read"
    )
    meanings = {"user": "user", "item": "item", "time": NO_COLUMN, "rating": NO_COLUMN}
    return Shape("mind", evidence, meanings, lambda: sample.open("\t", header=False), _events)


@SHAPES.register(_IMPRESSIONS)
def recognise_impressions(sample: Sample) -> Shape | None:
    """The same five fields, if the shape is stated."""
    if sample.reading.shape != _IMPRESSIONS or not _is_mind(sample):
        return None
    evidence = "every impression (N1-0 N2-1) is a row, with a column clicked of 1 or 0; the history is not read"
    meanings = {"user": "user", "item": "item", "time": "time", "rating": NO_COLUMN}
    return Shape(_IMPRESSIONS, evidence, meanings, lambda: sample.open("\t", header=False), _impressions)


def _is_mind(sample: Sample) -> bool:
    return all_match(sample.split("\t"), [".*", r"U\d+", _TIME, r"(N\d+ ?)*", r"(N\d+(-[01])? ?)*"])


def _events(table: Table) -> Table:
    """The user's history, then the clicks by time; rows with equal times keep the order of the file."""
    time = pl.col("3").str.to_datetime(_FORMAT, strict=False)
    rows = table.rows.select(pl.col("2").alias("user"), time.alias("time"), "4", "5").with_row_index("row")
    rows = rows.sort("user", "time", "row").with_columns(first=pl.col("user").is_first_distinct())
    history = pl.when(pl.col("first")).then(_words("4")).otherwise(pl.lit([], dtype=pl.List(pl.String)))
    clicked = _words("5").list.eval(pl.element().filter(pl.element().str.ends_with("-1")).str.strip_suffix("-1"))
    rows = rows.select("user", item=pl.concat_list(history, clicked)).filter(pl.col("item").list.len() > 0)
    return with_rows(table, rows.explode("item"))


def _impressions(table: Table) -> Table:
    """The impressions in the order of the file; in test files, which do not say what was clicked, `clicked` is null."""
    rows = table.rows.select(user="2", time="3", item=_words("5")).filter(pl.col("item").list.len() > 0).explode("item")
    clicked = pl.col("item").str.extract("-([01])$")
    return with_rows(table, rows.with_columns(pl.col("item").str.replace("-[01]$", ""), clicked=clicked))


def _words(column: str) -> pl.Expr:
    return pl.col(column).fill_null("").str.extract_all(r"\S+")
