"""`Catalogue`: the information on items that is available when a model is built.

Suffixes: `N` items, `M` values of an item, `D` width of a vector.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ensue.data.features import LEVELS, Feature
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
        features: columns of events, items and users that the model reads.
    """

    num_items: int
    items: pl.DataFrame = field(default_factory=pl.DataFrame)
    num_users: int = 0
    features: tuple[Feature, ...] = ()

    @classmethod
    def of_store(cls, store: SequenceStore) -> Catalogue:
        """The items of a store."""
        features = () if store.inputs is None else store.inputs.features
        return cls(store.num_items, store.item_table, store.num_users, features)

    def coded_features(self, of: Container[str] = LEVELS) -> list[tuple[Feature, Tensor | None]]:
        """The features of these levels, each with the codes of all items if it is a column of items: [N + 2, M].

        Raises:
            DataError: there is no such column of items.
        """
        return [
            (each, torch.from_numpy(each.item_codes(self._column(each.name))) if each.of == "item" else None)
            for each in self.features
            if each.of in of
        ]

    def event_feature(self, name: str) -> Feature:
        """The feature of events with this name.

        Raises:
            DataError: the model reads no such feature, or one of items or users.
        """
        for feature in self.features:
            if (feature.name, feature.of) == (name, "event"):
                return feature
        known = [feature.name for feature in self.features if feature.of == "event"]
        raise DataError(f"{name!r} must be a feature of events: {nearest(name, known)}")

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
