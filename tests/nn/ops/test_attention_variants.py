"""Attention with relations, without a causal mask, or for some events alone, against the plain form.

Values and every gradient in float64; no tensor of [T, T, D] is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from ensue.batches import layout as layouts
from ensue.batches.layout import Layout, make_layout
from ensue.nn.ops import attention as ops
from ensue.nn.ops.attention import attention, naive_attention, strips
from ensue.nn.ops.dropout import LEVELS, keep_mask, random_bytes, threshold
from ensue.nn.ops.relation_terms import Relations, Terms
from ensue.nn.self_attention import SelfAttention

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
    causal: bool
    layout: Layout
    bucket_rows: list[Tensor]  # [T, T] of each row of the batch
    parameters: dict[str, Tensor]
    upstream_QD: Tensor

    @property
    def order(self) -> list[int]:
        """The rows as the layout sorts them."""
        return np.argsort(-np.array(self.lengths), kind="stable").tolist()

    def relations(self) -> Relations:
        buckets, asked, rows = [], [], iter(self.order)
        for number, group in enumerate(self.layout.groups):
            cells = torch.zeros(group.rows, group.width, group.width, dtype=torch.int64)
            for g in range(group.rows):
                bucket_TT = self.bucket_rows[next(rows)]
                cells[g, : len(bucket_TT), : len(bucket_TT)] = bucket_TT
            buckets.append(tuple(cells[:, lo:hi, :keys] for lo, hi, keys in strips(group.width, self.causal)))
            if self.layout.asked is not None:
                asked.append((cells[torch.arange(group.rows)[:, None], self.layout.asked.places[number]],))
        p = self.parameters
        return Relations(tuple(buckets), tuple(asked), self.position(), p.get("keys"), p.get("values"), p.get("bias"))

    def position(self) -> Tensor | None:
        """The position vectors, none for queries."""
        position_PE = self.parameters.get("position")
        return None if position_PE is None else torch.nn.functional.pad(position_PE, (WIDTH, 0))

    def run(self, dropout_rate: float = 0.0, relations: Relations | None = None) -> Tensor:
        """The fast form, as the layer calls it."""
        relations = self.relations() if relations is None else relations
        qkv_PE, q_QD = self.parameters["qkv"], None
        if self.layout.asked is not None:
            q_PD, qkv_PE = qkv_PE.split([WIDTH, 2 * WIDTH], -1)
            q_QD = self.layout.choose(q_PD)
        return attention(qkv_PE, self.layout, self.heads, dropout_rate, self.causal, relations, q_QD)

    def naive(self, keep_rows: dict[int, Tensor] | None = None) -> Tensor:
        """The plain form, row by row."""
        qkv_PE = self.parameters["qkv"]
        if (position_PE := self.position()) is not None:
            qkv_PE = qkv_PE + position_PE
        outs = []
        for row, (lo, hi) in enumerate(pairwise(accumulate(self.lengths, initial=0))):
            place = self.order.index(row)

            def table(name: str, place: int = place) -> Tensor | None:
                value = self.parameters.get(name)
                return None if value is None else self._heads(value[place % len(value)])

            q, k, v = (self._heads(x) for x in qkv_PE[lo:hi].chunk(3, -1))
            keep = None if keep_rows is None else keep_rows[row]
            terms = Terms(table("keys"), table("values"), self.parameters.get("bias"))
            out_HTD = naive_attention(q, k, v, self.causal, terms, self.bucket_rows[row], keep)
            outs.append(out_HTD.transpose(0, 1).flatten(1))
        return self.layout.choose(torch.cat(outs))

    def _heads(self, x_TD: Tensor) -> Tensor:
        return x_TD.view(len(x_TD), self.heads, -1).transpose(0, 1)

    def gradients(self, make: Callable[[], Tensor]) -> dict[str, Tensor]:
        """The output, and the gradients of everything."""
        out = make()
        grads = torch.autograd.grad(out, list(self.parameters.values()), self.upstream_QD.to(out.dtype))
        return {"out": out.detach(), **dict(zip(self.parameters, grads, strict=True))}


def world(
    terms: tuple[str, ...],
    heads: int = 2,
    lengths: list[int] = LENGTHS,
    dtype: torch.dtype = torch.float64,
    causal: bool = True,
    asked: list[int] | None = None,
) -> World:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    rows, total = len(lengths) if "rows" in terms else 1, sum(lengths)
    shapes = {
        "keys": (rows, BUCKETS, WIDTH),
        "values": (rows, BUCKETS, WIDTH),
        "bias": (heads, BUCKETS),
        "position": (total, 2 * WIDTH),
    }
    parameters = {"qkv": normal(total, 3 * WIDTH)}
    parameters |= {name: normal(*shape) for name, shape in shapes.items() if name in (*terms, "position")}
    buckets = [torch.randint(BUCKETS, (n, n), generator=generator) for n in lengths]
    upstream = torch.randn(total if asked is None else len(asked), WIDTH, generator=generator, dtype=torch.float64)
    layout = make_layout(np.array(lengths), None if asked is None else np.array(asked))
    return World(lengths, heads, causal, layout, buckets, parameters, upstream)


def some_of(lengths: list[int], share: float) -> list[int]:
    """A random subset of the events of every row, perhaps none of one."""
    return np.flatnonzero(np.random.default_rng(0).random(sum(lengths)) < share).tolist()


LAST = (np.cumsum(LENGTHS) - 1).tolist()
# All events, the newest, a few, all of one row but none of the others, most, and two neighbours in the last row.
ASKED = {
    "all": None,
    "newest": LAST,
    "few": some_of(LENGTHS, 0.1),
    "one row": list(range(5, 95)),
    "most": some_of(LENGTHS, 0.9),
    "two": [268, 269],
}


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS.keys())
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_equals_the_plain_form(terms: tuple[str, ...], heads: int, causal: bool, asked: list[int] | None) -> None:
    """Any asked subset is what the plain form of all events gives there, with the gradients of everything."""
    w = world(terms, heads, causal=causal, asked=asked)
    assert len(w.layout.groups) > 2
    assert w.layout.order_P is not None
    assert_equal(w.gradients(w.run), w.gradients(w.naive), 1e-10)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_equals_the_plain_form_without_relations(causal: bool, asked: list[int] | None) -> None:
    w = world(("no position",), causal=causal, asked=asked)
    del w.parameters["position"]
    expected = w.gradients(w.naive)

    def run() -> Tensor:
        qkv_PE, q_QD = w.parameters["qkv"], None
        if asked is not None:
            q_QD, qkv_PE = w.layout.choose(qkv_PE[:, :WIDTH]), qkv_PE[:, WIDTH:]
        return attention(qkv_PE, w.layout, 2, causal=causal, q_QD=q_QD)

    assert_equal(w.gradients(run), expected, 1e-10)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_torchs_own_kernels_equal_the_plain_form(causal: bool, asked: list[int] | None) -> None:
    """What other devices than a CPU run, here on a CPU."""
    w = world((), causal=causal, asked=asked)
    del w.parameters["position"]
    expected = w.gradients(w.naive)

    def run() -> Tensor:
        qkv_PE, layout = w.parameters["qkv"], w.layout
        packed_PE = qkv_PE if asked is None else qkv_PE[:, WIDTH:]
        q_QD = None if layout.asked is None else layout.choose(qkv_PE[:, :WIDTH])[layout.asked.order_Q]
        plans = ops._plans(layout, causal, None, 2, 0)
        out_QD = ops._fused(packed_PE[layout.order_P], q_QD, plans, 0.0)
        return out_QD[layout.inverse_P if layout.asked is None else layout.asked.inverse_Q]

    assert_equal(w.gradients(run), expected, 1e-10)


def keep_rows(w: World, drop_below: int) -> dict[int, Tensor]:
    """What each row's weights are multiplied with, [H, T, T], drawn in the order of groups and strips."""
    kept, rows = {}, iter(w.order)
    for group in w.layout.groups:
        factor = torch.zeros(group.rows, w.heads, group.width, group.width, dtype=torch.float64)
        for lo, hi, keys in strips(group.width, w.causal):
            drawn = keep_mask(random_bytes((group.rows * w.heads, hi - lo, keys)), drop_below)
            factor[:, :, lo:hi, :keys] = drawn.view(group.rows, w.heads, hi - lo, keys)
        for row_factor in factor * (LEVELS / (LEVELS - drop_below)):
            row = next(rows)
            kept[row] = row_factor[:, : w.lengths[row], : w.lengths[row]]
    return kept


