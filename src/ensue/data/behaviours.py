"""Columns of a log with the kind of each event, such as view, cart and purchase, or whether a video was clicked."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ensue.data.interactions import Columns, columns_of
from ensue.data.logs import open_log
from ensue.data.meanings import plain_name, sample
from ensue.data.sources import Source

_NAMES = (
    *("event", "eventtype", "eventname", "behavior", "behaviortype", "behaviour", "behaviourtype", "action"),
    *("actiontype", "interaction", "interactiontype", "type", "isclick", "click", "clicked", "isread"),
)
_WORDS = {
    *("view", "click", "clicks", "cart", "carts", "addtocart", "add_to_cart", "buy", "purchase", "order", "orders"),
    *("transaction", "pv", "fav", "favorite", "favourite", "wishlist", "remove_from_cart", "like", "impression"),
}
_FEW = 20


@dataclass(frozen=True)
class Behaviours:
    """A column with the kind of each event.

    Attributes:
        column: its name.
        kinds: its values in the first rows, the most frequent first, in the notation of `--where`.
    """

    column: str
    kinds: tuple[str, ...]

    def where(self, kind: str) -> str:
        """The condition for the rows of one kind."""
        column = self.column if self.column.isidentifier() else f"`{self.column}`"
        return f"{column} == {kind}"


def behaviours(source: Source, columns: Columns | None = None) -> Behaviours | None:
    """The column with the kind of each event, recognised by its name or by usual words in the first rows.

    Args:
        source: as for `read_interactions`.
        columns: the settings of the columns.

    Returns:
        The column; None if there is none of two or more kinds, or if `columns` has a condition already.
    """
    columns = columns or Columns()
    if columns.where is not None:
        return None
    table = open_log(source, columns.reading)
    taken = {choice.column for choice in columns_of(table, columns).values()}
    frame = sample(table, [name for name in table.names if name not in taken])
    for name in frame.columns:
        counts = frame[name].drop_nulls().value_counts(sort=True) if _may_be(frame[name]) else None
        if counts is None or not 2 <= counts.height <= _FEW:
            continue
        values = counts[name].to_list()
        if plain_name(name) in _NAMES or all(str(value).lower() in _WORDS for value in values):
            return Behaviours(name, tuple(_written(value) for value in values))
    return None


def _may_be(values: pl.Series) -> bool:
    return values.dtype == pl.String or values.dtype.is_integer()


def _written(value: object) -> str:
    """A value in the notation of conditions: integers unchanged, texts in quotes."""
    text = str(value)
    is_number = text.isascii() and text.removeprefix("-").isdigit()
    return text if is_number else '"' + text.replace('"', '""') + '"'
