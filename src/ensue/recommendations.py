"""The result of one request: items by external id, best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ensue.data.vocabulary import ExternalId


@dataclass(frozen=True, slots=True)
class Recommendation:
    """An item, by its external id."""

    item: ExternalId
    score: float
    title: str | None = None


@dataclass(frozen=True)
class Recommendations(Sequence[Recommendation]):
    """Recommended items, best first.

    Attributes:
        items: the recommendations.
        unknown: ids of the history that are not in the model's vocabulary; they were skipped.
        note: a message if the items are only the most popular ones; otherwise None.
    """

    items: tuple[Recommendation, ...]
    unknown: tuple[ExternalId, ...] = ()
    note: str | None = None

    def __getitem__(self, place: Any) -> Any:
        return self.items[place]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ids(self) -> list[ExternalId]:
        """The external ids."""
        return [entry.item for entry in self.items]
