"""Trivago of the RecSys Challenge 2019: actions of a session, of which those on an accommodation are events.

`reference` is an item only for the actions that name one; for searches, filters and sort orders it is a text. In the
test file the references to predict are empty.
"""

from __future__ import annotations

import polars as pl

from ensue.data.shape import SHAPES, Sample, Shape, by_header, with_rows
from ensue.data.table import Table


@SHAPES.register("trivago")
def recognise(sample: Sample) -> Shape | None:
    """The header of the actions."""
    columns = "user_id session_id timestamp step action_type reference"
    return by_header(sample, "trivago", columns, _items_only, user="session_id", item="item", time="timestamp")


def _items_only(table: Table) -> Table:
    is_item = pl.col("reference").str.contains(r"^\d+$")
    return with_rows(table, table.rows.with_columns(pl.when(is_item).then("reference").alias("item")))
