"""Intervals become buckets as the papers say, per row, and never from what another row holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ensue.batches import layout as layouts
from ensue.batches.layout import make_layout
from ensue.nn.embedding import initialise
from ensue.nn.ops.attention import strips
from ensue.nn.ops.relation_terms import Relations
from ensue.nn.relations import LOG_STEP, Buckets, Relation, TimeRelations, bucket_of, smallest_gap

DAY = 86_400
rows_of_times = st.lists(st.lists(st.integers(0, 10_000), min_size=1, max_size=9).map(sorted), min_size=1, max_size=6)


def packed(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    return torch.tensor([t for row in rows for t in row]), torch.tensor([len(row) for row in rows])


@given(rows_of_times)
def test_smallest_gap_equals_a_loop(rows: list[list[int]]) -> None:
    result = smallest_gap(*packed(rows))
    assert result.dtype == torch.float64
    for gap, row in zip(result.tolist(), rows, strict=True):
        gaps = [b - a for a, b in pairwise(row) if b > a]
        assert gap == min(gaps, default=1)


def test_smallest_gap_ignores_borders_and_ties() -> None:
    """Neighbouring rows 1 second apart, ties within rows, a row of one event, a row of one moment."""
    rows = [[100, 160, 160, 400], [401], [402, 402, 402], [403, 1403]]
    assert smallest_gap(*packed(rows)).tolist() == [60, 1, 1, 1000]


@pytest.mark.parametrize("kind", ["linear", "log"])
@pytest.mark.parametrize("last", [3, 63, 256])
def test_bucket_equals_a_loop(kind: Buckets, last: int) -> None:
    rng = np.random.default_rng(0)
    gaps = np.concatenate((np.arange(-70, 70), np.exp(rng.uniform(0, 25, 400)).astype(np.int64)))
    for unit in (1.0, 7.0, 3600.0):
        result = bucket_of(torch.tensor(gaps, dtype=torch.float64), torch.tensor([unit]).double(), kind, last)
        assert result.dtype == torch.int64
        for gap, bucket in zip(gaps.tolist(), result.tolist(), strict=True):
            if kind == "linear":
                expected = {min(last, int(abs(gap) // unit))}
            else:
                place = math.log(max(1.0, abs(gap) / unit)) / LOG_STEP
                # Single precision may put what lies on an edge to either side of it.
                expected = {min(last, math.floor(place - 1e-4)), min(last, math.floor(place + 1e-4))}
                expected = {max(0, bucket) for bucket in expected}
            assert bucket in expected, (gap, unit)


def test_bucket_of_extremes() -> None:
    gap = torch.tensor([0.0, 2.0**53, -(2.0**53), 1e300], dtype=torch.float64)
    assert bucket_of(gap.clone(), torch.ones(1).double(), "linear", 256).tolist() == [0, 256, 256, 256]
    assert bucket_of(gap.clone(), torch.ones(1).double(), "log", 63).tolist() == [0, 63, 63, 63]


def module(relation: Relation = "embedding", kind: Buckets = "linear", span: int = 20, unit: int = 0) -> TimeRelations:
    relations = TimeRelations(150, 8, 2, 0.0, relation, kind, span, unit).eval()
    initialise(relations, 0)
    return relations


def bucket_rows(result: Relations, lengths: Sequence[int]) -> list[list[list[int]]]:
    """r_ij of every row of the batch for j <= i, from the strips of the layout's groups."""
    layout = make_layout(np.array(lengths))
    assert result.asked_buckets == ()
    rows = iter(np.argsort(-np.array(lengths), kind="stable").tolist())
    by_row = {}
    for group, cut in zip(layout.groups, result.buckets, strict=True):
        for g, length in enumerate(group.length_G.tolist()):
            lines = []
            for (lo, hi, _), strip in zip(strips(group.width), cut, strict=True):
                lines += [strip[g, i - lo, : i + 1].tolist() for i in range(lo, hi)]
            by_row[next(rows)] = lines[:length]
    return [by_row[row] for row in range(len(lengths))]


