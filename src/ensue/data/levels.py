"""Sparse counts of the items that follow contexts of one length, by sorting.

Suffixes: `C` contexts, `M` entries; `1` one more entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ensue.data.arrays import IntArray
from ensue.errors import ArtefactError


@dataclass(frozen=True, slots=True)
class Level:
    """The counts after contexts of one length, as sorted keys and a CSR matrix.

    The key of a context of j items is (number of the context of its j - 1 newest items) * (N + 1) + its oldest item,
    so a context of any length fits in an int64. The number of a context is the index of its key in `keys_C`.

    Attributes:
        keys_C: sorted keys.
        starts_C1: the entries of context c are starts[c]:starts[c + 1].
        items_M: the item of each entry.
        counts_M: how often the item follows the context.
        continuations_M: the number of different contexts with one more item (or the start of a row) that the item
            follows; None if that is not counted.
    """

    keys_C: IntArray
    starts_C1: IntArray
    items_M: NDArray[np.int32]
    counts_M: NDArray[np.int32]
    continuations_M: NDArray[np.int32] | None = None

    @classmethod
    def count(cls, keys_C: IntArray, contexts: IntArray, targets: IntArray, num_items: int) -> Self:
        """Count pairs of a context's number and the item that follows."""
        pairs, counts = np.unique(contexts * (num_items + 1) + targets, return_counts=True)
        starts = np.searchsorted(pairs, np.arange(keys_C.size + 1, dtype=np.int64) * (num_items + 1))
        return cls(keys_C, starts, (pairs % (num_items + 1)).astype(np.int32), counts.astype(np.int32))

    def with_continuations(self, longer: Level, num_items: int) -> Level:
        """The same counts with `continuations_M`, computed from the contexts with one more item."""
        width = num_items + 1
        pairs = self._context_of_entries() * width + self.items_M
        parents = (longer.keys_C // width)[longer._context_of_entries()]
        entries = np.searchsorted(pairs, parents * width + longer.items_M)
        different = np.bincount(entries, minlength=pairs.size)
        at_start = self.counts_M > np.bincount(entries, weights=longer.counts_M, minlength=pairs.size)
        return replace(self, continuations_M=(different + at_start).astype(np.int32))

    def _context_of_entries(self) -> IntArray:
        return np.repeat(np.arange(self.keys_C.size), np.diff(self.starts_C1))

    def find(self, keys: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
        """The number of the context of each key, and whether there is one."""
        numbers = np.searchsorted(self.keys_C, keys)
        known = numbers < self.keys_C.size
        known[known] = self.keys_C[numbers[known]] == keys[known]
        return numbers, known

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays under names that start with `name`; `from_arrays` is the inverse."""
        named: dict[str, NDArray[Any]] = {
            f"{name}.keys": self.keys_C,
            f"{name}.starts": self.starts_C1,
            f"{name}.items": self.items_M,
            f"{name}.counts": self.counts_M,
        }
        if self.continuations_M is not None:
            named[f"{name}.continuations"] = self.continuations_M
        return named

    @classmethod
    def from_arrays(cls, named: Mapping[str, NDArray[Any]], name: str, num_items: int) -> Self:
        """Rebuild from `arrays`.

        Raises:
            KeyError: an array is missing.
            ArtefactError: the shape or the values of an array break a rule.
        """
        continuations = named.get(f"{name}.continuations")
        level = cls(
            named[f"{name}.keys"].astype(np.int64),
            named[f"{name}.starts"].astype(np.int64),
            named[f"{name}.items"].astype(np.int32),
            named[f"{name}.counts"].astype(np.int32),
            None if continuations is None else continuations.astype(np.int32),
        )
        level._check(name, num_items)
        return level

    def _check(self, name: str, num_items: int) -> None:
        what = f"transition counts of order {name}"
        more = self.counts_M if self.continuations_M is None else self.continuations_M
        shapes = self.starts_C1.size == self.keys_C.size + 1 and self.items_M.size == self.counts_M.size == more.size
        if not shapes or self.starts_C1[0] != 0 or self.starts_C1[-1] != self.items_M.size:
            raise ArtefactError(f"{what}: the lengths of the arrays do not match")
        if (np.diff(self.starts_C1) < 1).any() or (np.diff(self.keys_C) < 1).any():
            raise ArtefactError(f"{what}: contexts must be sorted, and each must have an entry")
        if self.items_M.size and (
            self.items_M.min() < 1 or self.items_M.max() > num_items or min(self.counts_M.min(), more.min()) < 1
        ):
            raise ArtefactError(f"{what}: an item is outside 1..{num_items}, or a count is below 1")
