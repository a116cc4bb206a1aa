"""Augmentations: other views of the same histories, for contrastive terms. Every draw comes from the given stream.

Sources: crop, mask and reorder: CL4SRec (Xie et al., ICDE 2022), section 3.2; substitute and insert: CoSeRec (Liu et
al., 2021, arXiv 2108.06479), section 4.1; the shares are theirs.

Suffixes: `B` rows, `P` events of all rows before, `V` events of all rows after, `N` items, `R` rows of a view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensue.batches.batch import SequenceBatch
from ensue.data.arrays import gather_events
from ensue.data.split import Sequences
from ensue.registry import OWN, Registry

CROPPED, MASKED, REORDERED, SUBSTITUTED, INSERTED = 0.6, 0.3, 0.6, 0.1, 0.4


@dataclass(frozen=True, slots=True)
class View:
    """Histories, packed.

    Attributes:
        items_V: the items.
        event_V: the event of the original batch that each stands for, whose times it has.
        lengths_B: events of each row, at least 1.
    """

    items_V: np.ndarray
    event_V: np.ndarray
    lengths_B: np.ndarray

    @property
    def start_B(self) -> np.ndarray:
        """The number of each row's first event."""
        start_B: np.ndarray = np.cumsum(self.lengths_B) - self.lengths_B
        return start_B

    def take(self, events: np.ndarray, lengths_B: np.ndarray) -> View:
        """The events of these numbers, as rows of these lengths."""
        return View(self.items_V[events], self.event_V[events], lengths_B)


# (view, a similar item of each item [N + 2], stream) -> view.
Augmentation = Callable[[View, np.ndarray, np.random.Generator], View]
AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation", hint=OWN)


def _part(lengths_B: np.ndarray, share: float) -> np.ndarray:
    """A share of each row's events, at least one."""
    part_B: np.ndarray = np.maximum(1, np.floor(share * lengths_B).astype(np.int64))
    return part_B