def loop(rows: Sequence[Sequence[int]], asked: Sequence[Sequence[int]], unit: int, span: int) -> list[list[list[int]]]:
    """The paper's r_ij = min(span, floor(|t_i - t_j| / unit)), t_i as the query's time."""
    result = []
    for times, queries in zip(rows, asked, strict=True):
        gaps = [b - a for a, b in pairwise(times) if b > a]
        own = unit or min(gaps, default=1)
        result.append([[min(span, abs(queries[i] - times[j]) // own) for j in range(i + 1)] for i in range(len(times))])
    return result


@given(rows_of_times, st.sampled_from([0, 1, 60]))
def test_buckets_of_a_batch_equal_the_papers_loop(rows: list[list[int]], unit: int) -> None:
    times_P, lengths_B = packed(rows)
    result = module(unit=unit)(times_P, times_P, lengths_B, make_layout(lengths_B.numpy()))
    assert bucket_rows(result, lengths_B.tolist()) == loop(rows, rows, unit, 20)


def test_queries_may_look_back_from_another_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a request's time the interval is from there to each event; the unit stays that of the events."""
    monkeypatch.setattr(layouts, "CALL", 0)
    rows = [[0, 30, 90], [5], [0, 10, 10, 50, 51, 300]]
    asked = [[30, 90, 100], [999], [10, 10, 50, 51, 300, 300]]
    (times_P, lengths_B), (asked_P, _) = packed(rows), packed(asked)
    result = module()(times_P, asked_P, lengths_B, make_layout(lengths_B.numpy()))
    assert bucket_rows(result, lengths_B.tolist()) == loop(rows, asked, 0, 20)


@pytest.mark.parametrize("causal", [True, False])
def test_buckets_of_asked_events_are_chosen_from_all(causal: bool) -> None:
    rng = np.random.default_rng(2)
    times_P, lengths_B = packed([np.cumsum(rng.integers(0, 9, n)).tolist() for n in (90, 3, 1, 85)])
    asked_Q = np.array([0, 1, 50, 89, 92, 93, 178])
    layout = make_layout(lengths_B.numpy(), asked_Q)
    assert layout.asked is not None
    relations = module()(times_P, times_P + 3, lengths_B, layout, causal)
    whole = module()(times_P, times_P + 3, lengths_B, layout.everything, causal=False)
    every = module()(times_P, times_P + 3, lengths_B, layout.everything, causal)
    for got, expected in zip(relations.buckets, every.buckets, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    for places, (bucket_GTT,), (bucket_GAT,) in zip(
        layout.asked.places, whole.buckets, relations.asked_buckets, strict=True
    ):
        rows = torch.arange(len(places))[:, None]
        assert torch.equal(bucket_GAT, bucket_GTT[rows, places])


def test_wide_rows_in_several_strips() -> None:
    times = np.cumsum(np.random.default_rng(1).integers(0, 5, 150)).tolist()
    rows = [times, times[:90], [3]]
    times_P, lengths_B = packed(rows)
    result = module(unit=2)(times_P, times_P, lengths_B, make_layout(lengths_B.numpy()))
    assert bucket_rows(result, lengths_B.tolist()) == loop(rows, rows, 2, 20)


def test_log_buckets_are_in_seconds() -> None:
    """HSTU's buckets are absolute: the row's own smallest gap is no unit of theirs."""
    rows = [[0, 10 * DAY, 11 * DAY], [0, 3600]]
    times_P, lengths_B = packed(rows)
    result = bucket_rows(
        module("bias", "log", 100)(times_P, times_P, lengths_B, make_layout(lengths_B.numpy())), lengths_B.tolist()
    )
    assert result[0][2][1] == math.floor(math.log(DAY) / LOG_STEP)
    assert result[1][1][0] == math.floor(math.log(3600) / LOG_STEP)


@given(rows_of_times)
def test_other_rows_do_not_matter(rows: list[list[int]]) -> None:
    """A row has the buckets that it has alone."""
    times_P, lengths_B = packed(rows)
    result = bucket_rows(module()(times_P, times_P, lengths_B, make_layout(lengths_B.numpy())), lengths_B.tolist())
    for row, together in zip(rows, result, strict=True):
        alone_P, length_B = packed([row])
        alone = module()(alone_P, alone_P, length_B, make_layout(length_B.numpy()))
        assert bucket_rows(alone, [len(row)]) == [together]


def test_tables_and_positions() -> None:
    """Position vectors go to keys and values by age, and never to queries; interval tables are shared by all rows."""
    relations, (times_P, lengths_B) = module(), packed([[1, 5, 9], [2, 2]])
    result = relations(times_P, times_P, lengths_B, make_layout(lengths_B.numpy()))
    assert result.position_PE is not None
    query, key, value = result.position_PE.chunk(3, -1)
    age_P = torch.tensor([2, 1, 0, 1, 0])
    assert not bool(query.any())
    assert torch.equal(key, relations.position_keys[age_P])
    assert torch.equal(value, relations.position_values[age_P])
    assert result.keys_BRD is not None
    assert result.values_BRD is not None
    assert torch.equal(result.keys_BRD[0], relations.interval_keys)
    assert torch.equal(result.values_BRD[0], relations.interval_values)
    assert result.keys_BRD.shape == (1, 21, 8)
    assert result.bias_HR is None


def test_bias_has_a_scalar_for_each_head_and_bucket_and_no_vectors() -> None:
    relations, (times_P, lengths_B) = module("bias"), packed([[1, 5, 9], [2, 2]])
    result = relations(times_P, times_P, lengths_B, make_layout(lengths_B.numpy()))
    assert result.bias_HR is relations.interval_bias
    assert result.bias_HR.shape == (2, 21)
    assert (result.position_PE, result.keys_BRD, result.values_BRD) == (None, None, None)
    assert [name for name, _ in relations.named_parameters()] == ["interval_bias"]


def test_dropout_of_interval_vectors_differs_between_rows() -> None:
    """In training each row drops its own entries of the tables, at the stated rate; not in evaluation."""
    relations = TimeRelations(16, 64, 1, 0.5, "embedding", "linear", 99, 0)
    initialise(relations, 0)
    times_P, lengths_B = packed([[1, 5, 9], [2, 2], [7]])
    layout = make_layout(lengths_B.numpy())
    torch.manual_seed(0)
    result = relations.train()(times_P, times_P, lengths_B, layout)
    assert result.keys_BRD is not None
    assert result.keys_BRD.shape == (3, 100, 64)
    dropped = result.keys_BRD == 0
    assert not torch.equal(dropped[0], dropped[1])
    assert float(dropped.float().mean()) == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(
        result.keys_BRD[~dropped], (2 * relations.interval_keys).expand(3, -1, -1)[~dropped].detach()
    )
    assert relations.eval()(times_P, times_P, lengths_B, layout).keys_BRD.shape == (1, 100, 64)
