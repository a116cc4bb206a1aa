"""The bucket form of time attention equals the obvious form, in value and every gradient, and keeps no [T, T, D]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from ensue.batches import layout as layouts
from ensue.batches.layout import Layout, make_layout
from ensue.nn.ops.attention import naive_attention, strips
from ensue.nn.ops.dropout import LEVELS, keep_mask, random_bytes, threshold
from ensue.nn.ops.time_attention import Relations, naive_time_attention, newest_time_attention, time_attention
from ensue.nn.self_attention import CausalSelfAttention

LENGTHS = [5, 90, 1, 81, 3, 90]
WIDTH, BUCKETS = 12, 7
TERMS = {
    "per row": ("keys", "values", "rows"),
    "shared": ("keys", "values"),
    "keys": ("keys",),
    "values": ("values", "rows"),
    "bias": ("bias",),
    "all": ("keys", "values", "bias", "rows"),
    "none": (),
}


@pytest.fixture(autouse=True)
def many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups cost nothing, so that a small batch has several."""
    monkeypatch.setattr(layouts, "CALL", 0)


@dataclass
class World:
    """A batch with random buckets and tables; rows of tables are in the layout's order."""

    lengths: list[int]
    heads: int
    layout: Layout
    bucket_rows: list[Tensor]  # [T, T] of each row of the batch
    parameters: dict[str, Tensor]
    upstream_PD: Tensor

    @property
    def order(self) -> list[int]:
        """The rows as the layout sorts them."""
        return np.argsort(-np.array(self.lengths), kind="stable").tolist()

    def relations(self) -> Relations:
        buckets, newest, rows = [], [], iter(self.order)
        for group in self.layout.groups:
            cells = torch.zeros(group.rows, group.width, group.width, dtype=torch.int64)
            last = torch.zeros(group.rows, group.width, dtype=torch.int64)
            for g in range(group.rows):
                bucket_TT = self.bucket_rows[next(rows)]
                length = len(bucket_TT)
                cells[g, :length, :length] = bucket_TT
                last[g, :length] = bucket_TT[-1]
            buckets.append(tuple(cells[:, lo:hi, :hi] for lo, hi in strips(group.width)))
            newest.append(last)
        p = self.parameters
        return Relations(
            tuple(buckets), tuple(newest), p.get("position"), p.get("keys"), p.get("values"), p.get("bias")
        )

    def naive(self, keep_rows: dict[int, Tensor] | None = None) -> Tensor:
        """The obvious form, row by row."""
        qkv_PE = self.parameters["qkv"] + self.parameters.get("position", torch.zeros(()))
        outs = []
        for row, (lo, hi) in enumerate(pairwise(accumulate(self.lengths, initial=0))):
            place = self.order.index(row)

            def table(name: str, place: int = place) -> Tensor | None:
                value = self.parameters.get(name)
                return None if value is None else self._heads(value[place % len(value)])

            q, k, v = (self._heads(x) for x in qkv_PE[lo:hi].chunk(3, -1))
            keep = None if keep_rows is None else keep_rows[row]
            out_HTD = naive_time_attention(
                q, k, v, self.bucket_rows[row], table("keys"), table("values"), self.parameters.get("bias"), keep
            )
            outs.append(out_HTD.transpose(0, 1).flatten(1))
        return torch.cat(outs)

    def _heads(self, x_TD: Tensor) -> Tensor:
        return x_TD.view(len(x_TD), self.heads, -1).transpose(0, 1)

    def gradients(self, make: Callable[[], Tensor]) -> dict[str, Tensor]:
        """The output, and the gradients of everything."""
        out = make()
        grads = torch.autograd.grad(out, list(self.parameters.values()), self.upstream_PD.to(out.dtype))
        return {"out": out.detach(), **dict(zip(self.parameters, grads, strict=True))}


def world(
    terms: tuple[str, ...], heads: int = 2, lengths: list[int] = LENGTHS, dtype: torch.dtype = torch.float64
) -> World:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    rows, total = len(lengths) if "rows" in terms else 1, sum(lengths)
    shapes = {
        "keys": (rows, BUCKETS, WIDTH),
        "values": (rows, BUCKETS, WIDTH),
        "bias": (heads, BUCKETS),
        "position": (total, 3 * WIDTH),
    }
    parameters = {"qkv": normal(total, 3 * WIDTH)}
    parameters |= {name: normal(*shape) for name, shape in shapes.items() if name in (*terms, "position")}
    buckets = [torch.randint(BUCKETS, (n, n), generator=generator) for n in lengths]
    upstream = torch.randn(total, WIDTH, generator=generator, dtype=torch.float64)
    return World(lengths, heads, make_layout(np.array(lengths)), buckets, parameters, upstream)


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS.keys())
@pytest.mark.parametrize("heads", [1, 3])
def test_equals_the_obvious_form(terms: tuple[str, ...], heads: int) -> None:
    w = world(terms, heads)
    assert len(w.layout.groups) > 2
    assert w.layout.order_P is not None
    got = w.gradients(lambda: time_attention(w.parameters["qkv"], w.layout, w.relations(), heads))
    assert_equal(got, w.gradients(w.naive), 1e-10)


def keep_rows(w: World, drop_below: int) -> dict[int, Tensor]:
    """What each row's weights are multiplied with, [H, T, T], drawn in the order of groups and strips."""
    kept, rows = {}, iter(w.order)
    for group in w.layout.groups:
        factor = torch.zeros(group.rows, w.heads, group.width, group.width, dtype=torch.float64)
        for lo, hi in strips(group.width):
            drawn = keep_mask(random_bytes((group.rows * w.heads, hi - lo, hi)), drop_below)
            factor[:, :, lo:hi, :hi] = drawn.view(group.rows, w.heads, hi - lo, hi)
        for row_factor in factor * (LEVELS / (LEVELS - drop_below)):
            row = next(rows)
            kept[row] = row_factor[:, : w.lengths[row], : w.lengths[row]]
    return kept


