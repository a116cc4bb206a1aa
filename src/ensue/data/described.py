"""Columns beside the ids and the times of a log: those of its events, of items and of users.

Suffix: `E` events.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from ensue.data.features import FeatureSpec, parse_features
from ensue.data.interactions import Columns, Interactions
from ensue.data.item_table import described_columns, read_item_table, read_user_table
from ensue.data.sources import Source
from ensue.data.vocabulary import Vocabulary
from ensue.errors import DataError

_SAME = ("bool", "int8", "int16", "int32", "int64", "float32", "float64")
_WIDENED = {"uint8": "int16", "uint16": "int32", "uint32": "int64"}


def log_columns(columns: Columns, items: Source | None = None, users: Source | None = None) -> Columns:
    """The settings of a log's columns, with those features alone that its columns have, by their names.

    Args:
        columns: the settings; a feature may say what it is of, and a number of buckets.
        items: the file of items, whose columns are not looked for in the log.
        users: the file of users, likewise.

    Raises:
        ConfigError: a feature does not have its form.
        DataError: a file of items or users cannot be read.
    """
    specs = parse_features(columns.features)
    elsewhere = described_columns(items, users, columns.encoding) if specs else set()
    return columns.replace(features=tuple(name for name in specs if name not in elsewhere))


@dataclass(frozen=True)
class Described:
    """What describes items and users: files, and columns of the log that are the same for all events of one.

    Attributes:
        items: the file of items.
        users: the file of users.
        encoding: of text files.
        given: the setting `features`.
    """

    items: Source | None
    users: Source | None
    encoding: str | None
    given: tuple[str, ...]

    @cached_property
    def specs(self) -> dict[str, FeatureSpec]:
        """The features by name."""
        return parse_features(self.given)

    def tables(
        self, frame: pl.DataFrame, log: Interactions, users: Vocabulary, items: Vocabulary
    ) -> tuple[pl.DataFrame, pl.DataFrame, int | None]:
        """The tables of users and of items, and how many items the file of items describes."""
        item_table, described, user_table = items.ids.to_frame(), None, pl.DataFrame()
        if self.items is not None:
            item_table, described = read_item_table(self.items, items, encoding=self.encoding)
        if self.users is not None:
            user_table = read_user_table(self.users, users, self.encoding)
        for name in log.features:
            of = self.specs[name].of if name in self.specs else None
            if of == "item":
                item_table = item_table.with_columns(_first_values(frame, "item", name, len(items)))
            if of == "user":
                user_table = user_table if user_table.width else users.ids.to_frame()
                user_table = user_table.with_columns(_first_values(frame, "user", name, len(users)))
        return user_table, item_table, described

    def of_events(self, log: Interactions) -> tuple[str, ...]:
        """The features that are columns of events."""
        return tuple(name for name in log.features if name not in self.specs or self.specs[name].of in (None, "event"))


def _first_values(frame: pl.DataFrame, of: str, name: str, count: int) -> pl.Series:
    """The first known value of each item or user, whose numbers in the frame are 1..count."""
    first = frame.select(of, name).drop_nulls().unique(of, keep="first", maintain_order=True)
    place = np.full(count, -1)
    place[first[of].to_numpy() - 1] = np.arange(first.height)
    return first[name].gather(pl.Series(place).replace(-1, None))


def event_arrays(frame: pl.DataFrame, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], dict[str, Vocabulary]]:
    """Numbers unchanged; texts, and integers with missing values, as codes 1..n with 0 for a missing value."""
    arrays: dict[str, np.ndarray] = {}
    coded: dict[str, Vocabulary] = {}
    for name in names:
        values = frame[name]
        if values.dtype in (pl.Categorical, pl.Enum):
            values = values.cast(pl.String)
        if values.dtype.is_float():
            values = values.fill_null(float("nan"))
        if values.dtype == pl.String or (values.dtype.is_integer() and values.null_count()):
            coded[name] = Vocabulary.from_ids(values.drop_nulls())
            arrays[name] = coded[name].encode(values)
            continue
        array = values.to_numpy()
        if values.null_count() or array.dtype.name not in (*_SAME, *_WIDENED):
            raise DataError(f"feature {name!r} must contain numbers or strings (got {values.dtype})")
        arrays[name] = array.astype(_WIDENED.get(array.dtype.name, array.dtype.name))
    return arrays, coded
