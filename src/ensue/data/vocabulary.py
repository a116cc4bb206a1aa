"""External ids and their numbers: 1..N in sorted order, 0 for padding and for unknown ids.

Suffix: `B` ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from ensue.errors import ArtefactError, DataError
from ensue.files import atomic_path

ExternalId = str | int

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
# Below this number of ids a dictionary is faster than a join (one user's history in serving).
_BULK = 4096
# Rows that `by_slices` works on at a time.
SLICE = 1 << 17
# Integer ids are looked up in a table if it needs at most this number of entries per id.
_DENSE = 4


class Vocabulary:
    """A one-to-one map between external ids and the numbers 1..N.

    The ids are all strings or all integers (int64) and are never converted: `"007"` is not `7`.
    They are sorted (integers by value, strings by code point), so the numbers depend only on the set of ids, not on the
    order of rows or on hashing.
    """

    def __init__(self, ids: pl.Series) -> None:
        """Take ids that are already sorted and distinct; `from_ids` sorts.

        Raises:
            DataError: the ids are neither strings nor integers, or are missing, repeated or out of order.
        """
        if ids.dtype.is_integer():
            ids = _as_int64(ids)
        elif ids.dtype != pl.String:
            raise DataError(f"ids must be strings or integers, got {ids.dtype}")
        if ids.null_count():
            raise DataError(f"{ids.null_count()} ids are missing")
        if len(ids) > 1 and not bool((ids.slice(1) > ids.head(len(ids) - 1)).all()):
            raise DataError("the ids of a vocabulary must be sorted and distinct")
        self.ids = ids.alias("id")

    @classmethod
    def from_ids(cls, ids: Iterable[ExternalId] | pl.Series) -> Vocabulary:
        """The vocabulary of the distinct values of `ids`.

        Raises:
            DataError: strings and integers are mixed, or an id is of another type.
        """
        series = ids if isinstance(ids, pl.Series) else _series(list(ids))
        return cls(series.unique().sort())

    @classmethod
    def of_range(cls, count: int) -> Vocabulary:
        """The integers 1..count, each its own number."""
        return cls(pl.Series("id", np.arange(1, count + 1, dtype=np.int64)))

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} {'integers' if self.is_integer else 'strings'})"

    @cached_property
    def is_integer(self) -> bool:
        """Whether the external ids are integers; otherwise they are strings."""
        return self.ids.dtype == pl.Int64

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the ids' type and values, in order: the same on every machine and release."""
        digest = hashlib.sha256(b"int64" if self.is_integer else b"str")
        if self.is_integer:
            digest.update(self.ids.to_numpy().astype("<i8").tobytes())
        else:
            digest.update(self.ids.str.len_bytes().to_numpy().astype("<i8").tobytes())
            digest.update("".join(self.ids.to_list()).encode())
        return digest.hexdigest()

    def encode(self, ids: Sequence[ExternalId] | np.ndarray | pl.Series) -> np.ndarray:
        """The numbers of external ids; 0 for an unknown id.

        In an integer vocabulary a string matches the integer of which it is the canonical form: `"7"` matches 7, while
        `"007"`, `"7.0"` and `" 7"` are unknown. In a string vocabulary an integer is always unknown.

        Args:
            ids: any number of ids.

        Returns:
            int32 array of the same length.

        Raises:
            DataError: an id is neither a string nor an integer.
        """
        if isinstance(ids, pl.Series) and len(ids) >= _BULK:
            return self._encode_series(ids)
        values = ids.to_list() if isinstance(ids, pl.Series) else list(ids)
        lookup, own, key = self._numbers, int if self.is_integer else str, self._key
        numbers = (lookup.get(value if type(value) is own else key(value), 0) for value in values)
        return np.fromiter(numbers, np.int32, len(values))

    def decode(self, numbers: Sequence[int] | np.ndarray) -> list[ExternalId]:
        """External ids of numbers 1..N.

        Raises:
            DataError: a number is outside 1..N (0 is padding and has no id).
        """
        numbers_B = np.asarray(numbers, dtype=np.int64).reshape(-1)
        if numbers_B.size and (numbers_B.min() < 1 or numbers_B.max() > len(self)):
            wrong = numbers_B[(numbers_B < 1) | (numbers_B > len(self))][0]
            raise DataError(f"number {wrong} has no id: the numbers of this vocabulary are 1..{len(self)}")
        if numbers_B.size < _BULK:
            return [self._list[number - 1] for number in numbers_B.tolist()]
        result: list[ExternalId] = self.ids.gather(numbers_B - 1).to_list()
        return result

    def write(self, path: Path) -> None:
        """Write a Parquet file with the column `id`; row i has the id of number i + 1."""
        with atomic_path(path) as temporary:
            self.ids.to_frame().write_parquet(temporary)

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read a file written by `write`; other columns (titles, categories) are allowed and ignored.

        Raises:
            ArtefactError: the file is missing, is not Parquet, or its ids break the vocabulary's rules.
        """
        try:
            return cls(pl.read_parquet(path, columns=["id"], glob=False)["id"])
        except (OSError, pl.exceptions.PolarsError, DataError) as error:
            raise ArtefactError(f"{path}: not a vocabulary ({error})") from None

    @cached_property
    def _list(self) -> list[ExternalId]:
        ids: list[ExternalId] = self.ids.to_list()
        return ids

    @cached_property
    def _numbers(self) -> dict[ExternalId | None, int]:
        return {key: number for number, key in enumerate(self._list, start=1)}

    def _key(self, value: object) -> ExternalId | None:
        """The id in the type of the vocabulary, or None if it cannot be an id of the vocabulary."""
        if value is None or isinstance(value, bool | np.bool_):
            return None
        if isinstance(value, int | np.integer):
            return int(value) if self.is_integer else None
        if not isinstance(value, str):
            raise DataError(f"ids are strings or integers, got {value!r} of type {type(value).__name__}")
        return _canonical_int(value) if self.is_integer else value

    @cached_property
    def _spread(self) -> int:
        """The number of integers between the smallest and the largest id."""
        return int(self.ids[-1]) - int(self.ids[0]) + 1 if len(self) else 1

    def _look_up(self, ids: pl.Series) -> np.ndarray:
        """The numbers of integer ids, from a table of all integers between the smallest and the largest id."""
        if not len(self):
            return np.zeros(len(ids), dtype=np.int32)
        low = int(self.ids[0])
        table = np.zeros(self._spread, dtype=np.int32)
        table[self.ids.to_numpy() - low] = np.arange(1, len(self) + 1, dtype=np.int32)
        known = ids.is_between(low, int(self.ids[-1])).fill_null(False).to_numpy()
        values = ids.fill_null(low).to_numpy()
        numbers = np.zeros(len(ids), dtype=np.int32)
        numbers[known] = table[values[known] - low]
        return numbers

    def _encode_series(self, ids: pl.Series) -> np.ndarray:
        if ids.dtype == pl.String and self.is_integer:
            ids = canonical_ints(ids)
        elif ids.dtype.is_integer() and not self.is_integer:
            return np.zeros(len(ids), dtype=np.int32)
        elif ids.dtype.is_integer():
            ids = ids.cast(pl.Int64, strict=False)
        elif ids.dtype != pl.String:
            raise DataError(f"ids are strings or integers, got {ids.dtype}")
        if self.is_integer and self._spread <= _DENSE * len(ids):
            return self._look_up(ids)
        numbers = pl.int_range(1, len(self) + 1, dtype=pl.Int32, eager=True).alias("number")
        table = pl.DataFrame([self.ids, numbers])
        joined = ids.alias("id").to_frame().join(table, on="id", how="left", maintain_order="left")
        return joined["number"].fill_null(0).to_numpy().copy()


def by_slices(values: pl.Series, work: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """The result of a step that works row by row and makes texts, which would take as much memory as the column."""
    if len(values) <= SLICE:
        return work(values)
    slices = [values.slice(first, SLICE) for first in range(0, len(values), SLICE)]
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        return pl.concat(list(pool.map(work, slices)), rechunk=True)


def canonical_ints(ids: pl.Series) -> pl.Series:
    """int64 values of the strings that are the canonical form of one ("7", "-3"); null for all others.

    Canonical means that writing the integer gives the same text again, so "007", "+7", "1e5", "-0" and
    anything beyond int64 are not integers.
    """
    return by_slices(ids, _canonical_ints).alias(ids.name)


def _canonical_ints(ids: pl.Series) -> pl.Series:
    values = ids.cast(pl.Int64, strict=False)
    same = (values.cast(pl.String) == ids).fill_null(False)
    return pl.select(pl.when(same).then(values)).to_series()


def _canonical_int(text: str) -> int | None:
    # The length is checked first: int() of a text of thousands of digits is an error of its own.
    if len(text) > 20 or not text.isascii() or not text.removeprefix("-").isdigit():
        return None
    value = int(text)
    return value if str(value) == text and INT64_MIN <= value <= INT64_MAX else None


def _as_int64(ids: pl.Series) -> pl.Series:
    try:
        return ids.cast(pl.Int64)
    except pl.exceptions.PolarsError:
        raise DataError(f"integer ids must fit int64, got a column of {ids.dtype} beyond it") from None


def _series(values: list[ExternalId]) -> pl.Series:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | np.integer):
            raise DataError(f"ids are strings or integers, got {value!r} of type {type(value).__name__}")
    if all(isinstance(value, str) for value in values) and values:
        return pl.Series("id", values, dtype=pl.String)
    if any(isinstance(value, str) for value in values):
        raise DataError("ids must be all strings or all integers, got both")
    if any(not INT64_MIN <= int(value) <= INT64_MAX for value in values):
        raise DataError("integer ids must fit int64")
    return pl.Series("id", [int(value) for value in values], dtype=pl.Int64)
