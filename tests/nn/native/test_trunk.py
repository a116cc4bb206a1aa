"""The native trunk: float64's gradients, torch's path with the same masks, bits by threads, wrong arguments."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.nn.embedding import initialise
from ensue.nn.native.library import TORCH, compute, computing_with, load, runnable
from ensue.nn.native.trunk import Plan, encode, newest
from ensue.nn.native.usage import Usage
from ensue.nn.ops import attention, dropout
from ensue.nn.trunk import Trunk, TrunkConfig

pytestmark = pytest.mark.skipif(not runnable(), reason="the native library is not built: make native")

NORMS = ("pre", "post", "original")
# Short rows that share tiles, lengths around a strip of attention, and a row longer than a tile.
LENGTHS = {"many short": [1, 2, 3, 1, 5] * 30, "strips": [1, 47, 48, 49, 7, 192, 2], "long": [250, 1, 200]}


def trunk_of(
    width: int = 20, heads: int = 2, blocks: int = 2, norm: str = "pre", rate: float = 0.0, causal: bool = True
) -> Trunk:
    trunk = Trunk(
        TrunkConfig(hidden_units=width, num_heads=heads, num_blocks=blocks, norm=norm, dropout_rate=rate),  # type: ignore[arg-type]
        maxlen=250,
        causal=causal,
    )
    initialise(trunk, 3)
    generator = torch.Generator().manual_seed(1)
    for parameter in trunk.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return trunk


def batch_of(lengths: list[int]) -> SequenceBatch:
    return SequenceBatch.from_numpy(np.ones(sum(lengths), np.int64), np.array(lengths))


def inputs(events: int, width: int, seed: int = 5) -> Tensor:
    return torch.randn(events, width, generator=torch.Generator().manual_seed(seed))


def run(trunk: Trunk, batch: SequenceBatch, x_PD: Tensor) -> list[Tensor]:
    """States, the gradient of the inputs and those of the parameters, for a fixed upstream gradient."""
    trunk.zero_grad()
    x_PD = x_PD.clone().requires_grad_()
    h_PD = trunk(x_PD, batch.layout)
    h_PD.backward(inputs(*h_PD.shape, seed=6).to(h_PD.dtype))
    return [h_PD.detach(), x_PD.grad, *(parameter.grad for parameter in trunk.parameters())]  # type: ignore[list-item]


def double(trunk: Trunk, like: Trunk) -> Trunk:
    trunk = trunk.double()
    trunk.load_state_dict({name: value.double() for name, value in like.state_dict().items()})
    return trunk.train(like.training)


def error(ours: list[Tensor], exact: list[Tensor]) -> float:
    """The largest difference of any tensor, relative to the tensor's largest value."""
    pairs = zip(ours, exact, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-3)) for a, b in pairs)


@pytest.mark.parametrize(("name", "norm"), list(product(runnable(), NORMS)))
@pytest.mark.parametrize("lengths", LENGTHS)
def test_states_and_gradients_are_those_of_float64(name: str, norm: str, lengths: str) -> None:
    for width, heads in ((50, 1), (21, 3)):
        trunk, batch = trunk_of(width, heads, norm=norm), batch_of(LENGTHS[lengths]).asking_all()
        x_PD = inputs(len(batch.items_P), width)
        exact = run(double(trunk_of(width, heads, norm=norm), trunk), batch, x_PD.double())
        with computing_with(name):
            usage = Usage()
            assert error(run(trunk, batch, x_PD), exact) < 1e-5
            assert str(usage) == f"native ({name})"


@pytest.mark.parametrize("name", runnable())
@pytest.mark.parametrize("lengths", LENGTHS)
def test_bidirectional_states_and_gradients_are_those_of_float64(name: str, lengths: str) -> None:
    trunk, batch = trunk_of(21, 3, causal=False), batch_of(LENGTHS[lengths]).asking_all()
    x_PD = inputs(len(batch.items_P), 21)
    exact = run(double(trunk_of(21, 3, causal=False), trunk), batch, x_PD.double())
    with computing_with(name):
        usage = Usage()
        assert error(run(trunk, batch, x_PD), exact) < 1e-5
        assert str(usage) == f"native ({name})"


