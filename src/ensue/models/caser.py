"""Caser: convolutions over the newest items (Tang & Wang, WSDM 2018).

Suffixes: `B` rows, `P` events of all rows, `Q` asked events, `G` rows of a group, `T` events of its longest row, `L`
events of a window, `W` T + L - 1 places, `F` filters, `D` width, `E` what the filters give.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.batch import SequenceBatch
from ensue.batches.tasks import TASKS, Task, next_of
from ensue.models.base import MODELS, CausalConfig, ModelEntry
from ensue.models.biased import BiasedEncoder, with_one
from ensue.models.catalogue import Catalogue
from ensue.models.fpmc import UserVectors
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import ItemEmbedding


class CaserConfig(CausalConfig):
    """Settings of Caser; the defaults are the authors' for MovieLens-1M."""

    name: Literal["caser"] = "caser"
    hidden_units: int = Field(50, ge=1, description="width of item vectors and states")
    window_events: int = Field(5, ge=1, description="newest events that the filters cover (the authors' L)")
    next_items: int = Field(
        3, ge=1, description="task next: the target is one of this many next items, drawn again in every epoch"
    )
    horizontal_filters: int = Field(16, ge=1, description="filters of each height 1 .. window_events")
    vertical_filters: int = Field(4, ge=1, description="weighted sums of the window's item vectors")
    dropout_rate: float = Field(0.5, ge=0, lt=1, description="dropout on the output of the filters")
    user: Literal["none", "vectors", "history"] = Field(
        "none", description="beside the window's state: a vector per user, or the mean of a second vector per item read"
    )

    def make_task(self) -> Task:
        """The task that `task` names, with one of `next_items` next items for `next`."""
        return next_of(self.next_items) if self.task == "next" else TASKS[self.task]


class Filters(nn.Module):
    """Horizontal and vertical filters over the window that ends at each event: [G, T, D] to [G, T, E].

    Neighbouring windows share all but one event, so a filter of height h meets each h events once, and the maximum over
    the places of a window slides. Places before a row's first event hold zeros. `naive_filters` is the form for one
    window.
    """

    def __init__(self, config: CaserConfig) -> None:
        super().__init__()
        width, self.length = config.hidden_units, config.window_events
        self.horizontal = nn.ModuleList(
            nn.Conv1d(width, config.horizontal_filters, height) for height in range(1, self.length + 1)
        )
        self.vertical_LF = nn.Parameter(torch.empty(self.length, config.vertical_filters))
        self.size = self.length * config.horizontal_filters + width * config.vertical_filters

    def forward(self, x_GTD: Tensor) -> Tensor:
        """What the filters give at every event."""
        x_GDW = F.pad(x_GTD, (0, 0, self.length - 1, 0)).transpose(1, 2)
        horizontal = [
            F.max_pool1d(F.relu(filters(x_GDW)), self.length - height, stride=1).transpose(1, 2)
            for height, filters in enumerate(self.horizontal)
        ]
        vertical_GTDF = (x_GDW.unfold(2, self.length, 1) @ self.vertical_LF).transpose(1, 2)
        return torch.cat((*horizontal, vertical_GTDF.flatten(2)), 2)


def naive_filters(filters: Filters, window_LD: Tensor) -> Tensor:
    """The plain form of `Filters` for one window, [E]."""
    out = []
    for convolution in filters.horizontal:
        assert isinstance(convolution, nn.Conv1d)
        height = convolution.kernel_size[0]
        for weight_Dh, bias in zip(convolution.weight, convolution.bias, strict=True):  # type: ignore[arg-type]
            places = [(window_LD[t : t + height] * weight_Dh.T).sum() for t in range(len(window_LD) - height + 1)]
            out.append(F.relu(torch.stack(places) + bias).max()[None])
    return torch.cat((*out, (window_LD.T @ filters.vertical_LF).flatten()))


class Caser(BiasedEncoder):
    """h = relu(W dropout(filters(last L of E[items])) + b), score(h, i) = h . E'[i] + b_i.

    Where we differ from the authors' code: all windows of a row in one pass; one of the T next items is drawn as the
    target of a step, while theirs sums over all T; a user without training events has a zero vector or, with
    `user = "history"`, the mean vector of the items read.
    """

    def __init__(self, config: CaserConfig, catalogue: Catalogue) -> None:
        width, num_items = config.hidden_units, catalogue.num_items
        has_users = config.user == "vectors" and catalogue.num_users > 0
        has_history = config.user == "history"
        super().__init__(num_items, config.maxlen, 2 * width if has_users or has_history else width)
        self.users = UserVectors(catalogue.num_users, width) if has_users else None
        self.liked = ItemEmbedding(num_items, width) if has_history else None
        self.inputs = ItemEmbedding(num_items, width)
        self.filters = Filters(config)
        self.out = nn.Linear(self.filters.size, width)
        self.dropout = Dropout(config.dropout_rate)

    @property
    def input_table(self) -> ItemEmbedding:
        """The input vectors, which are not those that score."""
        return self.inputs

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D + 1], or [Q, 2 D + 1] with a user's vector."""
        layout = batch.layout
        rectangles = layout.pad(self.events(batch))
        filtered_QE = layout.choose(layout.unpad([self.filters(x_GTD) for x_GTD in rectangles]))
        h_QD = F.relu(self.out(self.dropout(filtered_QE)))
        if self.users is not None:
            unknown_B = torch.zeros_like(batch.lengths_B)
            users_B = unknown_B if batch.users_B is None else batch.users_B
            h_QD = torch.cat((h_QD, self.users(users_B[batch.row_Q])), 1)
        if self.liked is not None:
            sums_PD = layout.unpad([x_GTD.cumsum(1) for x_GTD in layout.pad(self.liked(batch.items_P))])
            place_P = batch.lengths_B.repeat_interleave(batch.lengths_B) - layout.age_P
            h_QD = torch.cat((h_QD, layout.choose(sums_PD / place_P[:, None])), 1)
        return with_one(h_QD)


MODELS.register("caser")(ModelEntry(CaserConfig, Caser))
