"""Item vectors, positions, initial weights, and the block's three ways to normalise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ensue.batches.layout import make_layout, newest
from ensue.errors import ConfigError
from ensue.nn.block import Activation, Block, Norm
from ensue.nn.embedding import ItemEmbedding, PositionEmbedding, dense_gradients, initialise, sinusoids
from ensue.nn.residual import RESIDUALS, PlainResidual, PlainStream, ResidualEntry, State
from ensue.nn.self_attention import SelfAttention
from ensue.nn.trunk import Trunk, TrunkConfig

LENGTHS = np.array([4, 2, 5])


def test_row_zero_is_zero_and_no_candidate() -> None:
    table = ItemEmbedding(5, 3)
    initialise(table, 0)
    assert table.weight[0].abs().max() == 0
    assert table.weight[1:].abs().min() > 0
    assert torch.equal(table.catalogue(), table.weight[1:])


def test_gradients_of_several_lookups_add_up_to_one_dense_table() -> None:
    """Against torch's own dense lookup; with and without the whole catalogue among the uses."""
    for with_catalogue in (False, True):
        table = ItemEmbedding(5, 3)
        initialise(table, 0)
        plain = table.weight.detach().double().requires_grad_()
        first, second = torch.tensor([2, 5, 2]), torch.tensor([[1, 2], [5, 5]])
        loss = table(first).square().sum() + (table(second) ** 3).sum()
        expected = plain[first].square().sum() + (plain[second] ** 3).sum()
        if with_catalogue:
            loss, expected = loss + table.catalogue().exp().sum(), expected + plain[1:].exp().sum()
        loss.backward()
        expected.backward()
        dense_gradients(table.parameters())
        assert not table.weight.grad.is_sparse
        torch.testing.assert_close(table.weight.grad.double(), plain.grad, rtol=1e-5, atol=1e-6)
        assert table.weight.grad[0].abs().max() == 0


def test_initial_weights_depend_on_seed_and_name_alone() -> None:
    def weights(seed: int, *extra: str) -> dict[str, torch.Tensor]:
        module = nn.ModuleDict({name: nn.Linear(4, 4) for name in (*extra, "kept")})
        initialise(module, seed)
        return dict(module.named_parameters())

    assert torch.equal(weights(1)["kept.weight"], weights(1, "another")["kept.weight"])
    assert not torch.equal(weights(1)["kept.weight"], weights(2)["kept.weight"])
    assert weights(1)["kept.bias"].abs().max() == 0
    assert not torch.equal(*[p for name, p in weights(1, "a").items() if name.endswith("weight")])


def test_initial_weights_are_xavier_normal() -> None:
    layer = nn.Linear(400, 200)
    initialise(layer, 0)
    assert float(layer.weight.detach().std()) == pytest.approx((2 / 600) ** 0.5, rel=0.02)
    assert abs(float(layer.weight.detach().mean())) < 1e-3


def test_extra_rows_are_no_items() -> None:
    table = ItemEmbedding(5, 3, extra=2)
    initialise(table, 0)
    assert table.weight.shape == (8, 3)
    assert torch.equal(table.catalogue(), table.weight[1:6])
    assert torch.equal(table(torch.tensor([6, 7])), table.weight[6:])
    assert table.weight[6:].abs().min() > 0


