"""Hyper-connections are what the papers write down, start as the plain network, and do not amplify with depth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.layout import make_layout, newest
from ensue.errors import ConfigError
from ensue.nn.block import Norm
from ensue.nn.embedding import initialise
from ensue.nn.hyper_connections import CopiedStreams, HyperConnection, Mixing, Mixture
from ensue.nn.ops.sinkhorn import naive_sinkhorn
from ensue.nn.ops.streams import RMS_EPS
from ensue.nn.residual import RESIDUALS, GatedResidual, PlainResidual, State, Stream
from ensue.nn.trunk import Trunk, TrunkConfig

S, D, EVENTS = 4, 6, 9
LENGTHS = np.array([4, 2, 5])
MIXTURES: list[Mixture] = ["hc", "mhc", "mhc_lite"]
NAMES = ["plain", "gated", *MIXTURES]


def connection(
    mixture: Mixture, scale: float = 0.0, sublayer: int = 1, streams: int = S, iterations: int = 20
) -> HyperConnection:
    """A connection in float64 as it starts; with `scale`, all coefficients are random of that size instead."""
    module = HyperConnection(D, streams, mixture, iterations, sublayer).double()
    initialise(module, 0)
    if scale:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module


def streams_of(streams: int = S, seed: int = 1) -> Tensor:
    return torch.randn(
        EVENTS, streams, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).requires_grad_()


def state_of(streams_PSD: Tensor) -> State:
    """A state whose streams are these, nothing having been written since they were made."""
    events, streams, width = streams_PSD.shape
    weights = torch.eye(streams, streams + 1, dtype=streams_PSD.dtype).expand(events, -1, -1)
    return weights, streams_PSD, streams_PSD.new_zeros(events, width)


def by_the_book(mixing: Mixing, state_SD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One event through METHODS' formula, coefficient by coefficient: H_pre, H_res, H_post."""
    streams = mixing.streams
    phi_pre, phi_post, phi_res = mixing.phi.split(mixing.sizes)
    b_pre, b_post, b_res = mixing.start.split(mixing.sizes)
    a_pre, a_post, a_res = mixing.gates
    x = state_SD.flatten()
    x = x / (x.square().mean() + RMS_EPS).sqrt()
    if mixing.mixture == "hc":
        pre, post = b_pre + a_pre * torch.tanh(phi_pre @ x), b_post + a_post * torch.tanh(phi_post @ x)
        return pre, (b_res + a_res * torch.tanh(phi_res @ x)).view(streams, streams), post
    pre, post = torch.sigmoid(a_pre * (phi_pre @ x) + b_pre), 2 * torch.sigmoid(a_post * (phi_post @ x) + b_post)
    logits = a_res * (phi_res @ x) + b_res
    if mixing.mixture == "mhc":
        return pre, naive_sinkhorn(logits.view(streams, streams), mixing.iterations), post
    weights = torch.softmax(logits, 0)
    res = sum(
        weight * permutation.view(streams, streams).double()
        for weight, permutation in zip(weights, mixing.permutation_EM.T, strict=True)
    )
    return pre, res, post


class NaiveStreams:
    """All streams, at every moment."""

    def open(self, x_PD: Tensor) -> State:
        return (torch.stack([x_PD] * S, 1),)

    def look(self, state: State) -> Tensor:
        return state[0]

    def close(self, state: State) -> Tensor:
        return sum(state[0][:, s] for s in range(S)) / S


class Naive(nn.Module):
    """A connection of such streams, with the parameters of another."""

    def __init__(self, module: HyperConnection) -> None:
        super().__init__()
        self.mixing = module.mixing

    def read(self, state: State) -> tuple[Tensor, State]:
        pre, res, post = zip(*(by_the_book(self.mixing, one) for one in state[0]), strict=True)
        x_PD = torch.stack([sum(p[s] * one[s] for s in range(S)) for p, one in zip(pre, state[0], strict=True)])
        return x_PD, (torch.stack(res) @ state[0], torch.stack(post))

    def write(self, carry: State, y_PD: Tensor, replaces: Tensor | None = None) -> State:
        added_PD = y_PD if replaces is None else y_PD - replaces
        return (torch.stack([carry[0][:, s] + carry[1][:, s, None] * added_PD for s in range(S)], 1),)


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_equals_the_formula_event_by_event(mixture: Mixture, scale: float) -> None:
    """Forward and every gradient in float64; the sublayer is a fixed non-linear map.

    Enough iterations that Sinkhorn has converged, for its gradient is that of the limit.
    """
    module = connection(mixture, scale, iterations=1000)
    weight = torch.linspace(-1, 1, D * D, dtype=torch.float64).view(D, D)
    upstream = streams_of(seed=2).detach()
    results = []
    for residual in (module, Naive(module)):
        state = streams_of()
        x_PD, carry = residual.read(state_of(state) if residual is module else (state,))
        stream: Stream = CopiedStreams(S) if residual is module else NaiveStreams()
        out = stream.look(residual.write(carry, torch.tanh(x_PD @ weight)))
        inputs = [state, *module.parameters()]
        results.append((out.detach(), *torch.autograd.grad(out, inputs, upstream)))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("mixture", MIXTURES)
