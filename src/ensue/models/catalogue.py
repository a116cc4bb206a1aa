"""`Catalogue`: what a model may know of the items when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ensue.data.store import SequenceStore
from ensue.errors import DataError, nearest


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The items that a model recommends among.

    Attributes:
        num_items: N.
        items: the item table, N rows, item number i in row i - 1, with whatever columns the data has; a table of
            no columns where nothing is known but the number of items.
    """

    num_items: int
    items: pl.DataFrame = field(default_factory=pl.DataFrame)

    @classmethod
    def of_store(cls, store: SequenceStore) -> Catalogue:
        """The items of a store."""
        return cls(store.num_items, store.item_table)

    def codes(self, column: str) -> tuple[Tensor, int]:
        """A column's values as numbers: int64 [N], 0 where the value is missing, and how many values there are.

        The numbers 1.. follow the sorted values, so that they are the same whenever the table is.

        Raises:
            DataError: no such column.
        """
        values = self._column(column).cast(pl.String)
        known = values.drop_nulls().unique().sort()
        codes_N = np.searchsorted(known.to_numpy(), values.fill_null("").to_numpy()) + 1
        codes_N[values.is_null().to_numpy()] = 0
        return torch.from_numpy(codes_N.astype(np.int64)), len(known)

    def vectors(self, column: str) -> Tensor:
        """A column of vectors, one list of numbers for each item: float32 [N, D], zero where an item has none.

        Raises:
            DataError: no such column, not numbers, or vectors of different widths.
        """
        values = self._column(column)
        if not isinstance(values.dtype, pl.List | pl.Array) or not values.dtype.inner.is_numeric():
            raise DataError(f"item column {column!r} must hold vectors, lists of numbers (got {values.dtype})")
        lists = values.cast(pl.List(pl.Float32))
        widths = lists.list.len().drop_nulls().unique().sort().to_list()
        if len(widths) != 1:
            raise DataError(f"the vectors of item column {column!r} must have one width (got {widths[:5]})")
        vectors_ND = np.zeros((len(lists), widths[0]), np.float32)
        vectors_ND[lists.is_not_null().to_numpy()] = np.stack(lists.drop_nulls().to_list())
        return torch.from_numpy(vectors_ND)

    def _column(self, name: str) -> pl.Series:
        if name not in self.items.columns:
            raise DataError(f"the items have no column {name!r}: {nearest(name, self.items.columns)}")
        return self.items[name]
