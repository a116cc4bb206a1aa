"""Search for items by words of their titles, or by id."""

from __future__ import annotations

import unicodedata

import numpy as np
import polars as pl

from ensue.runs.run import Run
from ensue.serving.schemas import Item


def folded(text: str) -> str:
    """The text without case and accents.

    >>> folded("Amélie")
    'amelie'
    """
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in parts if not unicodedata.combining(letter))


class ItemSearch:
    """The items of a run, searched by words; the most popular first."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._events = run.items["events"].to_numpy()
        names = [str(each) for each in run.item_ids.ids]
        titles = run.titles[1:] if run.titles else [None] * len(names)
        text = [folded(f"{title or ''}\n{name}") for title, name in zip(titles, names, strict=True)]
        self._text = pl.Series("text", text)

    def named(self, numbers: np.ndarray) -> tuple[Item, ...]:
        """The items of these numbers."""
        titles = self.run.titles
        ids = self.run.item_ids.decode(numbers)
        return tuple(
            Item(external, titles[number] if titles else None, int(self._events[number - 1]))
            for external, number in zip(ids, numbers.tolist(), strict=True)
        )

    def __call__(self, words: str, k: int) -> tuple[Item, ...]:
        """At most `k` items whose title or id contains all words; without a word, the most popular items."""
        is_match = np.ones(len(self._text), dtype=bool)
        for word in folded(words).split():
            is_match &= self._text.str.contains(word, literal=True).to_numpy()
        numbers = np.flatnonzero(is_match) + 1
        order = np.argsort(-self._events[numbers - 1], kind="stable")[:k]
        return self.named(numbers[order])