@pytest.mark.parametrize("causal", [True, False])
def test_some_events_alone_have_the_states_and_gradients_of_float64(causal: bool) -> None:
    """Masked events and newest events, as of tasks that do not ask for every event."""
    trunk, batch = trunk_of(21, 3, causal=causal), batch_of([3, 200, 1, 60])
    x_PD = inputs(len(batch.items_P), 21)
    for some in (batch, batch.asking(np.array([0, 2, 7, 150, 151, 204]))):
        exact = run(double(trunk_of(21, 3, causal=causal), trunk), some, x_PD.double())
        usage = Usage()
        assert error(run(trunk, some, x_PD), exact) < 1e-5
        with torch.no_grad():
            assert error([trunk(x_PD, some.layout)], exact[:1]) < 1e-5
        assert "torch" not in str(usage)


@pytest.mark.parametrize("rate", [0.0, 0.5])
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
def test_activations(activation: str, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs reach far into both tails of the activation."""
    config = TrunkConfig(hidden_units=8, num_blocks=1, dropout_rate=rate, activation=activation)  # type: ignore[arg-type]
    trunk, batch = Trunk(config, 200), batch_of([5, 5]).asking_all()
    initialise(trunk, 1)
    block = trunk.blocks[0]
    block.feed_forward.inner.weight.data *= 40  # type: ignore[union-attr]
    masks: Callable[..., Tensor] = SameMasks(9, 1, 2, 5)
    monkeypatch.setattr("ensue.nn.native_trunk.random_bytes", masks)
    ours = run(trunk, batch, inputs(10, 8))
    for module in (attention, dropout):
        monkeypatch.setattr(module, "random_bytes", masks)
    assert error(ours, run(double(Trunk(config, 200), trunk), batch, inputs(10, 8).double())) < 1e-5


class SameMasks:
    """Draws for torch's path the bytes that the library draws, for a batch of rows of one length."""

    def __init__(self, seed: int, heads: int, rows: int, length: int) -> None:
        self.seed, self.heads, self.rows, self.length = seed, heads, rows, length
        self.block = self.query = self.layer = 0

    def bytes_of(self, place: int, columns: int) -> np.ndarray:
        drawn = np.zeros((self.rows * self.length, columns), dtype=np.uint8)
        site = 1 + self.block * (self.heads + 2) + place
        load(compute().name).ensue_random_bytes(self.seed, site, *drawn.shape, drawn.ctypes.data)
        return drawn

    def __call__(self, shape: tuple[int, ...], device: torch.device | None = None) -> Tensor:
        if shape == (8,):
            return torch.tensor(np.array([self.seed], dtype=np.uint64).view(np.uint8))
        if len(shape) == 3:  # the weights of a strip of queries, [rows * heads, queries, keys]
            start, self.query = self.query, (self.query + shape[1]) % self.length
            heads = [self.bytes_of(head, shape[2]).reshape(self.rows, self.length, -1) for head in range(self.heads)]
            return torch.from_numpy(np.stack(heads, 1)[:, :, start : start + shape[1]].reshape(shape).copy())
        drawn = self.bytes_of(self.heads + self.layer, shape[1])
        self.block, self.layer = self.block + self.layer, 1 - self.layer
        return torch.from_numpy(drawn)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("heads", "rows", "length"), [(1, 2, 90), (4, 3, 7)])
