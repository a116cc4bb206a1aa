"""`Catalogue`: the information on items that is available when a model is built.

Suffixes: `N` items, `D` width of a vector.
"""

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
    """The items from which a model recommends.

    Attributes:
        num_items: N.
        items: the item table with N rows, item number i in row i - 1, and the columns that the data has; a table
            without columns if only the number of items is known.
        num_users: users of the training data, for models with a vector for each user.
    """

    num_items: int
    items: pl.DataFrame = field(default_factory=pl.DataFrame)
    num_users: int = 0

    @classmethod
    def of_store(cls, store: SequenceStore) -> Catalogue:
        """The items of a store."""
        return cls(store.num_items, store.item_table, store.num_users)

    def codes(self, column: str) -> tuple[Tensor, int]:
        """A column's values as numbers, int64 [N] (0 for missing values), and the number of distinct values.

        The numbers 1, 2 and so on follow the sorted values, so they depend only on the table.

        Raises:
            DataError: there is no such column.
        """
        values = self._column(column).cast(pl.String)
        known = values.drop_nulls().unique().sort()
        codes_N = np.searchsorted(known.to_numpy(), values.fill_null("").to_numpy()) + 1
        codes_N[values.is_null().to_numpy()] = 0
        return torch.from_numpy(codes_N.astype(np.int64)), len(known)

    def vectors(self, column: str) -> Tensor:
        """A column of vectors, one list of numbers per item: float32 [N, D], zero for items without one.

        Raises:
            DataError: there is no such column, its values are not numbers, or the vectors differ in width.
        """
        values = self._column(column)
        if not isinstance(values.dtype, pl.List | pl.Array) or not values.dtype.inner.is_numeric():
            raise DataError(f"item column {column!r} must contain vectors, as lists of numbers (got {values.dtype})")
        lists = values.cast(pl.List(pl.Float32))
        widths = lists.list.len().drop_nulls().unique().sort().to_list()
        if len(widths) != 1:
            raise DataError(f"the vectors of item column {column!r} must all have the same width (got {widths[:5]})")
        vectors_ND = np.zeros((len(lists), widths[0]), np.float32)
        vectors_ND[lists.is_not_null().to_numpy()] = np.stack(lists.drop_nulls().to_list())
        return torch.from_numpy(vectors_ND)

    def _column(self, name: str) -> pl.Series:
        if name not in self.items.columns:
            raise DataError(
                f"the items have no column {name!r}: {nearest(name, self.items.columns)}; ensue prepare --items FILE "
                "reads columns of items"
            )
        return self.items[name]
