"""RecBole's atomic files: names with types, `user_id:token`, `timestamp:float`; `item_id_list:token_seq` is a list.

Of a file with a list of items per row (the sequential benchmark files: a history and the item after it), the longest
row of each user is read: its list and its item are the user's events.
"""

from __future__ import annotations

import re

import polars as pl

from ensue.data.shape import NO_COLUMN, SHAPES, Sample, Shape, with_rows
from ensue.data.sources import SPLIT, SPLIT_PARTS
from ensue.data.table import Table

_TYPED = re.compile(r"(.+):(token|token_seq|float|float_seq)")
_LIST = "_list"


@SHAPES.register("recbole")
def recognise(sample: Sample) -> Shape | None:
    """Every name in the header ends in a type."""
    matches = [_TYPED.fullmatch(name) for name in sample.header]
    names = {match.group(1): match.group(0) for match in matches if match is not None}
    if not names or len(names) < len(sample.header):
        return None
    user = next((full for plain, full in names.items() if re.search("user|session|uid", plain)), None)
    items = [full for plain, full in names.items() if re.search("item|product|movie|asin|iid", plain)]
    single = next((full for full in items if full.endswith(":token")), None)
    listed = next((full for full in items if full.endswith(":token_seq")), None)
    if user is None or not (single or listed):
        return None
    evidence = "names with types (:token, :float, :token_seq)"
    if listed is not None:
        # Later rows of a user repeat the earlier ones with more items.
        return Shape(
            "recbole",
            f"{evidence}; for each user, the row with the longest {listed} is read",
            {"user": "user", "item": "item", "time": NO_COLUMN, "rating": NO_COLUMN},
            lambda: sample.open(sample.separator, header=True),
            lambda table: _events(table, user, listed, single),
        )
    time = next((full for plain, full in names.items() if re.search("time|date", plain)), NO_COLUMN)
    rating = next((full for plain, full in names.items() if re.search("rating|label|score", plain)), NO_COLUMN)
    meanings = {"user": user, "item": str(single), "time": time, "rating": rating}
    return Shape("recbole", evidence, meanings, lambda: sample.open(sample.separator, header=True))


def _events(table: Table, user: str, listed: str, single: str | None) -> Table:
    """With files of training, validation and test parts, an event belongs to the first file whose rows contain it."""
    items = pl.col(listed).fill_null("").str.strip_chars().str.split(" ")
    if single is not None:
        items = pl.concat_list(items, pl.col(single))
    size = pl.col("item").list.len()
    marks = [pl.col(SPLIT).alias("mark")] if SPLIT in table.names else []
    rows = table.rows.select(pl.col(user).alias("user"), items.alias("item"), *marks)
    lengths = [
        size.filter(pl.col("mark") == part).max().over("user").fill_null(0).alias(part) for part in SPLIT_PARTS[:2]
    ]
    rows = rows.with_columns(lengths) if marks else rows
    longest = rows.filter(size == size.max().over("user")).unique("user", keep="first", maintain_order=True)
    if not marks:
        return with_rows(table, longest.explode("item"))
    place = pl.int_range(pl.len()).over("user")
    train, validation, test = SPLIT_PARTS
    part = pl.when(place < pl.col(train)).then(pl.lit(train)).when(place < pl.col(validation)).then(pl.lit(validation))
    events = longest.explode("item").select("user", "item", part.otherwise(pl.lit(test)).alias(SPLIT))
    return with_rows(table, events)