@pytest.mark.parametrize("terms", ["per row", "shared", "bias", "all"])
@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_dropout_equals_autograd_through_the_same_bytes(terms: str, rate: float) -> None:
    w = world(TERMS[terms])
    torch.manual_seed(3)
    got = w.gradients(lambda: time_attention(w.parameters["qkv"], w.layout, w.relations(), 2, rate))
    torch.manual_seed(3)
    keep = keep_rows(w, threshold(rate))
    assert_equal(got, w.gradients(lambda: w.naive(keep)), 1e-10)
    assert not torch.allclose(got["out"], w.naive().detach())


def test_without_relations_it_is_plain_attention() -> None:
    w = world(())
    got = time_attention(w.parameters["qkv"], w.layout, replace(w.relations(), position_PE=None), 2)
    for lo, hi in pairwise(accumulate(w.lengths, initial=0)):
        q, k, v = (x.view(1, hi - lo, 2, -1).transpose(1, 2) for x in w.parameters["qkv"][lo:hi].chunk(3, -1))
        torch.testing.assert_close(got[lo:hi], naive_attention(q, k, v)[0].transpose(0, 1).flatten(1))


def test_gradient_equals_differences() -> None:
    w = world(TERMS["all"], lengths=[3, 1, 4])

    def run(*values: Tensor) -> Tensor:
        w.parameters = dict(zip(w.parameters, values, strict=True))
        return time_attention(w.parameters["qkv"], w.layout, w.relations(), 2)

    assert torch.autograd.gradcheck(run, tuple(w.parameters.values()), fast_mode=True)


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS.keys())
@pytest.mark.parametrize("heads", [1, 3])
def test_newest_is_the_last_row(terms: tuple[str, ...], heads: int) -> None:
    w = world(terms, heads)
    with torch.no_grad():
        newest = newest_time_attention(w.parameters["qkv"], w.layout, w.relations(), heads)
        torch.testing.assert_close(newest, w.naive()[w.layout.last_B], rtol=1e-10, atol=1e-10)


def test_causality_is_exact() -> None:
    """A later event, or a later event's bucket, changes no earlier output in any bit."""
    w = world(TERMS["all"], lengths=[100, 2])
    with torch.no_grad():
        before = time_attention(w.parameters["qkv"], w.layout, w.relations(), 2)
        w.parameters["qkv"][60:100] = 1e3
        w.bucket_rows[0][60:] = 0
        w.bucket_rows[0][:, 60:] = 1
        after = time_attention(w.parameters["qkv"], w.layout, w.relations(), 2)
    assert torch.equal(after[:60], before[:60])
    assert not torch.equal(after[60:100], before[60:100])


@pytest.mark.parametrize("terms", ["all", "bias"])
def test_float32_is_near_float64(terms: str) -> None:
    got, expected = (
        w.gradients(lambda w=w: time_attention(w.parameters["qkv"], w.layout, w.relations(), 2))
        for w in (world(TERMS[terms], dtype=torch.float32), world(TERMS[terms]))
    )
    assert_equal({name: value.double() for name, value in got.items()}, expected, 1e-3)


def test_extreme_scores_stay_finite() -> None:
    w = world(TERMS["all"], dtype=torch.float32)
    with torch.no_grad():
        for value in w.parameters.values():
            value.mul_(1e4)
    got = w.gradients(lambda: time_attention(w.parameters["qkv"], w.layout, w.relations(), 2))
    assert all(bool(value.isfinite().all()) for value in got.values())


def saved_by(run: Callable[[], Tensor]) -> list[int]:
    """The sizes of all tensors that a forward pass keeps for the backward one."""
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sizes


def test_keeps_nothing_of_the_size_of_time_by_time_by_width() -> None:
    """Per row at most its weights and bytes, T T / 2 each and a strip more, and what is linear in T or in buckets."""
    length = 160
    w = world(TERMS["all"], heads=1, lengths=[length, length], dtype=torch.float32)
    sizes = saved_by(lambda: time_attention(w.parameters["qkv"], w.layout, w.relations(), 1, 0.2))
    assert max(sizes) < length * length * WIDTH / 2
    weights, linear = 2 * length * length, 2 * 3 * length * WIDTH + 2 * 2 * BUCKETS * WIDTH
    assert sum(sizes) < 0.65 * 2 * weights + 2 * linear
    naive = saved_by(lambda: w.naive())
    assert max(naive) >= length * length * WIDTH


@pytest.mark.parametrize("newest", [False, True])
def test_under_bf16_autocast(newest: bool) -> None:
    """The layer runs in mixed precision, near its own float32 result, with finite gradients."""
    w = world(TERMS["all"], dtype=torch.float32)
    torch.manual_seed(0)
    layer = CausalSelfAttention(WIDTH, 2, 0.0)
    x_PD = torch.randn(sum(w.lengths), WIDTH, requires_grad=True)
    exact = layer(x_PD, w.layout, newest, None, w.relations())
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(x_PD, w.layout, newest, None, w.relations())
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.1)
    rough.float().square().sum().backward()
    assert x_PD.grad is not None
    assert bool(x_PD.grad.isfinite().all())
    for name in ("keys", "values", "bias", "position"):
        assert bool(w.parameters[name].grad.isfinite().all())
        assert bool(w.parameters[name].grad.any())
