"""Where padding lives: the few groups of rows that attention sees as rectangles.

A batch is packed (all events of all rows one after another, `[P, ...]`), so every layer that works on one event
at a time never meets padding. Attention needs rectangles; the layout cuts the rows, sorted by length, into the
groups whose rectangles cost least. Every row keeps its own events, so this changes no number.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

# The cost of a group in units of one attention cell (measured on CPU, float32): a row of length T costs
# T * T cells and T * COPY for copying its queries, keys and values; every further group costs CALL.
COPY = 100
CALL = 50_000
CUTS = 32


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that attention sees together, as a rectangle of `rows x width` cells."""

    rows: int
    width: int
    cell_p: Tensor  # [p] the cell of each of the group's events, row * width + t
    padding_c: Tensor  # [c] the cells without an event
    length_G: Tensor  # [rows] events of each row


@dataclass(frozen=True, slots=True)
class Layout:
    """The groups of a packed batch, and the places of its events.

    Attributes:
        groups: the rectangles, longest rows first.
        sizes: events of each group.
        order_P: event numbers in the order of the groups; None when the rows are sorted already.
        inverse_P: the way back from that order; None likewise.
        inverse_B: the way back from the order of the groups' rows; None likewise.
        age_P: how many newer events the row has; 0 for the newest.
        last_B: the event number of each row's newest event.
    """

    groups: tuple[Group, ...]
    sizes: tuple[int, ...]
    order_P: Tensor | None
    inverse_P: Tensor | None
    inverse_B: Tensor | None
    age_P: Tensor
    last_B: Tensor

    def to(self, device: torch.device) -> Layout:
        """The same layout with its indices on `device`."""

        def move(index: Tensor) -> Tensor:
            return index.to(device, non_blocking=True)

        def maybe(index: Tensor | None) -> Tensor | None:
            return None if index is None else move(index)

        groups = tuple(Group(g.rows, g.width, move(g.cell_p), move(g.padding_c), move(g.length_G)) for g in self.groups)
        return Layout(
            groups,
            self.sizes,
            maybe(self.order_P),
            maybe(self.inverse_P),
            maybe(self.inverse_B),
            move(self.age_P),
            move(self.last_B),
        )

    def parts(self) -> list[tuple[Group, slice, slice]]:
        """Each group with the run of events and the run of rows that are its own, in the order of the groups."""
        events = pairwise(accumulate(self.sizes, initial=0))
        rows = pairwise(accumulate((group.rows for group in self.groups), initial=0))
        return [(g, slice(*e), slice(*r)) for g, e, r in zip(self.groups, events, rows, strict=True)]

    def pad(self, x_PD: Tensor) -> list[Tensor]:
        """Cut packed events [P, ...] into one rectangle [rows, width, ...] per group; padding is zero."""
        if self.order_P is not None:
            x_PD = x_PD.index_select(0, self.order_P)
        parts = torch.split(x_PD, list(self.sizes))
        return [_pad(part, group) for part, group in zip(parts, self.groups, strict=True)]

    def unpad(self, rectangles: list[Tensor]) -> Tensor:
        """Undo `pad`: the events of all rectangles as [P, ...], in the batch's own order."""
        packed = [_unpad(x_GTD, group) for x_GTD, group in zip(rectangles, self.groups, strict=True)]
        x_PD = torch.cat(packed) if len(packed) > 1 else packed[0]
        return x_PD if self.inverse_P is None else x_PD.index_select(0, self.inverse_P)

    def join_rows(self, rows: list[Tensor]) -> Tensor:
        """One tensor [B, ...] from a tensor [rows, ...] per group, in the batch's own order of rows."""
        x_BD = torch.cat(rows) if len(rows) > 1 else rows[0]
        return x_BD if self.inverse_B is None else x_BD.index_select(0, self.inverse_B)


def make_layout(lengths_B: np.ndarray) -> Layout:
    """Plan the rectangles of a batch whose rows have these lengths (each at least 1)."""
    lengths = lengths_B.astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    age_P = np.repeat(offsets[1:] - 1, lengths) - np.arange(offsets[-1])
    rows = np.argsort(-lengths, kind="stable")
    is_sorted = bool((rows == np.arange(len(rows))).all())
    ordered = lengths[rows]
    groups, sizes = [], []
    for start, stop in _cut(ordered):
        part = ordered[start:stop]
        width = int(part[0])
        t = np.arange(part.sum()) - np.repeat(np.cumsum(part) - part, part)
        cell_p = np.repeat(np.arange(stop - start) * width, part) + t
        is_padding = np.ones((stop - start) * width, dtype=bool)
        is_padding[cell_p] = False
        padding_c = torch.from_numpy(np.flatnonzero(is_padding))
        groups.append(Group(stop - start, width, torch.from_numpy(cell_p), padding_c, torch.from_numpy(part)))
        sizes.append(int(part.sum()))
    order_P = inverse_P = inverse_B = None
    if not is_sorted:
        order = np.repeat(offsets[rows] - (np.cumsum(ordered) - ordered), ordered) + np.arange(offsets[-1])
        order_P, inverse_P = torch.from_numpy(order), torch.from_numpy(np.argsort(order))
        inverse_B = torch.from_numpy(np.argsort(rows))
    last_B = torch.from_numpy(offsets[1:] - 1)
    return Layout(tuple(groups), tuple(sizes), order_P, inverse_P, inverse_B, torch.from_numpy(age_P), last_B)


def _cut(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Cut rows, longest first, into consecutive groups of least total cost (exact for CUTS possible cuts)."""
    if len(lengths) == 1:
        return [(0, 1)]
    edges = np.unique(np.linspace(0, len(lengths), min(CUTS, len(lengths)) + 1).astype(np.int64))
    width = lengths[edges[:-1]].astype(np.float64)
    # cost[first, end]: that of a group from one edge to another, as wide as its first row.
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


class _Pad(torch.autograd.Function):
    """`place`, whose gradient is `take`: a function of its own, for both are mere copies."""

    @staticmethod
    def forward(ctx: Any, x_pD: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return place(x_pD, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return take(grads[0], ctx.group), None


class _Unpad(torch.autograd.Function):
    """`take`, whose gradient is `place`."""

    @staticmethod
    def forward(ctx: Any, x_GTD: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return take(x_GTD, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return place(grads[0], ctx.group), None


def _pad(x_pD: Tensor, group: Group) -> Tensor:
    if x_pD.shape[0] == group.rows * group.width:
        return place(x_pD, group)
    placed: Tensor = _Pad.apply(x_pD, group)  # type: ignore[no-untyped-call]
    return placed


def _unpad(x_GTD: Tensor, group: Group) -> Tensor:
    if group.cell_p.shape[0] == group.rows * group.width:
        return take(x_GTD, group)
    taken: Tensor = _Unpad.apply(x_GTD, group)  # type: ignore[no-untyped-call]
    return taken