def test_dropout_equals_the_torch_path_with_the_same_masks(
    norm: str, heads: int, rows: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk, batch = trunk_of(20, heads, norm=norm, rate=0.3).train(), batch_of([length] * rows).asking_all()
    x_PD = inputs(rows * length, 20)
    masks: Callable[..., Tensor] = SameMasks(0xFEDC_BA98_7654_3210, heads, rows, length)
    monkeypatch.setattr("ensue.nn.native_trunk.random_bytes", masks)
    ours = run(trunk, batch, x_PD)
    for module in (attention, dropout):
        monkeypatch.setattr(module, "random_bytes", masks)
    assert error(ours, run(double(trunk_of(20, heads, norm=norm, rate=0.3), trunk), batch, x_PD.double())) < 1e-5


def test_masks_are_uniform_and_differ_between_places() -> None:
    masks = SameMasks(7, 1, 100, 4)
    drawn = [masks.bytes_of(place, 130) for place in (0, 1, 2)]
    assert all(abs(bytes_.mean() - 127.5) < 1.5 for bytes_ in drawn)
    assert all(abs(np.bincount(bytes_.ravel(), minlength=256) / bytes_.size * 256 - 1).max() < 0.5 for bytes_ in drawn)
    assert (drawn[0] == drawn[1]).mean() < 0.01
    assert (drawn[0][1:] == drawn[0][:-1]).mean() < 0.01
    assert (drawn[0][:, 1:] == drawn[0][:, :-1]).mean() < 0.01


@pytest.mark.parametrize("name", runnable())
def test_bits_do_not_depend_on_the_number_of_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, batch = trunk_of(50, rate=0.2).train(), batch_of([100, 192, 3, 250, *[9] * 60, 77] * 2).asking_all()
    monkeypatch.setattr("ensue.nn.native_trunk.random_bytes", lambda shape: torch.full(shape, 9, dtype=torch.uint8))
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        with computing_with(name):
            results.append(run(trunk, batch, inputs(len(batch.items_P), 50)))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("norm", NORMS)
def test_a_row_does_not_depend_on_its_batch(norm: str) -> None:
    trunk, lengths = trunk_of(21, 3, norm=norm).eval(), [5, 200, 1, 47, 300, 12]
    batch, x_PD = batch_of(lengths), inputs(sum(lengths), 21)
    starts = np.cumsum(lengths) - lengths
    with torch.no_grad():
        all_PD = trunk(x_PD, batch.asking_all().layout)
        newest_BD = trunk(x_PD, batch.layout)
        assert torch.allclose(newest_BD, all_PD[batch.asked_Q], atol=2e-6)
        for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            alone = batch_of([length])
            own_PD = x_PD[start : start + length]
            assert torch.equal(trunk(own_PD, alone.layout)[0], newest_BD[row])
            assert torch.equal(trunk(own_PD, alone.asking_all().layout), all_PD[start : start + length])


def test_what_has_no_native_form_is_computed_by_torch() -> None:
    x_PD, batch = inputs(8, 8), batch_of([3, 5])
    usage = Usage()
    Trunk(TrunkConfig(hidden_units=8, residual="gated"), 200)(x_PD, batch.asking_all().layout)
    local = Trunk(TrunkConfig(hidden_units=8, attention="local"), 200)
    local(x_PD, batch.asking_all().layout)
    assert "attention other than full" in str(usage)
    some = batch_of([30, 30])
    trunk_of(8, blocks=1)(inputs(60, 8), some.layout)
    assert "asked for few events" in str(usage)
    assert "GatedResidual" in str(usage)
    assert "layers by torch" in str(usage)
    trunk, seen = trunk_of(8), []
    trunk.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    trunk(x_PD, batch.asking_all().layout)
    assert seen


def test_torch_can_be_requested() -> None:
    with computing_with(TORCH) as chosen:
        assert str(chosen) == "torch (requested)"
        usage = Usage()
        trunk_of(8)(inputs(8, 8), batch_of([3, 5]).asking_all().layout)
        assert str(usage) == "torch (requested)"
    assert compute().is_native


def test_wrong_arguments_are_refused() -> None:
    name, trunk = runnable()[0], trunk_of(8, 2)
    plan = Plan(width=8, heads=2, blocks=2, causal=True, threads=1, epsilon=1e-8)
    parameters, x_PD, last_B = [*trunk.parameters()], inputs(8, 8), torch.tensor([2, 7])
    for function in (encode, newest):
        function(name, plan, parameters, x_PD, last_B)
        with pytest.raises(ValueError, match="parameters must be 944 float32"):
            function(name, plan, parameters[1:], x_PD, last_B)
        for wrong_PD in (x_PD[:, 1:], x_PD.double(), x_PD[0]):
            with pytest.raises(ValueError, match="x_PD must be float32 of 8 columns"):
                function(name, plan, parameters, wrong_PD, last_B)
        for wrong_B in ([2, 2, 7], [2, 6], [2, 9], [-1, 7], []):
            with pytest.raises(ValueError, match="last_B must ascend"):
                function(name, plan, parameters, x_PD, torch.tensor(wrong_B, dtype=torch.int64))
