"""GCE-GNN: session graphs and a graph of all sessions (Wang et al., SIGIR 2020).

Suffixes: `B` rows, `P` events of all rows, `Q` asked events, `G` rows of a group, `T` events of its longest row, `N`
items, `K` neighbours of an item, `D` width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.batch import SequenceBatch
from ensue.data.neighbours import item_neighbours
from ensue.data.split import Sequences
from ensue.models.base import MODELS, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.models.srgnn import SessionGraphConfig
from ensue.models.tied import TiedEncoder
from ensue.nn.dropout import Dropout
from ensue.nn.model import check_newest
from ensue.nn.session_graph import SessionGraph, session_graphs

SLOPE = 0.2


class GCEGNNConfig(SessionGraphConfig):
    """Settings of GCE-GNN; the defaults are the authors' for Diginetica, except one layer for the graph of sessions."""

    name: Literal["gcegnn"] = "gcegnn"
    num_neighbours: int = Field(12, ge=1, description="number of neighbours of each item in the graph of all sessions")
    num_steps: int = Field(3, ge=1, description="largest number of steps between neighbours in a session")
    global_dropout_rate: float = Field(
        0.5, ge=0, lt=1, description="dropout on the contribution of the graph of all sessions"
    )


class LocalAttention(nn.Module):
    """h_i <- sum_j softmax_j(leaky(a_kind . (h_i * h_j))) h_j over i itself and the items before and after it."""

    def __init__(self, hidden_units: int) -> None:
        super().__init__()
        self.kinds = nn.Parameter(torch.empty(4, hidden_units))

    def forward(self, h_GTD: Tensor, graph: SessionGraph) -> Tensor:
        """The states of one rectangle, [G, T, D]."""
        itself = graph.same_GTT & graph.is_first_GT[:, None, :]
        follows, precedes = graph.follows_GTT & ~itself, graph.precedes_GTT & ~itself
        edges = (itself, follows & ~precedes, precedes & ~follows, follows & precedes)
        weight_GTT = h_GTD.new_full(itself.shape, torch.finfo(h_GTD.dtype).min)
        for kind_D, edge_GTT in zip(self.kinds, edges, strict=True):
            products_GTT = F.leaky_relu((h_GTD * kind_D) @ h_GTD.mT, SLOPE)
            weight_GTT = torch.where(edge_GTT, products_GTT, weight_GTT)
        return weight_GTT.softmax(-1) @ h_GTD


class GlobalAttention(nn.Module):
    """g_i = relu(W [h_i; sum_j pi_j h_j]), pi_j = softmax_j(q . leaky(V [s * h_j; w_ij])), j the neighbours of i."""

    def __init__(self, hidden_units: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(hidden_units + 1, hidden_units, bias=False)
        self.query = nn.Linear(hidden_units, 1, bias=False)
        self.joined = nn.Linear(2 * hidden_units, hidden_units, bias=False)

    def forward(self, h_PD: Tensor, session_PD: Tensor, near_PKD: Tensor, weight_PK: Tensor) -> Tensor:
        """The contribution of the neighbours of each event's item, [P, D]; without neighbours it is from W [h; 0]."""
        seen_PKD = torch.cat((session_PD[:, None] * near_PKD, weight_PK[..., None]), -1)
        pi_PK = self.query(F.leaky_relu(self.weigh(seen_PKD), SLOPE)).squeeze(-1)
        is_near_PK = weight_PK > 0
        pi_PK = pi_PK.masked_fill(~is_near_PK, torch.finfo(pi_PK.dtype).min).softmax(-1) * is_near_PK
        around_PD = (pi_PK[..., None] * near_PKD).sum(1)
        return F.relu(self.joined(torch.cat((h_PD, around_PD), 1)))


class GCEGNN(TiedEncoder):
    """s = sum_t beta_t h_t with h = local(E) + dropout(global(E)), beta by age and the mean of h; score(i) = s . E[i].

    Where we differ from the authors' code: the weight of a neighbour is log(1 + how often) instead of how often; one
    layer of the graph of all sessions, where theirs has two for Diginetica; Xavier-normal weights instead of uniform
    ones.
    """

    answers_everywhere = False

    def __init__(self, config: GCEGNNConfig, catalogue: Catalogue) -> None:
        width, num_items = config.hidden_units, catalogue.num_items
        super().__init__(num_items, config.maxlen, width)
        self.config = config
        self.dropout, self.global_dropout = Dropout(config.dropout_rate), Dropout(config.global_dropout_rate)
        self.local, self.everywhere = LocalAttention(width), GlobalAttention(width)
        self.positions = nn.Parameter(torch.empty(config.maxlen, width))
        self.placed = nn.Linear(2 * width, width)
        self.of_event = nn.Linear(width, width)
        self.of_mean = nn.Linear(width, width, bias=False)
        self.query = nn.Linear(width, 1, bias=False)
        shape = (num_items + 1, config.num_neighbours)
        self.register_buffer("near_NK", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("weight_NK", torch.zeros(shape))
        self.near_NK: Tensor
        self.weight_NK: Tensor

    def study(self, train: Sequences) -> None:
        """Compute the graph of all sessions from the training part."""
        super().study(train)
        near_NK, count_NK = item_neighbours(train, self.config.num_steps, self.config.num_neighbours)
        self.near_NK.copy_(torch.from_numpy(near_NK))
        self.weight_NK.copy_(torch.from_numpy(count_NK).log1p())

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the newest events, [B, D].

        Raises:
            EnsueError: the batch asks another event.
        """
        check_newest(batch)
        layout, items_P = batch.layout, batch.items_P
        graphs = session_graphs(items_P, layout)
        e_PD = self.events(batch)
        row_P = torch.repeat_interleave(batch.lengths_B)
        near_PKD = self.items(self.near_NK[items_P])
        around_PD = self.everywhere(e_PD, _mean(e_PD, row_P, batch)[row_P], near_PKD, self.weight_NK[items_P])
        local = [self.local(h_GTD, graph) for h_GTD, graph in zip(layout.pad(e_PD), graphs, strict=True)]
        h_PD = self.dropout(layout.unpad(local)) + self.global_dropout(around_PD)
        z_PD = torch.tanh(self.placed(torch.cat((self.positions[layout.age_P], h_PD), 1)))
        mean_BD = self.of_mean(_mean(h_PD, row_P, batch))
        beta_P1 = self.query(torch.sigmoid(self.of_event(z_PD) + mean_BD[row_P]))
        return torch.zeros_like(mean_BD).index_add(0, row_P, beta_P1 * h_PD)


def _mean(x_PD: Tensor, row_P: Tensor, batch: SequenceBatch) -> Tensor:
    """The mean over the events of each row, [B, D]."""
    sums_BD = x_PD.new_zeros(len(batch.lengths_B), x_PD.shape[1]).index_add(0, row_P, x_PD)
    return sums_BD / batch.lengths_B[:, None]


MODELS.register("gcegnn")(ModelEntry(GCEGNNConfig, GCEGNN))