def test_what_replaces_is_added_as_the_difference(mixture: Mixture) -> None:
    module, y = connection(mixture, 0.5), streams_of(seed=3)[:, 0]
    x_PD, carry = module.read(state_of(streams_of()))
    torch.testing.assert_close(module.write(carry, y, replaces=x_PD), module.write(carry, y - x_PD))


def config_of(residual: str) -> TrunkConfig:
    return TrunkConfig(hidden_units=D, num_heads=1, residual=residual)


def test_closing_what_was_opened_changes_nothing() -> None:
    x_PD = torch.randn(EVENTS, D, generator=torch.Generator().manual_seed(0))
    for name in NAMES:
        stream = RESIDUALS[name].stream(config_of(name))
        assert torch.equal(stream.close(stream.open(x_PD)), x_PD), name


def test_closes_as_the_mean_of_streams_that_parted() -> None:
    state = streams_of()
    expected = (state[:, 0] + state[:, 1] + state[:, 2] + state[:, 3]) / 4
    torch.testing.assert_close(CopiedStreams(S).close(state_of(state)), expected)


def test_every_name_has_its_residual() -> None:
    kinds = {name: type(RESIDUALS[name].residual(config_of(name), 3)) for name in NAMES}
    assert kinds == {
        "plain": PlainResidual,
        "gated": GatedResidual,
        **dict.fromkeys(MIXTURES, HyperConnection),
    }


def test_gated_is_the_written_formula() -> None:
    residual, x, y = GatedResidual(D), torch.randn(EVENTS, D), torch.randn(EVENTS, D)
    initialise(residual, 0)
    seen, carry = residual.read((x,))
    assert torch.equal(seen, x)
    gate = torch.sigmoid(F.linear(x, residual.gate.weight, residual.gate.bias))
    torch.testing.assert_close(residual.write(carry, y), (x + gate * y,))
    torch.testing.assert_close(residual.write(carry, y, replaces=x), (x + gate * (y - x),))


@pytest.mark.parametrize("scale", [0.0, 1.0])
@pytest.mark.parametrize("streams", [2, 3, 4])
def test_mixing_matrices_are_doubly_stochastic(scale: float, streams: int) -> None:
    """mhc_lite within rounding; mhc's rows within rounding, its columns to 1e-5 at the start and 0.05 far from it."""
    state = streams_of(streams)
    for mixture, columns in (("mhc", 0.05 if scale else 1e-5), ("mhc_lite", 1e-12)):
        module = connection(mixture, scale, streams=streams)
        pre_PS, res_PSS, post_PS, _ = module.mixing(state)
        assert bool((res_PSS > 0).all())
        ones = torch.ones(EVENTS, streams, dtype=torch.float64)
        torch.testing.assert_close(res_PSS.sum(2), ones, rtol=0, atol=1e-12)
        torch.testing.assert_close(res_PSS.sum(1), ones, rtol=0, atol=columns)
        assert bool(((pre_PS > 0) & (pre_PS < 1)).all())
        assert bool(((post_PS > 0) & (post_PS < 2)).all())
        # The matrix depends on the event.
        assert float((res_PSS[0] - res_PSS[1]).detach().abs().max()) > 1e-6


@pytest.mark.parametrize("streams", [2, 4])
def test_start_reads_the_mean_and_writes_one(streams: int) -> None:
    """With closed gates: H_pre = 1 / S, H_post = 1, H_res mostly the identity. hc reads one stream, its sublayer's."""
    for mixture in MIXTURES:
        module = connection(mixture, sublayer=5, streams=streams)
        nn.init.zeros_(module.mixing.gates)
        pre_S, res_SS, post_S, _ = (value.detach()[0] for value in module.mixing(streams_of(streams)))
        torch.testing.assert_close(post_S, torch.ones(streams, dtype=torch.float64))
        if mixture == "hc":
            assert pre_S.tolist() == [float(s == 5 % streams) for s in range(streams)]
            assert torch.equal(res_SS, torch.eye(streams, dtype=torch.float64))
        else:
            torch.testing.assert_close(pre_S, torch.full((streams,), 1 / streams, dtype=torch.float64))
            assert bool((res_SS.diagonal() > 0.8).all())


