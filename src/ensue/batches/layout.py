"""The layout of a packed batch: the rectangles that attention computes on, and the events that are asked.

A batch is packed (the events of all rows one after another, `[P, ...]`), so layers that work on one event at a time
process no padding. Attention needs rectangles: the layout sorts the rows by length and cuts them into the groups with
the cheapest rectangles. The grouping changes no result.

Suffixes: `B` rows of the batch, `P` events of all rows, `Q` asked events; within one group `G` rows, `T` events of the
longest row, `A` asked events of the row that has the most, `p` events, `q` asked events, `c` cells; `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

# The cost of a group in units of one attention cell (measured on CPU, float32): a row of length T costs T * T cells,
# plus T * COPY for copying its queries, keys and values; each additional group costs CALL.
COPY = 100
CALL = 50_000
CUTS = 32


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that attention computes together, as a rectangle of `rows x width` cells."""

    rows: int
    width: int
    cell_p: Tensor  # [p] the cell of each event of the group, row * width + t
    padding_c: Tensor  # [c] the cells without an event
    length_G: Tensor  # [rows] events of each row


@dataclass(frozen=True, slots=True)
class Asked:
    """The asked events of a batch, in separate rectangles.

    Attributes:
        event_Q: their event numbers, ascending.
        groups: for each group of the layout, the rectangle [rows, A] of its asked events; A may be 0.
        sizes: number of asked events in each group.
        places: for each group [rows, A], the place of each asked event in its row (0 is the oldest); 0 for padding.
        order_Q: numbers 0..Q-1 of the asked events in the order of the groups; None if the order is the same.
        inverse_Q: the inverse of `order_Q`, or None.
    """

    event_Q: Tensor
    groups: tuple[Group, ...]
    sizes: tuple[int, ...]
    places: tuple[Tensor, ...]
    order_Q: Tensor | None
    inverse_Q: Tensor | None


@dataclass(frozen=True, slots=True)
class Layout:
    """The groups of a packed batch, the places of its events, and which of them are asked.

    Attributes:
        groups: the rectangles, longest rows first.
        sizes: number of events in each group.
        order_P: event numbers in the order of the groups; None if the rows are already sorted.
        inverse_P: the inverse of `order_P`, or None.
        inverse_B: the inverse of the order of the rows in the groups, or None.
        age_P: number of newer events in the same row; 0 for the newest.
        last_B: event number of each row's newest event.
        asked: the asked events; None if all events are asked.
    """

    groups: tuple[Group, ...]
    sizes: tuple[int, ...]
    order_P: Tensor | None
    inverse_P: Tensor | None
    inverse_B: Tensor | None
    age_P: Tensor
    last_B: Tensor
    asked: Asked | None = None

    @property
    def asked_Q(self) -> Tensor | None:
        """Event numbers of the asked events, int64, ascending; None if all are asked."""
        return None if self.asked is None else self.asked.event_Q

    @property
    def everything(self) -> Layout:
        """The same rectangles with all events asked."""
        return self if self.asked is None else replace(self, asked=None)

    def choose(self, x_PD: Tensor) -> Tensor:
        """Select the asked events, [P, ...] -> [Q, ...]; `x_PD` itself if all are asked."""
        return x_PD if self.asked is None else x_PD.index_select(0, self.asked.event_Q)

    def to(self, device: torch.device) -> Layout:
        """The same layout with its indices on `device`."""
        moved: Layout = _moved(self, device)
        return moved

    def parts(self) -> list[tuple[Group, slice, slice]]:
        """Each group with its slice of events and its slice of rows, in the order of the groups."""
        events = slices(self.sizes)
        rows = slices([group.rows for group in self.groups])
        return list(zip(self.groups, events, rows, strict=True))

    def pad(self, x_PD: Tensor) -> list[Tensor]:
        """Cut packed events [P, ...] into one rectangle [rows, width, ...] per group; padding is zero."""
        return _rectangles(x_PD, self.order_P, self)

    def unpad(self, rectangles: list[Tensor]) -> Tensor:
        """Undo `pad`: the events of all rectangles as [P, ...], in the batch's own order."""
        return _packed(rectangles, self.inverse_P, self)

    def pad_asked(self, x_QD: Tensor) -> list[Tensor]:
        """Cut the asked events [Q, ...] into one rectangle [rows, A, ...] per group; padding is zero."""
        return self.pad(x_QD) if self.asked is None else _rectangles(x_QD, self.asked.order_Q, self.asked)

    def unpad_asked(self, rectangles: list[Tensor]) -> Tensor:
        """Undo `pad_asked`: the asked events of all rectangles as [Q, ...], in the order of `asked_Q`."""
        return self.unpad(rectangles) if self.asked is None else _packed(rectangles, self.asked.inverse_Q, self.asked)

    def join_rows(self, rows: list[Tensor]) -> Tensor:
        """One tensor [B, ...] from a tensor [rows, ...] per group, in the batch's own order of rows."""
        x_BD = torch.cat(rows) if len(rows) > 1 else rows[0]
        return x_BD if self.inverse_B is None else x_BD.index_select(0, self.inverse_B)

    def split_rows(self, x_BD: Tensor) -> list[Tensor]:
        """Undo `join_rows`: a tensor [rows, ...] per group."""
        if self.inverse_B is not None:
            x_BD = x_BD.index_select(0, self.inverse_B.argsort())
        return list(torch.split(x_BD, [group.rows for group in self.groups]))