class Mixed(nn.Module):
    """A module of a user's own, with layers and parameters of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(4, 3, num_layers=2)
        self.norm = nn.LayerNorm(3)
        self.batch_norm = nn.BatchNorm1d(3)
        self.bias_of_heads = nn.Parameter(torch.empty(2))
        self.own_scale = nn.Parameter(torch.empty(3))
        self.temperature = nn.Parameter(torch.empty(()))

    def initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.own_scale.uniform_(1, 2, generator=generator)
            self.temperature.fill_(0.5)


def test_every_parameter_is_set_from_the_seed() -> None:
    """Whatever torch's generator gave at first; a GRU's biases are zero, normalisation weights one."""
    weights = []
    for start in (1, 2):
        torch.manual_seed(start)
        module = Mixed()
        before = torch.get_rng_state()
        initialise(module, 7)
        assert torch.equal(before, torch.get_rng_state())
        weights.append(dict(module.named_parameters()))
    one, other = weights
    assert all(torch.equal(one[name], other[name]) for name in one)
    for name, value in one.items():
        if "bias" in name:
            assert not bool(value.any()), name
    assert bool((one["norm.weight"] == 1).all())
    assert bool((one["batch_norm.weight"] == 1).all())
    assert one["temperature"].item() == 0.5
    assert float(one["recurrent.weight_ih_l0"].detach().std()) > 0


def test_a_parameter_that_no_rule_sets_is_named() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.PReLU())
    with pytest.raises(TypeError, match=r"no rule initialises parameter 1\.weight of shape \[1\]"):
        initialise(module, 0)


@pytest.mark.parametrize("width", [1, 5, 8])
def test_sinusoids(width: int) -> None:
    table = sinusoids(20, width)
    assert table.shape == (20, width)
    for age in (0, 3, 19):
        for d in range(width):
            angle = age / 10_000 ** (2 * (d // 2) / width)
            expected = np.sin(angle) if d % 2 == 0 else np.cos(angle)
            assert float(table[age, d]) == pytest.approx(expected, abs=1e-5)


def test_positions_add_the_vector_of_the_age() -> None:
    x, age = torch.zeros(3, 4), torch.tensor([2, 0, 2])
    learned = PositionEmbedding(5, 4, "learned")
    initialise(learned, 0)
    assert torch.equal(learned(x, age), learned.table[age])
    assert torch.equal(PositionEmbedding(5, 4, "sinusoidal")(x, age), sinusoids(5, 4)[age])
    assert PositionEmbedding(5, 4, "none")(x, age) is x
    assert [name for name, _ in PositionEmbedding(5, 4, "sinusoidal").state_dict().items()] == []


def test_plain_residual_laws() -> None:
    stream, residual, x, y = PlainStream(), PlainResidual(), torch.randn(3, 2), torch.randn(3, 2)
    assert torch.equal(stream.close(stream.open(x)), x)
    seen, carry = residual.read(stream.open(x))
    assert torch.equal(seen, x)
    assert torch.equal(stream.look(residual.write(carry, y)), x + y)
    assert torch.equal(stream.look(residual.write(carry, y, replaces=seen)), y)


class NoResidual(PlainResidual):
    def write(self, carry: State, y_PD: torch.Tensor, replaces: torch.Tensor | None = None) -> State:
        return (y_PD,)


def test_a_registered_residual_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RESIDUALS, "_entries", dict(RESIDUALS._entries))
    with pytest.raises(ConfigError, match="unknown residual 'nothing': Known: gated, hc, mhc, mhc_lite, plain"):
        TrunkConfig(residual="nothing")
    RESIDUALS.register("nothing")(ResidualEntry(lambda _: PlainStream(), lambda *_: NoResidual()))
    trunk = Trunk(TrunkConfig(residual="nothing", num_blocks=1), maxlen=8).eval()
    block = trunk.blocks[0]
    assert isinstance(block, Block)
    assert isinstance(block.feed_forward_residual, NoResidual)


@pytest.mark.parametrize(
    ("activation", "function"),
    [("relu", F.relu), ("gelu", F.gelu), ("none", lambda x: x)],
    ids=["relu", "gelu", "none"],
)
def test_the_feed_forward_has_its_activation(
    activation: Activation, function: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    config = TrunkConfig(hidden_units=4, num_blocks=1, dropout_rate=0.0, activation=activation)
    block = Trunk(config, maxlen=8).blocks[0]
    assert isinstance(block, Block)
    layer, x = block.feed_forward, torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), layer.outer(function(layer.inner(x))))


@pytest.mark.parametrize("norm", ["pre", "post", "original"])
@pytest.mark.parametrize("causal", [True, False])
def test_block_is_the_written_formula(norm: Norm, causal: bool) -> None:
    torch.manual_seed(3)
    block = Block(6, SelfAttention(6, 2, 0.2, causal=causal), 0.2, norm, (PlainResidual(), PlainResidual())).eval()
    for layer in (block.attention_norm, block.feed_forward_norm):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    layout = make_layout(LENGTHS)
    x = torch.randn(int(LENGTHS.sum()), 6)
    n1, n2 = block.attention_norm, block.feed_forward_norm

    def feed_forward(x: torch.Tensor) -> torch.Tensor:
        return block.feed_forward.outer(F.relu(block.feed_forward.inner(x)))

    if norm == "pre":
        h = x + block.attention(n1(x), n1(x), layout)
        expected = h + feed_forward(n2(h))
    elif norm == "post":
        h = n1(x + block.attention(x, x, layout))
        expected = n2(h + feed_forward(h))
    else:  # Kang & McAuley's code: the query is normalised, and the residual adds what was normalised
        h = n1(x) + block.attention(n1(x), x, layout)
        expected = n2(h) + feed_forward(n2(h))
    torch.testing.assert_close(block((x,), layout), (expected,))
    for asked_Q in (newest(LENGTHS), np.array([0, 1, 6, 7])):
        asking = make_layout(LENGTHS, asked_Q)
        torch.testing.assert_close(block((x,), asking), (expected[asked_Q],), rtol=1e-5, atol=1e-6)
