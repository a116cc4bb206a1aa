"""Features: columns of events, items and users as numbers that models look up.

A text or a whole number is a value with a row of its own in a table of vectors; a number with decimals, or one with
`buckets`, falls into one of several buckets of about equal size. Row 0 is for a missing value, the last row for a value
that does not occur in training.

Suffixes: `E` events of the store, `U` users, `P` events of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self, get_args

import numpy as np
import polars as pl

from ensue.data.vocabulary import Vocabulary
from ensue.errors import ArtefactError, ConfigError, DataError

Level = Literal["event", "item", "user"]
LEVELS: tuple[Level, ...] = get_args(Level)
# Buckets of a column of numbers with decimals, unless a number is given.
BUCKETS = 10
_FORM = "NAME, followed by :event, :item or :user, and by :buckets=NUMBER where needed, such as price:buckets=10"


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """A feature as it is named in a setting: `category`, `price:buckets=10`, `city:user`.

    Attributes:
        name: the column.
        of: whether it is a column of events, items or users; None for the first of them that has it.
        buckets: number of buckets of a column of numbers; None for the default.
    """

    name: str
    of: Level | None = None
    buckets: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a setting.

        Raises:
            ConfigError: it does not have the form.
        """
        name, *parts = text.split(":")
        of, buckets = None, None
        for part in parts:
            key, _, number = part.partition("=")
            if part in LEVELS:
                of = part
            elif key == "buckets" and number.isascii() and number.isdigit() and int(number) >= 2:
                buckets = int(number)
            else:
                raise ConfigError(f"feature {text!r}: must be {_FORM}; buckets are 2 or more")
        if not name:
            raise ConfigError(f"feature {text!r}: must be {_FORM}")
        return cls(name, of, buckets)


def parse_features(texts: Sequence[str]) -> dict[str, FeatureSpec]:
    """Name -> feature, in the given order.

    Raises:
        ConfigError: one does not have the form, or a name occurs twice.
    """
    specs: dict[str, FeatureSpec] = {}
    for text in texts:
        spec = FeatureSpec.parse(text)
        if spec.name in specs:
            raise ConfigError(f"feature {spec.name!r} is named twice")
        specs[spec.name] = spec
    return specs


@dataclass(frozen=True)
class Feature:
    """A column as codes, with what the training part of the data determined.

    Attributes:
        name: the column.
        of: whether it is a column of events, items or users.
        values: the values of the training part as texts, sorted; None for a column of numbers.
        edges: the limits between the buckets of a column of numbers, ascending.
    """

    name: str
    of: Level
    values: tuple[str, ...] | None = None
    edges: tuple[float, ...] = ()

    @property
    def rows(self) -> int:
        """Number of codes: a missing value, then the buckets, or the known values and an unseen one."""
        return 2 + (len(self.edges) if self.values is None else len(self.values))

    @cached_property
    def _numbers(self) -> Vocabulary:
        return Vocabulary(pl.Series(self.values or (), dtype=pl.String))

    def codes(self, column: pl.Series) -> np.ndarray:
        """The codes of values, int64: 0 for a missing one, `rows - 1` for an unseen text or whole number.

        Raises:
            DataError: the values cannot be read as numbers or as texts.
        """
        if self.values is None:
            numbers = _as_numbers(self.name, column)
            codes = np.searchsorted(self.edges, numbers, side="right") + 1
            codes[np.isnan(numbers)] = 0
            return codes
        texts = as_texts(self.name, column)
        codes = self._numbers.encode(texts).astype(np.int64)
        codes[(codes == 0) & texts.is_not_null().to_numpy()] = self.rows - 1
        return codes

    def item_codes(self, column: pl.Series) -> np.ndarray:
        """The codes of items, int64 [N + 2, M], by item number; zero for padding, for [MASK] and after the last value.

        M is the largest number of values of an item, which is more than 1 only for a column of lists.
        """
        if not isinstance(column.dtype, pl.List | pl.Array):
            return np.pad(self.codes(column), 1)[:, None]
        lists = column.cast(pl.List(pl.String))
        counts = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        codes = np.zeros((len(column) + 2, max(1, int(counts.max(initial=0)))), dtype=np.int64)
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        codes[np.repeat(np.arange(1, len(column) + 1), counts), place] = self.codes(lists.filter(counts > 0).explode())
        return codes

    def as_dict(self) -> dict[str, Any]:
        """The feature as JSON values."""
        values = None if self.values is None else list(self.values)
        return {"name": self.name, "of": self.of, "values": values, "edges": list(self.edges)}

    @classmethod
    def from_dict(cls, content: Any) -> Self:
        """Undo `as_dict`.

        Raises:
            ArtefactError: the content is not that of a feature.
        """
        keys = {"name", "of", "values", "edges"}
        if isinstance(content, dict) and content.keys() == keys and content["of"] in LEVELS:
            name, values, edges = content["name"], content["values"], content["edges"]
            are_texts = values is None or (isinstance(values, list) and all(isinstance(each, str) for each in values))
            are_numbers = isinstance(edges, list) and all(isinstance(each, int | float) for each in edges)
            if isinstance(name, str) and are_texts and are_numbers:
                known = None if values is None else tuple(values)
                return cls(name, content["of"], known, tuple(map(float, edges)))
        raise ArtefactError(f"not a feature: {str(content)[:80]!r}")