def _rectangles(x_PD: Tensor, order_P: Tensor | None, plan: Layout | Asked) -> list[Tensor]:
    if order_P is not None:
        x_PD = x_PD.index_select(0, order_P)
    parts = torch.split(x_PD, list(plan.sizes))
    return [pad_group(part, group) for part, group in zip(parts, plan.groups, strict=True)]


def _packed(rectangles: list[Tensor], inverse_P: Tensor | None, plan: Layout | Asked) -> Tensor:
    packed = [unpad_group(x_GTD, group) for x_GTD, group in zip(rectangles, plan.groups, strict=True)]
    x_PD = torch.cat(packed) if len(packed) > 1 else packed[0]
    return x_PD if inverse_P is None else x_PD.index_select(0, inverse_P)


def slices(sizes: Sequence[int]) -> list[slice]:
    """Consecutive slices of these sizes, from 0."""
    return [slice(start, stop) for start, stop in pairwise(accumulate(sizes, initial=0))]


def newest(lengths_B: np.ndarray) -> np.ndarray:
    """The event number of each row's newest event, [B]."""
    last_B: np.ndarray = np.cumsum(lengths_B.astype(np.int64)) - 1
    return last_B


def make_layout(lengths_B: np.ndarray, asked_Q: np.ndarray | None = None) -> Layout:
    """Plan the rectangles of a batch.

    Args:
        lengths_B: events of each row, at least 1.
        asked_Q: the asked events: distinct event numbers, ascending; None: all.
    """
    lengths = lengths_B.astype(np.int64)
    last_B = newest(lengths)
    age_P = np.repeat(last_B, lengths) - np.arange(lengths.sum())
    rows = np.argsort(-lengths, kind="stable")
    ordered = lengths[rows]
    cuts = _cut(ordered)
    groups = tuple(_group(ordered[start:stop], int(ordered[start])) for start, stop in cuts)
    order_P = inverse_P = inverse_B = None
    if not (rows == np.arange(len(rows))).all():
        order_P, inverse_P = _order(lengths, rows)
        inverse_B = torch.from_numpy(np.argsort(rows))
    asked = None
    if asked_Q is not None and len(asked_Q) < len(age_P):
        asked = _ask(asked_Q.astype(np.int64), lengths, rows, cuts)
    return Layout(
        groups,
        tuple(len(group.cell_p) for group in groups),
        order_P,
        inverse_P,
        inverse_B,
        torch.from_numpy(age_P),
        torch.from_numpy(last_B),
        asked,
    )


def _ask(asked_Q: np.ndarray, lengths_B: np.ndarray, rows: np.ndarray, cuts: list[tuple[int, int]]) -> Asked:
    """The rectangles of the asked events, for rows that are sorted by `rows` and cut at `cuts`."""
    start_B = np.cumsum(lengths_B) - lengths_B
    row_Q = np.searchsorted(start_B, asked_Q, side="right") - 1
    count_B = np.bincount(row_Q, minlength=len(lengths_B))
    ordered = count_B[rows]
    groups = tuple(_group(ordered[start:stop], int(ordered[start:stop].max())) for start, stop in cuts)
    sizes = tuple(len(group.cell_p) for group in groups)
    place_Q = torch.from_numpy(asked_Q - start_B[row_Q])
    order_Q = inverse_Q = None
    if not (rows == np.arange(len(rows))).all():
        order_Q, inverse_Q = _order(count_B, rows)
        place_Q = place_Q[order_Q]
    places = tuple(place(part, group) for part, group in zip(torch.split(place_Q, list(sizes)), groups, strict=True))
    return Asked(torch.from_numpy(asked_Q), groups, sizes, places, order_Q, inverse_Q)


