"""GCE-GNN keeps the contract, is its two graphs computed event by event, and learns neighbours in training alone."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ensue.batches.batch import SequenceBatch
from ensue.data.neighbours import item_neighbours
from ensue.data.split import Sequences, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.models import Catalogue, build_model
from ensue.models.gcegnn import GCEGNN, GCEGNNConfig
from ensue.nn.embedding import initialise
from ensue.testing import ModelContract, draw_biases

NUM_ITEMS = 30
SMALL = GCEGNNConfig(maxlen=16, hidden_units=16, global_dropout_rate=0.1, num_neighbours=4)
HISTORIES = [[5], [1, 2, 1, 3, 2, 1, 2], [7, 7], [9, 8, 7, 6, 5, 4, 3, 2], [4, 9, 4, 4, 9, 30]]


class TestGCEGNN(ModelContract):
    # Narrow, the sums over longer histories than those of training mislead it.
    config = SMALL.replace(hidden_units=64, dropout_rate=0.2, global_dropout_rate=0.3)
    train: ClassVar = ModelContract.train.replace(num_epochs=6, eval_epochs=6, lr=0.005)


def view(rows: list[list[int]], split: str = "none") -> Sequences:
    offsets = np.cumsum([0, *map(len, rows)])
    store = SequenceStore.from_arrays(offsets, np.concatenate(rows), item_ids=Vocabulary.of_range(NUM_ITEMS))
    return make_split(store, SplitConfig(split=split)).train


def test_neighbours_by_hand() -> None:
    """1 2 1 3 and 2 3: at most two steps apart lie 1-2 twice and 1-3 once, 2-3 once in each row; 1-1 is no pair."""
    near_NK, often_NK = item_neighbours(view([[1, 2, 1, 3], [2, 3]]), 2, 2)
    assert near_NK[:5].tolist() == [[0, 0], [2, 3], [1, 3], [2, 1], [0, 0]]
    assert often_NK[:5].tolist() == [[0, 0], [2, 1], [2, 2], [2, 1], [0, 0]]
    near_NK, _ = item_neighbours(view([[1, 2, 1, 3], [2, 3]]), 1, 2)
    assert near_NK[:5].tolist() == [[0, 0], [2, 3], [1, 3], [1, 2], [0, 0]]


def test_held_out_events_are_no_neighbours() -> None:
    near_NK, _ = item_neighbours(view([[1, 2, 3, 4]], "leave-one-out"), 3, 2)
    assert np.unique(near_NK).tolist() == [0, 1, 2]


def model_of() -> GCEGNN:
    model = build_model(SMALL, Catalogue(NUM_ITEMS))
    assert isinstance(model, GCEGNN)
    initialise(model, 0)
    rng = np.random.default_rng(0)
    # Items from 28 on have no neighbours, and others fewer than are kept.
    model.study(view([rng.integers(1, 28, 3).tolist() for _ in range(20)]))
    draw_biases(model)
    return model.double().eval()


def naive_state(model: GCEGNN, session: list[int]) -> Tensor:
    """The session alone: nodes, kinds of edges and neighbours one at a time."""
    vector, nodes = model.items.weight, list(dict.fromkeys(session))
    steps = set(pairwise(session))
    mean = vector[session].mean(0)
    states = {}
    for a in nodes:
        products, others = [], []
        for b in nodes:
            kind = 0 if a == b else {(1, 0): 1, (0, 1): 2, (1, 1): 3}.get(((a, b) in steps, (b, a) in steps), -1)
            if kind >= 0:
                products.append(F.leaky_relu((vector[a] * vector[b]) @ model.local.kinds[kind], 0.2))
                others.append(vector[b])
        local = torch.stack(products).softmax(0) @ torch.stack(others)
        near = [(int(b), w) for b, w in zip(model.near_NK[a], model.weight_NK[a], strict=True) if b > 0]
        around = torch.zeros_like(mean)
        if near:
            everywhere = model.everywhere
            logits = [
                everywhere.query(F.leaky_relu(everywhere.weigh(torch.cat((mean * vector[b], w[None]))), 0.2))
                for b, w in near
            ]
            shares = torch.cat(logits).softmax(0)
            around = sum((share * vector[b] for share, (b, _) in zip(shares, near, strict=True)), around)
        states[a] = local + F.relu(model.everywhere.joined(torch.cat((vector[a], around))))
    h = torch.stack([states[item] for item in session])
    ages = torch.arange(len(session) - 1, -1, -1)
    z = torch.tanh(model.placed(torch.cat((model.positions[ages], h), 1)))
    beta = model.query(torch.sigmoid(model.of_event(z) + model.of_mean(h.mean(0))))
    state: Tensor = (beta * h).sum(0)
    return state


@torch.no_grad()
def test_it_is_each_sessions_own_graph_and_that_of_all() -> None:
    model = model_of()
    expected = torch.stack([naive_state(model, session) for session in HISTORIES])
    torch.testing.assert_close(model.encode(SequenceBatch.from_lists(HISTORIES)), expected)


def test_gradients_are_those_of_each_session_alone() -> None:
    model = model_of()
    parameters = [parameter for name, parameter in model.named_parameters() if name != "items.weight"]
    together = torch.autograd.grad(model.encode(SequenceBatch.from_lists(HISTORIES)).square().sum(), parameters)
    alone = torch.autograd.grad(sum(naive_state(model, session).square().sum() for session in HISTORIES), parameters)
    for got, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("history", [[30], [29, 28, 29]])
def test_an_item_without_neighbours_has_an_answer(history: list[int]) -> None:
    model = model_of()
    assert not bool(model.weight_NK[history].any())
    assert bool(model.logits(SequenceBatch.from_lists([history])).isfinite().all())