def _drawn(view: View, count_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Numbers of that many events of each row, ascending."""
    row_V = np.repeat(np.arange(len(view.lengths_B)), view.lengths_B)
    order_V = np.lexsort((rng.random(len(row_V)), row_V))
    events: np.ndarray = np.sort(order_V[gather_events(view.start_B, view.start_B + count_B)])
    return events


def _stretch(view: View, count_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Numbers of that many events of each row, one after another, from a random place on."""
    first_B = view.start_B + rng.integers(0, view.lengths_B - count_B + 1)
    return gather_events(first_B, first_B + count_B)


@AUGMENTATIONS.register("crop")
def crop(view: View, similar: np.ndarray, rng: np.random.Generator) -> View:
    """A stretch of each row: 1 2 3 4 5 becomes 2 3 4."""
    count_B = _part(view.lengths_B, CROPPED)
    return view.take(_stretch(view, count_B, rng), count_B)


@AUGMENTATIONS.register("mask")
def mask(view: View, similar: np.ndarray, rng: np.random.Generator) -> View:
    """Some events are left out, since encoders have no [MASK]: 1 2 3 4 5 becomes 1 2 4 5."""
    count_B = np.minimum(_part(view.lengths_B, MASKED), view.lengths_B - 1)
    kept = np.delete(np.arange(len(view.items_V)), _drawn(view, count_B, rng))
    return view.take(kept, view.lengths_B - count_B)


@AUGMENTATIONS.register("reorder")
def reorder(view: View, similar: np.ndarray, rng: np.random.Generator) -> View:
    """The items of a stretch change places: 1 2 3 4 5 becomes 1 4 2 3 5; times stay where they are."""
    count_B = _part(view.lengths_B, REORDERED)
    events = _stretch(view, count_B, rng)
    row = np.repeat(np.arange(len(count_B)), count_B)
    items_V = view.items_V.copy()
    items_V[events] = items_V[events[np.lexsort((rng.random(len(events)), row))]]
    return replace(view, items_V=items_V)


@AUGMENTATIONS.register("substitute")
def substitute(view: View, similar: np.ndarray, rng: np.random.Generator) -> View:
    """Some items become similar ones: 1 2 3 4 5 becomes 1 2 3' 4 5."""
    events = _drawn(view, _part(view.lengths_B, SUBSTITUTED), rng)
    items_V = view.items_V.copy()
    items_V[events] = similar[items_V[events]]
    return replace(view, items_V=items_V)


@AUGMENTATIONS.register("insert")
def insert(view: View, similar: np.ndarray, rng: np.random.Generator) -> View:
    """Similar items come before some events: 1 2 3 4 5 becomes 1 2' 2 3 4' 4 5."""
    count_B = _part(view.lengths_B, INSERTED)
    events = _drawn(view, count_B, rng)
    longer = view.take(np.sort(np.append(np.arange(len(view.items_V)), events)), view.lengths_B + count_B)
    new = events + np.arange(len(events))
    longer.items_V[new] = similar[longer.items_V[new]]
    return longer


def similar_items(train: Sequences) -> np.ndarray:
    """The item that stands next to each most often in the training rows, ties by number: int64 [N + 2].

    An item that has no other beside it is its own; so are padding and item N + 1, which may stand for [MASK].
    """
    num_items = train.store.num_items
    items_P, row_P = train.items_P.astype(np.int64), np.repeat(np.arange(len(train)), train.lengths_R)
    are_pairs = (row_P[1:] == row_P[:-1]) & (items_P[1:] != items_P[:-1])
    first, second = items_P[:-1][are_pairs], items_P[1:][are_pairs]
    keys, counts = np.unique(np.append(first, second) * (num_items + 1) + np.append(second, first), return_counts=True)
    item, neighbour = np.divmod(keys, num_items + 1)
    best = np.lexsort((neighbour, -counts, item))
    best = best[np.diff(item[best], prepend=-1) != 0]
    similar = np.arange(num_items + 2)
    similar[item[best]] = neighbour[best]
    return similar


def augmented(
    batch: SequenceBatch,
    names: Sequence[str],
    choice_B: np.ndarray,
    similar: np.ndarray,
    rng: np.random.Generator,
) -> SequenceBatch:
    """A batch's histories, each changed by one augmentation; the newest event of each is asked, without a target.

    No row is longer than the batch's longest: the oldest events of a longer one are left out.

    Args:
        batch: the histories, on the CPU.
        names: the augmentations to choose from.
        choice_B: the one of each row, as a place in `names`.
        similar: from `similar_items`.
        rng: the stream of this view.
    """
    lengths_B = batch.lengths_B.numpy()
    whole = View(batch.items_P.numpy(), np.arange(len(batch.items_P)), lengths_B)
    views, rows = [], []
    for number, name in enumerate(names):
        own = np.flatnonzero(choice_B == number)
        part = whole.take(gather_events(whole.start_B[own], whole.start_B[own] + lengths_B[own]), lengths_B[own])
        views.append(AUGMENTATIONS[name](part, similar, rng))
        rows.append(own)
    joined = View(
        np.concatenate([view.items_V for view in views]),
        np.concatenate([view.event_V for view in views]),
        np.concatenate([view.lengths_B for view in views]),
    )
    order = np.argsort(np.concatenate(rows))
    stop_B = (joined.start_B + joined.lengths_B)[order]
    kept_B = np.minimum(joined.lengths_B[order], lengths_B.max())
    view = joined.take(gather_events(stop_B - kept_B, stop_B), kept_B)
    times_V, query_V = (None if x is None else x.numpy()[view.event_V] for x in (batch.times_P, batch.query_times_P))
    features = None
    if batch.features is not None:
        features = {name: codes_P.numpy()[view.event_V] for name, codes_P in batch.features.items()}
    changed = SequenceBatch.from_numpy(view.items_V, view.lengths_B, times_V, query_V, features=features)
    return replace(changed, users_B=batch.users_B)