def fit_feature(name: str, of: Level, column: pl.Series, buckets: int | None) -> Feature:
    """The values or buckets of a column.

    Args:
        name: the column's name.
        of: what it is a column of.
        column: its values in the training part.
        buckets: the number of buckets; None: 10 for numbers with decimals, none for others.

    Raises:
        DataError: buckets are asked of values that are not numbers, or the values cannot be read.
    """
    if isinstance(column.dtype, pl.List | pl.Array):
        column = column.cast(pl.List(pl.String)).explode()
    if buckets is None and not column.dtype.is_float():
        return Feature(name, of, tuple(as_texts(name, column).drop_nulls().unique().sort().to_list()))
    numbers = _as_numbers(name, column)
    numbers = numbers[~np.isnan(numbers)]
    if len(numbers) == 0:
        return Feature(name, of)
    limits = np.quantile(numbers, np.linspace(0, 1, (buckets or BUCKETS) + 1)[1:-1])
    return Feature(name, of, None, tuple(np.unique(limits).tolist()))


def as_texts(name: str, column: pl.Series) -> pl.Series:
    """The values as texts, null for missing and empty ones.

    Raises:
        DataError: they are of a type that has no text.
    """
    try:
        texts = column.cast(pl.String)
    except pl.exceptions.PolarsError:
        raise DataError(f"feature {name!r} must contain numbers or texts (got {column.dtype})") from None
    return texts.replace("", None)


def _as_numbers(name: str, column: pl.Series) -> np.ndarray:
    """The values as float64, NaN for missing ones."""
    missing = column.null_count()
    try:
        numbers = column.cast(pl.Float64, strict=False)
    except pl.exceptions.PolarsError:
        numbers = pl.Series([None] * len(column), dtype=pl.Float64)
    if numbers.null_count() > missing:
        wrong = column.filter(numbers.is_null() & column.is_not_null())[0]
        raise DataError(f"feature {name!r} is in buckets, so it must contain numbers (got {wrong!r})")
    result: np.ndarray = numbers.fill_null(float("nan")).to_numpy().copy()
    return result


@dataclass(frozen=True, eq=False)
class Inputs:
    """The features that a model reads, and the codes of a store's events and users.

    Attributes:
        features: in the order of the model's setting.
        events: name -> int32 [E].
        users: name -> int32 [U].
    """

    features: tuple[Feature, ...]
    events: Mapping[str, np.ndarray]
    users: Mapping[str, np.ndarray]

    def at(self, events_P: np.ndarray, users_P: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> codes of some events, [P], with those of their users (0-based numbers); no columns of items."""
        of_events = {name: codes_E[events_P] for name, codes_E in self.events.items()}
        return of_events | {name: codes_U[users_P] for name, codes_U in self.users.items()}

    def keep(self, kept_E: np.ndarray) -> Inputs:
        """The codes of a store of which only some events are kept."""
        return Inputs(self.features, {name: codes_E[kept_E] for name, codes_E in self.events.items()}, self.users)