def test_permutations_are_all_of_them_once() -> None:
    table_EM = Mixing(D, 3, "mhc_lite", 20, 0).permutation_EM
    matrices = {tuple(column.tolist()) for column in table_EM.T}
    assert len(matrices) == math.factorial(3)
    for matrix in matrices:
        square = torch.tensor(matrix).view(3, 3)
        assert sorted(square.argmax(1).tolist()) == [0, 1, 2]
        assert square.sum() == 3
    assert table_EM[:, 0].tolist() == torch.eye(3).flatten().tolist()


def test_too_many_permutations_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"at most 5 for residual mhc_lite, which has a weight .*got 6"):
        TrunkConfig.parse({"residual": "mhc_lite", "mhc_expansion_rate": 6})
    TrunkConfig(residual="mhc", mhc_expansion_rate=6)


# ---- in the trunk ----


def trunk(
    residual: str,
    norm: Norm = "pre",
    num_blocks: int = 3,
    dtype: torch.dtype = torch.float64,
    causal: bool = True,
) -> Trunk:
    """A trunk in evaluation mode as it starts; weights outside residuals do not depend on the residual's name."""
    config = TrunkConfig(
        hidden_units=D, num_blocks=num_blocks, num_heads=2, dropout_rate=0.0, norm=norm, residual=residual
    )
    module = Trunk(config, maxlen=8, causal=causal).to(dtype)
    initialise(module, 0)
    return module.eval()


def mixings(module: nn.Module) -> list[Mixing]:
    return [part for part in module.modules() if isinstance(part, Mixing)]


