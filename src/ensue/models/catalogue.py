"""`Catalogue`: the information on items that is available when a model is built.

Suffixes: `N` items, `M` values of an item, `D` width of a vector.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import polars.selectors as cs
import torch
from torch import Tensor

from ensue.data.features import LEVELS, Feature
from ensue.data.item_vectors import column_of_vectors
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
        vector_arrays: name -> vectors of the items, float32 [N, D], zero for items without one. When a model is loaded
            they have the right widths and no content, since the model's file contains them.
    """

    num_items: int
    items: pl.DataFrame = field(default_factory=pl.DataFrame)
    num_users: int = 0
    features: tuple[Feature, ...] = ()
    vector_arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of_store(cls, store: SequenceStore) -> Catalogue:
        """The items of a store."""
        features = () if store.inputs is None else store.inputs.features
        return cls(store.num_items, store.item_table, store.num_users, features, store.vectors)

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

    def vectors(self, column: str) -> np.ndarray:
        """The items' vectors of this name: float32 [N, D], zero for items without one.

        Raises:
            DataError: there are no such vectors, and no column of the item table contains them.
        """
        if column in self.vector_arrays:
            return self.vector_arrays[column]
        if column in self.items.columns:
            return column_of_vectors(self.items[column], column)
        known = [*self.vector_arrays, *self.items.select(cs.list()).columns]
        raise DataError(
            f"the items have no vectors {column!r}: {nearest(column, known)}; ensue prepare --items FILE "
            "with --item-vectors COLUMN or --item-text COLUMNS stores them"
        )

    def _column(self, name: str) -> pl.Series:
        if name not in self.items.columns:
            raise DataError(
                f"the items have no column {name!r}: {nearest(name, self.items.columns)}; ensue prepare --items FILE "
                "reads columns of items"
            )
        return self.items[name]
