"""Columns of a log that say what kind of event a row is: view, cart, purchase; whether a video was clicked."""

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
    """A column that says what kind of event a row is.

    Attributes:
        column: its name.
        kinds: its values in the first rows, the most frequent first, each as `--where` writes it.
    """

    column: str
    kinds: tuple[str, ...]

    def where(self, kind: str) -> str:
        """The condition that reads the rows of one kind."""
        column = self.column if self.column.isidentifier() else f"`{self.column}`"
        return f"{column} == {kind}"


def behaviours(source: Source, columns: Columns | None = None) -> Behaviours | None:
    """The column of a log that says what kind of event a row is, by its name or by usual words in its first rows.

    Args:
        source: as for `read_interactions`.
        columns: what is said of the columns.

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
    """A value in a condition: integers as they are, texts in quotes."""
    text = str(value)
    is_number = text.isascii() and text.removeprefix("-").isdigit()
    return text if is_number else '"' + text.replace('"', '""') + '"'