def events(dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(int(LENGTHS.sum()), D, generator=generator, dtype=torch.float64).to(dtype)


@contextmanager
def watched(module: Trunk) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """The streams after every block, and the H_res that every `mixing` gives, in order."""
    look = module.stream.look
    streams: list[Tensor] = []
    mixed: list[Tensor] = []
    handles = [block.register_forward_hook(lambda *a: streams.append(look(a[2]).detach())) for block in module.blocks]
    handles += [part.register_forward_hook(lambda *a: mixed.append(a[2][1].detach())) for part in mixings(module)]
    yield streams, mixed
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("norm", ["pre", "post", "original"])
@pytest.mark.parametrize("asked_Q", [None, newest(LENGTHS)], ids=["all", "newest"])
def test_with_closed_gates_it_is_the_plain_trunk(mixture: Mixture, norm: Norm, asked_Q: np.ndarray | None) -> None:
    module, plain, layout = trunk(mixture, norm), trunk("plain", norm), make_layout(LENGTHS, asked_Q)
    for mixing in mixings(module):
        nn.init.zeros_(mixing.gates)
    got, expected = module(events(), layout), plain(events(), layout)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    # And with the gates it starts with, nearly.
    torch.testing.assert_close(trunk(mixture, norm)(events(), layout), expected, rtol=0, atol=0.1)


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("norm", ["pre", "post", "original"])
@pytest.mark.parametrize("asked_Q", [None, newest(LENGTHS)], ids=["all", "newest"])
def test_equals_the_trunk_that_keeps_every_stream(mixture: Mixture, norm: Norm, asked_Q: np.ndarray | None) -> None:
    """Copies that are read as one, streams made on demand, and a mean without streams: output and every gradient."""
    results = []
    for naive in (False, True):
        module, x_PD = trunk(mixture, norm), events().requires_grad_()
        generator = torch.Generator().manual_seed(3)
        for mixing in mixings(module):
            mixing.iterations = 1000
            for parameter in mixing.parameters():
                parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        if naive:
            module.stream = NaiveStreams()
            for block in module.blocks:
                block.attention_residual = Naive(block.attention_residual)
                block.feed_forward_residual = Naive(block.feed_forward_residual)
        out = module(x_PD, make_layout(LENGTHS, asked_Q))
        upstream = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        results.append((out.detach(), *torch.autograd.grad(out, [x_PD, *module.parameters()], upstream)))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("residual", NAMES)
@pytest.mark.parametrize("norm", ["pre", "post", "original"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("asked", [[3, 5, 10], [4], [0, 1, 6, 8]])
def test_asked_events_are_chosen_from_all(residual: str, norm: Norm, causal: bool, asked: list[int]) -> None:
    module, layout = trunk(residual, norm, causal=causal), make_layout(LENGTHS, np.array(asked))
    with torch.no_grad():
        for mixing in mixings(module):
            mixing.gates.fill_(1.0)
        every = module(events(), layout.everything)
        torch.testing.assert_close(module(events(), layout), every[asked], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mixture", MIXTURES)
def test_streams_part_and_persist_through_the_trunk(mixture: Mixture) -> None:
    """The state between blocks is [P, S, D]; the streams open equal, and differ from the first block on."""
    module, layout = trunk(mixture), make_layout(LENGTHS)
    opened = module.stream.look(module.stream.open(events()))
    assert opened.shape == (len(events()), 4, D)
    assert bool((opened == opened[:, :1]).all())
    with watched(module) as (states, _):
        module(events(), layout)
    assert [tuple(state.shape) for state in states] == [(len(events()), 4, D)] * 3
    for state in states:
        apart = [float((state[:, s] - state[:, t]).std() / state.std()) for s in range(4) for t in range(s)]
        assert min(apart) > 1e-5


@pytest.mark.parametrize("residual", NAMES)
def test_every_parameter_gets_a_gradient(residual: str) -> None:
    """As it starts, and after a step; of a hyper-connection in the middle also every part of phi, gates and start.

    (The first sublayer's H_res mixes equal streams and the last one's keeps their mean, so neither has any effect.)
    """
    module, layout = trunk(residual), make_layout(LENGTHS)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    target = events(seed=9)
    for _ in range(2):
        optimizer.zero_grad()
        (module(events(), layout) - target).square().sum().backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
            assert float(parameter.grad.abs().max()) > 1e-12, name
        for mixing in mixings(module)[1:-1]:
            for value in (mixing.phi.grad, mixing.start.grad):
                assert value is not None
                assert all(float(part.abs().max()) > 1e-11 for part in value.split(mixing.sizes))
            assert mixing.gates.grad is not None
            assert bool((mixing.gates.grad.abs() > 1e-11).all())
        optimizer.step()


def composite_gain(mixture: Mixture, num_blocks: int, scale: float) -> float:
    """The largest row sum of |product of all H_res over depth|, of any event, with random coefficients."""
    module = trunk(mixture, num_blocks=num_blocks)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for mixing in mixings(module):
            mixing.gates.fill_(1.0)
            for parameter in (mixing.phi, mixing.start):
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
        with watched(module) as (_, weights):
            module(events(), make_layout(LENGTHS))
    product = torch.eye(4, dtype=torch.float64).expand(len(events()), 4, 4)
    assert len(weights) == 2 * num_blocks
    for res_PSS in weights:
        product = res_PSS @ product
    return float(product.abs().sum(2).max())


@pytest.mark.parametrize("mixture", ["mhc", "mhc_lite"])
def test_the_composite_gain_is_one_at_any_depth(mixture: Mixture) -> None:
    """64 sublayers with coefficients far from the start: rows of a product of such matrices still sum to 1."""
    for num_blocks in (1, 32):
        assert composite_gain(mixture, num_blocks, 0.5) == pytest.approx(1.0, abs=1e-9)


def test_the_composite_gain_of_hc_grows() -> None:
    gains = [composite_gain("hc", num_blocks, 0.5) for num_blocks in (1, 4, 8, 32)]
    assert gains[0] > 1.5
    assert all(b > 5 * a for a, b in pairwise(gains))
    assert gains[-1] > 1e6


@pytest.mark.parametrize("residual", NAMES)
@pytest.mark.parametrize("norm", ["pre", "post", "original"])
def test_bf16_autocast(residual: str, norm: Norm) -> None:
    """Coefficients and streams stay float32, outputs near the exact ones, gradients finite."""
    module, layout = trunk(residual, norm, dtype=torch.float32), make_layout(LENGTHS)
    exact = module(events(torch.float32), layout)
    with watched(module) as (states, weights), torch.autocast("cpu", torch.bfloat16):
        rough = module(events(torch.float32), layout)
    assert all(value.dtype == torch.float32 for value in weights)
    if residual in MIXTURES:
        assert all(state.dtype == torch.float32 for state in states)
        assert len(weights) == 6
        for res_PSS in weights if residual != "hc" else []:
            assert float((res_PSS.sum(2) - 1).abs().max()) < 1e-6
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.15)
    rough.float().square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