@pytest.mark.parametrize("terms", ["per row", "shared", "bias", "all"])
@pytest.mark.parametrize("rate", [0.2, 0.7])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_dropout_equals_autograd_through_the_same_bytes(terms: str, rate: float, causal: bool) -> None:
    w = world(TERMS[terms], causal=causal)
    torch.manual_seed(3)
    got = w.gradients(lambda: w.run(rate))
    torch.manual_seed(3)
    keep = keep_rows(w, threshold(rate))
    assert_equal(got, w.gradients(lambda: w.naive(keep)), 1e-10)
    assert not torch.allclose(got["out"], w.naive().detach())


def asked_keep_rows(w: World, drop_below: int) -> dict[int, Tensor]:
    """As `keep_rows`, for asked events: drawn in the order of groups, for the asked queries alone."""
    assert w.layout.asked is not None
    kept, rows = {}, iter(w.order)
    for group, queries, places in zip(w.layout.groups, w.layout.asked.groups, w.layout.asked.places, strict=True):
        drawn = keep_mask(random_bytes((group.rows * w.heads, queries.width, group.width)), drop_below).double()
        drawn = drawn.view(group.rows, w.heads, queries.width, group.width) * (LEVELS / (LEVELS - drop_below))
        for g, (count, row) in enumerate(zip(queries.length_G.tolist(), rows, strict=False)):
            kept[row] = torch.zeros(w.heads, w.lengths[row], w.lengths[row], dtype=torch.float64)
            kept[row][:, places[g, :count]] = drawn[g, :, :count, : w.lengths[row]]
    return kept


