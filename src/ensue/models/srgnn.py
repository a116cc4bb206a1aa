"""SR-GNN: sessions as graphs of their items (Wu et al., AAAI 2019).

Suffixes: `B` rows, `P` events of all rows, `Q` asked events, `G` rows of a group, `T` events of its longest row, `D`
width, `E` 2 D.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.models.base import MODELS, ModelEntry, NewestConfig
from ensue.models.catalogue import Catalogue
from ensue.models.tied import TiedEncoder
from ensue.nn.dropout import Dropout
from ensue.nn.model import check_newest
from ensue.nn.session_graph import SessionGraph, session_graphs


class SessionGraphConfig(NewestConfig):
    """Settings of a model of session graphs, which gives a state only at the newest event of a history."""

    maxlen: int = Field(50, ge=1, description="newest events of a history that the model reads")
    hidden_units: int = Field(100, ge=1, description="width of item vectors and states")
    dropout_rate: float = Field(0.0, ge=0, lt=1, description="dropout on the input item vectors")


class SRGNNConfig(SessionGraphConfig):
    """Settings of SR-GNN."""

    name: Literal["srgnn"] = "srgnn"
    num_steps: int = Field(1, ge=1, description="steps of the gated graph network")


class GatedGraph(nn.Module):
    """A step: m = [A_in (W_in h + b_in); A_out (W_out h + b_out)] + c, h <- GRU(m, h)."""

    def __init__(self, hidden_units: int) -> None:
        super().__init__()
        self.messages = nn.Linear(hidden_units, 2 * hidden_units)
        self.message_bias = nn.Parameter(torch.empty(2 * hidden_units))
        self.cell = nn.GRUCell(2 * hidden_units, hidden_units)

    def forward(self, h_PD: Tensor, graphs: list[SessionGraph], batch: SequenceBatch) -> Tensor:
        """The states of all events after the step, [P, D]; events of the same item in a row have equal ones."""
        rectangles = batch.layout.pad(self.messages(h_PD))
        received = []
        for x_GTE, graph in zip(rectangles, graphs, strict=True):
            incoming_GTD, outgoing_GTD = x_GTE.chunk(2, -1)
            in_GTT, out_GTT = graph.normalised(x_GTE.dtype)
            received.append(torch.cat((in_GTT @ incoming_GTD, out_GTT @ outgoing_GTD), -1))
        new_PD: Tensor = self.cell(batch.layout.unpad(received) + self.message_bias, h_PD)
        return new_PD


class SRGNN(TiedEncoder):
    """s = W [sum_t q . sigmoid(W_1 h_last + W_2 h_t) h_t; h_last], h by gated graph steps; score(i) = s . E[i].

    Where we differ from the authors' code: Xavier-normal weights instead of uniform ones, biases from zero; a graph is
    kept as rectangles over events, not over different items, which gives the same numbers.
    """

    answers_everywhere = False

    def __init__(self, config: SRGNNConfig, catalogue: Catalogue) -> None:
        width = config.hidden_units
        super().__init__(catalogue.num_items, config.maxlen, width)
        self.num_steps = config.num_steps
        self.dropout = Dropout(config.dropout_rate)
        self.graph = GatedGraph(width)
        self.of_last = nn.Linear(width, width)
        self.of_event = nn.Linear(width, width, bias=False)
        self.query = nn.Linear(width, 1, bias=False)
        self.joined = nn.Linear(2 * width, width)

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the newest events, [B, D].

        Raises:
            EnsueError: the batch asks for a state at another event.
        """
        check_newest(batch)
        graphs = session_graphs(batch.items_P, batch.layout)
        h_PD = self.dropout(self.events(batch))
        for _ in range(self.num_steps):
            h_PD = self.graph(h_PD, graphs, batch)
        last_BD = h_PD[batch.layout.last_B]
        row_P = torch.repeat_interleave(batch.lengths_B)
        alpha_P1 = self.query(torch.sigmoid(self.of_last(last_BD)[row_P] + self.of_event(h_PD)))
        whole_BD = torch.zeros_like(last_BD).index_add(0, row_P, alpha_P1 * h_PD)
        s_BD: Tensor = self.joined(torch.cat((whole_BD, last_BD), 1))
        return s_BD


MODELS.register("srgnn")(ModelEntry(SRGNNConfig, SRGNN))
