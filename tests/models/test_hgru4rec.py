"""HGRU4Rec keeps the contract with every option, and is its equations written out."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor
from toys import ASKED, ITEMS, TIMES, built, timed_batch

from ensue.batches.batch import SequenceBatch
from ensue.errors import DataError
from ensue.models.hgru4rec import HGRU4Rec, HGRU4RecConfig, begins_session
from ensue.recommender import Recommender
from ensue.testing import ModelContract

SMALL = HGRU4RecConfig(maxlen=16, hidden_units=16, dropout_rate=0.1)
OPTIONS = {
    "init": {},
    "all": {"user_state": "all", "num_layers": 2},
    "attention": {"session_attention": True},
    "memory": {"memory_slots": 3},
    "everything": {"user_state": "all", "num_layers": 2, "session_attention": True, "memory_slots": 2},
    "query time": {"query_time": True, "memory_slots": 2},
}


class TestInit(ModelContract):
    config = SMALL
    has_fixed_shapes = False


class TestAllWithTwoLayersAndDropout(TestInit):
    config = SMALL.replace(user_state="all", num_layers=2, hidden_dropout_rate=0.1, user_dropout_rate=0.1)


class TestAttentionAndMemory(TestInit):
    config = SMALL.replace(session_attention=True, memory_slots=4)


class TestQueryTime(TestInit):
    config = SMALL.replace(query_time=True)


def naive_scores(model: HGRU4Rec, config: HGRU4RecConfig, items: list[int], times: list[int], at: int) -> Tensor:
    """The equations, one event after another, with the states in plain variables."""
    width, layers = config.hidden_units, config.num_layers
    hidden, zero = torch.zeros(layers, width).double(), torch.zeros(width).double()
    user = context = zero
    earlier: list[Tensor] = []
    slots = torch.zeros(config.memory_slots, width).double()
    cells = [
        torch.nn.GRUCell(getattr(model.session, f"weight_ih_l{n}").shape[1], width).double() for n in range(layers)
    ]
    for n, cell in enumerate(cells):
        cell.load_state_dict(
            {
                f"{kind}": getattr(model.session, f"{kind}_l{n}")
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
        )

    def shares(x: Tensor) -> Tensor:
        assert model.memory is not None
        return (model.memory.keys @ x / width**0.5).softmax(0)

    def end_of_session() -> None:
        nonlocal user, context, slots, hidden
        last = hidden[-1]
        user = context = model.user(last[None], user[None])[0]
        if model.memory is not None:
            for k, share in enumerate(shares(last)):
                slots[k] = slots[k] * (1 - share * torch.sigmoid(model.memory.erase(last))) + share * torch.tanh(
                    model.memory.add(last)
                )
            context = user + sum(share * slots[k] for k, share in enumerate(shares(user)))
        earlier.append(last)
        hidden = torch.tanh(model.start(context)).view(layers, width)

    for number, item in enumerate(items):
        if number and times[number] - times[number - 1] > config.session_gap:
            end_of_session()
        x = model.items.weight[item]
        if config.user_state == "all":
            x = torch.cat((x, context))
        after = []
        for cell, before in zip(cells, hidden, strict=True):
            x = cell(x[None], before[None])[0]
            after.append(x)
        hidden = torch.stack(after)
    h = hidden[-1]
    if model.attention is not None and earlier:
        past = torch.stack(earlier)
        weight = (model.attention.key(past) @ model.attention.query(h) / width**0.5).softmax(0)
        h = h + weight @ model.attention.value(past)
    if config.query_time and at - times[-1] > config.session_gap:
        end_of_session()
        h = hidden[-1]
    return model.items.catalogue() @ h + model.item_bias


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS.keys())
@torch.no_grad()
def test_it_is_its_equations(changes: dict[str, object]) -> None:
    config = SMALL.replace(**changes)
    model = built(HGRU4Rec, config, biases=True)
    expected = [naive_scores(model, config, *each) for each in zip(ITEMS, TIMES, ASKED, strict=True)]
    torch.testing.assert_close(model.logits(timed_batch()), torch.stack(expected))


def test_a_session_begins_after_a_pause_of_more_than_the_gap() -> None:
    times, lengths = np.array([0, 30, 61, 61, 1_000, 1_001]), np.array([4, 2])
    assert begins_session(times, lengths, 30).tolist() == [True, False, True, False, True, False]
    assert begins_session(times, lengths, 31).tolist() == [True, False, False, False, True, False]


@torch.no_grad()
def test_what_came_in_earlier_sessions_and_where_they_end_matters() -> None:
    model = built(HGRU4Rec, SMALL, biases=True)

    def scores(items: list[int], times: list[int]) -> Tensor:
        return model.logits(SequenceBatch.from_numpy(np.array(items), np.array([len(items)]), np.array(times)))

    first = scores([3, 1, 4], [0, 60, 90_000])
    assert not torch.equal(first, scores([3, 2, 4], [0, 60, 90_000]))
    assert not torch.equal(first, scores([3, 1, 4], [0, 60, 120]))
    assert torch.equal(first, scores([3, 1, 4], [0, 90, 900_000]))


def test_data_without_pauses_names_the_gap() -> None:
    rows = [(user, item, 60 * item) for user in (1, 2, 3) for item in (1, 2, 3, 4)]
    log = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    settings = {"hidden_units": 8, "num_epochs": 1, "loss": "ce", "device": "cpu"}
    with pytest.raises(DataError, match=r"nobody pauses for more than 1800 seconds: lower session_gap.*gru4rec"):
        Recommender("hgru4rec", **settings).fit(log)
    recommender = Recommender("hgru4rec", session_gap=59, **settings).fit(log)
    with pytest.raises(DataError, match=r"give their times \(times=, --times\)"):
        recommender.recommend([1, 2], k=1)
    assert len(recommender.recommend([1, 2], times=[0, 60], k=1)) == 1