@pytest.mark.parametrize("terms", ["all", "none"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("asked", ["newest", "few", "one row"])
def test_dropout_of_asked_events(terms: str, causal: bool, asked: str) -> None:
    w = world(TERMS[terms], causal=causal, asked=ASKED[asked])
    torch.manual_seed(3)
    got = w.gradients(lambda: w.run(0.4))
    torch.manual_seed(3)
    keep = asked_keep_rows(w, threshold(0.4))
    assert_equal(got, w.gradients(lambda: w.naive(keep)), 1e-10)


def test_gradient_equals_differences() -> None:
    w = world(TERMS["all"], lengths=[3, 1, 4])

    def run(*values: Tensor) -> Tensor:
        w.parameters = dict(zip(w.parameters, values, strict=True))
        return w.run()

    assert torch.autograd.gradcheck(run, tuple(w.parameters.values()), fast_mode=True)


def test_causality_is_exact() -> None:
    """A later event, or a later event's bucket, changes no earlier output in any bit."""
    w = world(TERMS["all"], lengths=[100, 2])
    with torch.no_grad():
        before = w.run()
        w.parameters["qkv"][60:100] = 1e3
        w.bucket_rows[0][60:] = 0
        w.bucket_rows[0][:, 60:] = 1
        after = w.run()
    assert torch.equal(after[:60], before[:60])
    assert not torch.equal(after[60:100], before[60:100])


@pytest.mark.parametrize("terms", ["all", "bias"])
def test_float32_is_near_float64(terms: str) -> None:
    got, expected = (w.gradients(w.run) for w in (world(TERMS[terms], dtype=torch.float32), world(TERMS[terms])))
    assert_equal({name: value.double() for name, value in got.items()}, expected, 1e-3)


def test_extreme_scores_stay_finite() -> None:
    w = world(TERMS["all"], dtype=torch.float32)
    with torch.no_grad():
        for value in w.parameters.values():
            value.mul_(1e4)
    got = w.gradients(w.run)
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
    sizes = saved_by(lambda: w.run(0.2))
    assert max(sizes) < length * length * WIDTH / 2
    weights, linear = 2 * length * length, 2 * 3 * length * WIDTH + 2 * 2 * BUCKETS * WIDTH
    assert sum(sizes) < 0.65 * 2 * weights + 2 * linear
    naive = saved_by(lambda: w.naive())
    assert max(naive) >= length * length * WIDTH


@pytest.mark.parametrize("asked", [None, LAST], ids=["all", "newest"])
def test_under_bf16_autocast(asked: list[int] | None) -> None:
    """The layer runs in mixed precision, near its own float32 result, with finite gradients."""
    w = world(TERMS["all"], dtype=torch.float32, asked=asked)
    torch.manual_seed(0)
    layer = SelfAttention(WIDTH, 2, 0.0)
    x_PD = torch.randn(sum(w.lengths), WIDTH, requires_grad=True)
    exact = layer(w.layout.choose(x_PD), x_PD, w.layout, w.relations())
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(w.layout.choose(x_PD), x_PD, w.layout, w.relations())
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.1)
    rough.float().square().sum().backward()
    assert x_PD.grad is not None
    assert bool(x_PD.grad.isfinite().all())
    for name in ("keys", "values", "bias", "position"):
        assert bool(w.parameters[name].grad.isfinite().all())
        assert bool(w.parameters[name].grad.any())
