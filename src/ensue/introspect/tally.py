"""Means and maxima of observations that arrive in batches.

Suffixes: `P` observations, `X` any further dimensions.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Tally:
    """Sums by name; each value of the first dimension is one observation."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._peaks: dict[str, float] = {}

    def add(self, name: str, values_PX: Tensor) -> None:
        """Add observations, [P, ...]."""
        # On the CPU, as not every device has float64.
        values_PX = values_PX.cpu()
        total = values_PX.double().sum(0)
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._counts[name] = self._counts.get(name, 0) + len(values_PX)
        if values_PX.dim() == 1:
            self._peaks[name] = max(self._peaks.get(name, -float("inf")), float(values_PX.max()))

    def __contains__(self, name: object) -> bool:
        return name in self._sums

    def mean(self, name: str) -> Any:
        """The mean: a number, or nested lists of the shape of an observation."""
        return (self._sums[name] / self._counts[name]).tolist()

    def peak(self, name: str) -> float:
        """The largest of the observations; they must be numbers."""
        return self._peaks[name]

    def count(self, name: str) -> int:
        """The number of observations."""
        return self._counts[name]
