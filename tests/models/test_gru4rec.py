"""GRU4Rec keeps the contract with every input, and is its equations written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from toys import NUM_ITEMS, built

from ensue.batches.batch import SequenceBatch
from ensue.batches.loader import make_loader
from ensue.batches.tasks import Task, make_windows
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError
from ensue.models.gru4rec import GRU4Rec, GRU4RecConfig, Input
from ensue.nn.embedding import dense_gradients
from ensue.objectives.objective import ObjectiveConfig
from ensue.testing import ModelContract

SMALL = GRU4RecConfig(maxlen=16, hidden_units=16, dropout_rate=0.1)


class TestGRU4Rec(ModelContract):
    config = SMALL


class TestSeparateWithTwoLayersAndBPRMax(ModelContract):
    config = SMALL.replace(input="separate", num_layers=2, hidden_dropout_rate=0.1)
    objective = ObjectiveConfig(loss="bpr-max", num_negatives=30, share_negatives=True, bpr_max_regularisation=0.1)


class TestWithoutEmbedding(ModelContract):
    config = SMALL.replace(input="none")


class TestLanes(ModelContract):
    config = SMALL.replace(lane_steps=3)
    objective = ObjectiveConfig(loss="bpr-max", negatives="in-batch", num_negatives=20, share_negatives=True)
    train = ModelContract.train.replace(batch_size=16, num_epochs=8, eval_epochs=8)


def model_of(**changes: object) -> GRU4Rec:
    return built(GRU4Rec, SMALL.replace(**changes), biases=True)


def naive_scores(model: GRU4Rec, history: list[int]) -> Tensor:
    """The recurrence of Cho et al. (2014), one event at a time; the input of the first layer is W x or a row of W."""
    size = model.items.weight.shape[1]
    states = [torch.zeros(size, dtype=torch.float64) for _ in model.layers]
    for item in history:
        x = (model.items if model.inputs is None else model.inputs).weight[item]
        for number, layer in enumerate(model.layers):
            if isinstance(layer, nn.GRU):
                seen = layer.weight_ih_l0 @ x + layer.bias_ih_l0
                kept = layer.weight_hh_l0 @ states[number] + layer.bias_hh_l0
            else:
                seen, kept = x + layer.bias_ih, layer.weight_hh @ states[number] + layer.bias_hh  # type: ignore[operator]
            reset = torch.sigmoid(seen[:size] + kept[:size])
            update = torch.sigmoid(seen[size : 2 * size] + kept[size : 2 * size])
            new = torch.tanh(seen[2 * size :] + reset * kept[2 * size :])
            states[number] = x = update * states[number] + (1 - update) * new
    return model.items.catalogue() @ x + model.item_bias


@pytest.mark.parametrize("kind", ["tied", "separate", "none"])
@pytest.mark.parametrize("num_layers", [1, 2])
@torch.no_grad()
def test_it_is_its_equations(kind: Input, num_layers: int) -> None:
    model = model_of(input=kind, num_layers=num_layers)
    histories = [[5], [1, 2, 3, 30], [7, 7], [9, 8, 7, 6, 5, 4, 3, 2]]
    expected = torch.stack([naive_scores(model, history) for history in histories])
    torch.testing.assert_close(model.logits(SequenceBatch.from_lists(histories)), expected)


def test_tied_input_has_one_table_and_one_hot_input_no_product() -> None:
    sizes = {
        name: {key: list(value.shape) for key, value in model_of(input=name).named_parameters()}
        for name in ("tied", "separate", "none")
    }
    assert "inputs.weight" not in sizes["tied"]
    assert sizes["separate"]["inputs.weight"] == [NUM_ITEMS + 1, 16]
    assert sizes["none"]["inputs.weight"] == [NUM_ITEMS + 1, 48]
    assert "layers.0.weight_ih_l0" not in sizes["none"]


@pytest.mark.parametrize("kind", ["tied", "separate", "none"])
@torch.no_grad()
def test_states_that_are_kept_give_the_answers_of_the_whole_history(kind: Input) -> None:
    model = model_of(input=kind, num_layers=2)
    histories = torch.tensor([[1, 2, 3, 30, 2], [9, 9, 8, 7, 1], [4, 5, 6, 7, 8]])
    states = model.begin(3)
    for t in range(histories.shape[1]):
        states, h_BD = model.advance(states, histories[:, t])
        whole = model.encode(SequenceBatch.from_lists(histories[:, : t + 1].tolist()))
        torch.testing.assert_close(h_BD, whole)
    # Requests come and go: rows of other histories in between change nothing.
    mixed, _ = model.advance(states[:, [2, 0]], torch.tensor([3, 12]))
    apart, _ = model.advance(states[:, [0]], torch.tensor([12]))
    torch.testing.assert_close(mixed[:, [1]], apart)


@pytest.mark.parametrize("kind", ["tied", "none"])
@pytest.mark.parametrize("lane_steps", [1, 3])
def test_lanes_are_whole_histories_whose_gradient_ends_where_a_step_ends(kind: Input, lane_steps: int) -> None:
    """States and the sum of all gradients of an epoch against the recurrence, one history after another."""
    lengths = [5, 2, 9, 3, 4]
    offsets = np.append(0, np.cumsum(lengths))
    store = SequenceStore.from_arrays(offsets=offsets, items=(np.arange(23) % NUM_ITEMS + 1).astype(np.int32))
    windows = make_windows(make_split(store, SplitConfig(split="none")).train, 16, "sliding")
    model, naive = (model_of(input=kind, num_layers=2, lane_steps=lane_steps).train() for _ in range(2))
    for each in (model, naive):
        each.dropout.rate = 0.0
    loss = torch.zeros((), dtype=torch.float64)
    expected = torch.zeros((), dtype=torch.float64)
    weight = torch.randn(model.items.weight.shape[1] + 1, generator=torch.Generator().manual_seed(0)).double()
    states = [naive.begin(1)] * 2
    for _, _, batch in make_loader(windows, lane_task(lane_steps), 2, 0).epoch(0):
        assert batch.lanes is not None
        h_QD = model.encode(batch)
        model.step_taken()
        loss = loss + (h_QD @ weight).tanh().sum()
        states, stop, rows = [state.detach() for state in states], 0, []
        for lane, is_new, length in zip(
            batch.lanes.lane_B.tolist(), batch.lanes.is_new_B.tolist(), batch.lengths_B.tolist(), strict=True
        ):
            if is_new:
                states[lane] = naive.begin(1)
            for item in batch.items_P[stop : stop + length]:
                states[lane], h_1D = naive.advance(states[lane], item[None])
                rows.append(h_1D)
            stop += length
        torch.testing.assert_close(h_QD, torch.cat(rows))
        expected = expected + (torch.cat(rows) @ weight).tanh().sum()
    for value in (loss, expected):
        value.backward()
    for each in (model, naive):
        dense_gradients(each.parameters())
    for (name, one), other in zip(model.named_parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def lane_task(lane_steps: int) -> Task:
    """The task of GRU4Rec with lanes."""
    return SMALL.replace(lane_steps=lane_steps).make_task()


def test_lanes_predict_after_every_event() -> None:
    with pytest.raises(ConfigError, match=r"lane_steps 2 needs task next \(got 'last'\)"):
        GRU4RecConfig.parse({"lane_steps": 2, "task": "last"})


def test_another_event_costs_one_step() -> None:
    """The multiplications of `advance` do not depend on the length of the history, and are those of one event."""
    model = model_of(num_layers=2)
    states = model.begin(1)
    counts = []
    for item in (3, 4, 5):
        with FlopCounterMode(display=False) as count, torch.no_grad():
            states, _ = model.advance(states, torch.tensor([item]))
        counts.append(count.get_total_flops())
    with FlopCounterMode(display=False) as count, torch.no_grad():
        model.encode(SequenceBatch.from_lists([[3]]))
    assert counts == [count.get_total_flops()] * 3
