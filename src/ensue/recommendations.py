"""The answer to one request: items from the best down, by their external ids."""

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
    """Items from the best down, and what there is to know about them.

    Attributes:
        items: the recommendations.
        unknown: ids of the history that the model does not know; they were skipped.
        note: says so when the items are merely the popular ones; else None.
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
        """The external ids alone."""
        return [entry.item for entry in self.items]
