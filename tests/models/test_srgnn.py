"""SR-GNN keeps the contract, and is the graph network of each session computed alone."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import built

from ensue.batches.batch import SequenceBatch
from ensue.models.srgnn import SRGNN, SRGNNConfig
from ensue.nn.session_graph import session_graphs
from ensue.testing import ModelContract

SMALL = SRGNNConfig(maxlen=16, hidden_units=16)
HISTORIES = [[5], [1, 2, 1, 3, 2, 1, 2], [7, 7], [9, 8, 7, 6, 5, 4, 3, 2], [4, 9, 4, 4, 9, 30]]


class TestSRGNN(ModelContract):
    # Narrow, the sums over longer histories than those of training mislead it.
    config = SMALL.replace(hidden_units=64, dropout_rate=0.2)
    train: ClassVar = ModelContract.train.replace(num_epochs=6, eval_epochs=6, lr=0.005)


def model_of(**changes: object) -> SRGNN:
    return built(SRGNN, SMALL.replace(**changes), biases=True)


def naive_state(model: SRGNN, session: list[int]) -> Tensor:
    """The session alone, as in the paper: nodes are different items, and the matrices are filled edge by edge."""
    nodes = list(dict.fromkeys(session))
    count, alias = len(nodes), [nodes.index(item) for item in session]
    edges = np.zeros((count, count))
    for a, b in pairwise(alias):
        edges[a, b] = 1
    out = torch.from_numpy(edges / np.maximum(edges.sum(1, keepdims=True), 1))
    into = torch.from_numpy((edges / np.maximum(edges.sum(0, keepdims=True), 1)).T.copy())
    h, cell = model.items.weight[nodes], model.graph.cell
    size = h.shape[1]
    for _ in range(model.num_steps):
        sent_in, sent_out = model.graph.messages(h).split(size, 1)
        message = torch.cat((into @ sent_in, out @ sent_out), 1) + model.graph.message_bias
        seen = message @ cell.weight_ih.T + cell.bias_ih
        kept = h @ cell.weight_hh.T + cell.bias_hh
        reset = torch.sigmoid(seen[:, :size] + kept[:, :size])
        update = torch.sigmoid(seen[:, size : 2 * size] + kept[:, size : 2 * size])
        new = torch.tanh(seen[:, 2 * size :] + reset * kept[:, 2 * size :])
        h = new + update * (h - new)
    last, events = h[alias[-1]], h[alias]
    alpha = model.query(torch.sigmoid(model.of_last(last) + model.of_event(events)))
    state: Tensor = model.joined(torch.cat(((alpha * events).sum(0), last)))
    return state


@pytest.mark.parametrize("num_steps", [1, 3])
@torch.no_grad()
def test_it_is_each_sessions_own_graph(num_steps: int) -> None:
    model = model_of(num_steps=num_steps)
    expected = torch.stack([naive_state(model, session) for session in HISTORIES])
    torch.testing.assert_close(model.encode(SequenceBatch.from_lists(HISTORIES)), expected)


def test_gradients_are_those_of_each_session_alone() -> None:
    model = model_of(num_steps=2)
    parameters = [parameter for name, parameter in model.named_parameters() if name != "items.weight"]
    together = torch.autograd.grad(model.encode(SequenceBatch.from_lists(HISTORIES)).square().sum(), parameters)
    alone = torch.autograd.grad(sum(naive_state(model, session).square().sum() for session in HISTORIES), parameters)
    for got, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(got, expected)


def test_a_graph_by_hand() -> None:
    """1 2 1 3: 1 goes to 2 and 3, 2 to 1; columns of the third event, a repeated 1, are empty."""
    batch = SequenceBatch.from_lists([[1, 2, 1, 3]])
    (graph,) = session_graphs(batch.items_P, batch.layout)
    incoming, outgoing = graph.normalised(torch.float32)
    assert outgoing[0].tolist() == [[0, 0.5, 0, 0.5], [1, 0, 0, 0], [0, 0.5, 0, 0.5], [0, 0, 0, 0]]
    assert incoming[0].tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    assert graph.is_first_GT.tolist() == [[True, True, False, True]]