def _group(lengths_G: np.ndarray, width: int) -> Group:
    """The rectangle of rows with these lengths."""
    rows = len(lengths_G)
    t_p = np.arange(lengths_G.sum()) - np.repeat(np.cumsum(lengths_G) - lengths_G, lengths_G)
    cell_p = np.repeat(np.arange(rows) * width, lengths_G) + t_p
    is_padding = np.ones(rows * width, dtype=bool)
    is_padding[cell_p] = False
    padding_c = torch.from_numpy(np.flatnonzero(is_padding))
    return Group(rows, width, torch.from_numpy(cell_p), padding_c, torch.from_numpy(lengths_G))


def _order(lengths_B: np.ndarray, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """The order of packed values if the rows are sorted by `rows`, and the inverse of that order."""
    start_B, ordered = np.cumsum(lengths_B) - lengths_B, lengths_B[rows]
    order = np.repeat(start_B[rows] - (np.cumsum(ordered) - ordered), ordered) + np.arange(ordered.sum())
    return torch.from_numpy(order), torch.from_numpy(np.argsort(order))


def _moved(value: Any, device: torch.device) -> Any:
    """A copy of a layout, or of a part of it, with all tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, tuple):
        return tuple(_moved(each, device) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _moved(getattr(value, field.name), device) for field in fields(value)})
    return value


def _cut(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Cut rows, longest first, into consecutive groups of minimum total cost (exact among CUTS possible cuts)."""
    if len(lengths) == 1:
        return [(0, 1)]
    edges = np.unique(np.linspace(0, len(lengths), min(CUTS, len(lengths)) + 1).astype(np.int64))
    width = lengths[edges[:-1]].astype(np.float64)
    # cost[first, end]: the cost of a group from one edge to another, as wide as its first row.
    cost = (edges - edges[:-1, None]) * (width * (width + COPY))[:, None] + CALL
    best = np.zeros(len(edges))
    came_from = [0] * len(edges)
    for end in range(1, len(edges)):
        total = best[:end] + cost[:end, end]
        came_from[end] = int(total.argmin())
        best[end] = total[came_from[end]]
    cuts = [len(edges) - 1]
    while cuts[-1] > 0:
        cuts.append(came_from[cuts[-1]])
    cuts.reverse()
    return [(int(edges[a]), int(edges[b])) for a, b in pairwise(cuts)]


def place(x_pD: Tensor, group: Group) -> Tensor:
    """The group's events, [p, ...], as its rectangle, [rows, width, ...]; padding is zero. Outside autograd."""
    shape = (group.rows, group.width, *x_pD.shape[1:])
    if x_pD.shape[0] == group.rows * group.width:
        return x_pD.reshape(shape)
    cells = x_pD.new_empty(group.rows * group.width, *x_pD.shape[1:])
    return cells.index_copy_(0, group.cell_p, x_pD).index_fill_(0, group.padding_c, 0).view(shape)


def take(x_GTD: Tensor, group: Group, out_pD: Tensor | None = None) -> Tensor:
    """The events of a rectangle, [p, ...], into `out_pD` if given: the inverse of `place`. Outside autograd."""
    cells = x_GTD.reshape(group.rows * group.width, *x_GTD.shape[2:])
    if group.cell_p.shape[0] == cells.shape[0]:
        return cells if out_pD is None else out_pD.copy_(cells)
    return torch.index_select(cells, 0, group.cell_p, out=out_pD)


Move = Callable[[Tensor, Group], Tensor]


class _Moved(torch.autograd.Function):
    """`place` or `take`, whose gradient is the other: both only copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, move: Move, back: Move) -> Tensor:
        ctx.group, ctx.back = group, back
        return move(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        moved: Tensor = ctx.back(grads[0], ctx.group)
        return moved, None, None, None


def pad_group(x_pD: Tensor, group: Group) -> Tensor:
    """`place`, with a gradient."""
    if x_pD.shape[0] == group.rows * group.width:
        return place(x_pD, group)
    placed: Tensor = _Moved.apply(x_pD, group, place, take)  # type: ignore[no-untyped-call]
    return placed


def unpad_group(x_GTD: Tensor, group: Group) -> Tensor:
    """`take`, with a gradient."""
    if group.cell_p.shape[0] == group.rows * group.width:
        return take(x_GTD, group)
    taken: Tensor = _Moved.apply(x_GTD, group, take, place)  # type: ignore[no-untyped-call]
    return taken
