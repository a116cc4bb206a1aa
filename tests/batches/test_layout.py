"""Cutting a packed batch into rectangles and back changes no event, no gradient and no order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ensue.batches import layout as layouts
from ensue.batches.batch import SequenceBatch, history_batch, query_times
from ensue.batches.layout import Layout, _cut, make_layout, newest
from ensue.data.arrays import gather_events
from ensue.data.split import Sequences
from ensue.data.store import SequenceStore

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=80).map(np.array)


def packed(lengths_B: np.ndarray, width: int = 3) -> torch.Tensor:
    return 1 + torch.arange(int(lengths_B.sum()) * width, dtype=torch.float32).view(-1, width)


@given(lengths)
def test_pad_then_unpad_is_the_identity(lengths_B: np.ndarray) -> None:
    layout = make_layout(lengths_B)
    x = packed(lengths_B)
    rectangles = layout.pad(x)
    assert torch.equal(layout.unpad(rectangles), x)
    assert sum(group.rows for group in layout.groups) == len(lengths_B)
    # Padding is zero, and nothing but the events is there.
    assert sum(float(r.double().sum()) for r in rectangles) == float(x.double().sum())


@given(lengths)
def test_rectangles_hold_each_row_from_its_oldest_event(lengths_B: np.ndarray) -> None:
    layout = make_layout(lengths_B)
    first = np.cumsum(lengths_B) - lengths_B
    events = torch.arange(int(lengths_B.sum()))[:, None] + 1
    rows = iter(np.argsort(-lengths_B, kind="stable"))
    for rectangle, group in zip(layout.pad(events), layout.groups, strict=True):
        for cells, length in zip(rectangle[..., 0].tolist(), group.length_G.tolist(), strict=True):
            row = next(rows)
            assert length == lengths_B[row]
            padding = [0] * (group.width - length)
            assert cells == list(range(first[row] + 1, first[row] + length + 1)) + padding


@given(lengths)
def test_ages_and_newest_events(lengths_B: np.ndarray) -> None:
    layout = make_layout(lengths_B)
    assert layout.age_P.tolist() == [age for n in lengths_B for age in range(n - 1, -1, -1)]
    assert layout.last_B.tolist() == (np.cumsum(lengths_B) - 1).tolist()


@given(lengths, st.data())
def test_asked_events(lengths_B: np.ndarray, data: st.DataObject) -> None:
    """`choose`, and the rectangles of asked events: each in its row's order, at its place in the row."""
    total = int(lengths_B.sum())
    asked = np.array(sorted(data.draw(st.sets(st.integers(0, total - 1)))), dtype=np.int64)
    layout, plain = make_layout(lengths_B, asked), make_layout(lengths_B)
    if len(asked) == total:
        assert layout.asked is None
        return
    assert layout.asked is not None
    assert layout.asked_Q.tolist() == asked.tolist()
    assert torch.equal(layout.choose(packed(lengths_B)), packed(lengths_B)[asked])
    assert_same(layout.everything, plain)
    first = np.cumsum(lengths_B) - lengths_B
    rows = iter(np.argsort(-lengths_B, kind="stable"))
    number_Q = torch.arange(len(asked))
    in_groups = number_Q if layout.asked.order_Q is None else number_Q[layout.asked.order_Q]
    if layout.asked.inverse_Q is not None:
        assert torch.equal(in_groups[layout.asked.inverse_Q], number_Q)
    by_group = in_groups.split(list(layout.asked.sizes))
    parts = zip(layout.groups, layout.asked.groups, layout.asked.places, by_group, strict=True)
    for keys, group, places_GA, numbers_q in parts:
        assert group.rows == keys.rows
        assert group.width == group.length_G.max()
        events = iter(asked[numbers_q.numpy()].tolist())
        for places, count in zip(places_GA.tolist(), group.length_G.tolist(), strict=True):
            row = next(rows)
            mine = [event for event in asked.tolist() if first[row] <= event < first[row] + lengths_B[row]]
            assert [next(events) for _ in range(count)] == mine
            assert places == [event - first[row] for event in mine] + [0] * (group.width - count)


def assert_same(one: Layout, other: Layout) -> None:
    assert one.sizes == other.sizes
    assert one.asked is None
    assert other.asked is None
    assert torch.equal(one.age_P, other.age_P)
    assert all(torch.equal(a.cell_p, b.cell_p) for a, b in zip(one.groups, other.groups, strict=True))


def test_all_asked_is_no_choice() -> None:
    """However it is said; `choose` and `everything` then cost nothing."""
    for layout in (make_layout(np.array([2, 1])), make_layout(np.array([2, 1]), np.arange(3))):
        x = torch.zeros(3, 2)
        assert layout.asked_Q is None
        assert layout.choose(x) is x
        assert layout.everything is layout


def test_the_newest_are_one_to_a_row() -> None:
    lengths_B = np.array([3, 1, 40, 2])
    assert newest(lengths_B).tolist() == [2, 3, 43, 45]
    layout = make_layout(lengths_B, newest(lengths_B))
    assert layout.asked is not None
    assert all(group.width == 1 for group in layout.asked.groups)
    assert torch.equal(layout.asked_Q, layout.last_B)


@given(lengths)
def test_rows_join_in_the_batch_order(lengths_B: np.ndarray) -> None:
    layout = make_layout(lengths_B)
    last = [
        x[torch.arange(g.rows), g.length_G - 1]
        for x, g in zip(layout.pad(packed(lengths_B)), layout.groups, strict=True)
    ]
    assert torch.equal(layout.join_rows(last), packed(lengths_B)[layout.last_B])


@given(lengths)
def test_the_cut_covers_all_rows_and_costs_at_most_one_group(lengths_B: np.ndarray) -> None:
    ordered = np.sort(lengths_B)[::-1]
    groups = _cut(ordered)
    assert groups[0][0] == 0
    assert groups[-1][1] == len(ordered)
    assert all(a[1] == b[0] for a, b in pairwise(groups))

    def cost(cuts: list[tuple[int, int]]) -> float:
        return sum((b - a) * ordered[a] * (ordered[a] + layouts.COPY) + layouts.CALL for a, b in cuts)

    assert cost(groups) <= cost([(0, len(ordered))])


def test_the_cut_is_the_cheapest_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against every way to cut eight rows."""
    ordered = np.array([300, 290, 200, 90, 80, 40, 5, 1])

    def cost(cuts: list[tuple[int, int]]) -> float:
        return sum((b - a) * ordered[a] * (ordered[a] + layouts.COPY) + layouts.CALL for a, b in cuts)

    every = []
    for pattern in range(1 << 7):
        edges = [0, *(i + 1 for i in range(7) if pattern >> i & 1), 8]
        every.append(cost(list(pairwise(edges))))
    assert cost(_cut(ordered)) == min(every)


@pytest.mark.parametrize("lengths_B", [[4, 4, 4], [5, 1, 3], [300, 2, 290, 1, 1, 295]])
def test_gradients_of_padding(lengths_B: list[int]) -> None:
    layout = make_layout(np.array(lengths_B))
    x = torch.randn(sum(lengths_B), 1, dtype=torch.float64, requires_grad=True)
    weights = [torch.randn(g.rows, g.width, 1, dtype=torch.float64) for g in layout.groups]

    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        return layout.unpad([(rectangle * w).tanh() for rectangle, w in zip(layout.pad(x), weights, strict=True)])

    assert torch.autograd.gradcheck(there_and_back, (x,), fast_mode=sum(lengths_B) > 50)


def test_a_batch_of_equal_rows_needs_no_order() -> None:
    layout = make_layout(np.array([3, 3]))
    assert layout.order_P is None
    assert layout.inverse_P is None
    assert layout.inverse_B is None
    assert make_layout(np.array([2, 3])).order_P is not None


def test_batch_from_lists_equals_from_numpy() -> None:
    batch = SequenceBatch.from_lists([[3, 1], [2], [5, 4, 6]])
    assert batch.items_P.tolist() == [3, 1, 2, 5, 4, 6]
    assert batch.lengths_B.tolist() == [2, 1, 3]
    assert batch.items_P.dtype == torch.int64
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    assert moved.items_P.device.type == "meta"
    layout = make_layout(np.array([2, 1, 3]), np.array([1, 5])).to(torch.device("meta"))
    assert layout.asked is not None
    for index in (layout.last_B, layout.asked_Q, layout.asked.places[0], layout.groups[0].cell_p, layout.inverse_B):
        assert index is not None
        assert index.device.type == "meta"


def test_gather_events() -> None:
    assert gather_events(np.array([5, 0, 9]), np.array([7, 1, 9])).tolist() == [5, 6, 0]


def test_history_batch_keeps_the_newest_events(make_store) -> None:  # type: ignore[no-untyped-def]
    store = make_store([[1, 2, 3, 4, 5], [6], [7, 8, 9]])
    view = Sequences(store, np.arange(3), store.offsets[:-1], store.offsets[1:])
    batch = history_batch(view, np.array([2, 0, 1]), maxlen=2)
    assert batch.items_P.tolist() == [8, 9, 4, 5, 6]
    assert batch.lengths_B.tolist() == [2, 2, 1]
    assert batch.times_P is None
    assert batch.target_Q is None
    assert batch.asked_Q.tolist() == [1, 3, 4]


def test_query_times_are_the_next_events_and_the_requests() -> None:
    times, lengths = np.array([1, 2, 3, 10, 20, 5]), np.array([3, 2, 1])
    assert query_times(times, lengths, np.array([7, 70, 700])).tolist() == [2, 3, 7, 20, 70, 700]
    assert times.tolist() == [1, 2, 3, 10, 20, 5]


def test_history_batch_with_the_times_of_requests() -> None:
    store = SequenceStore.from_arrays(
        offsets=np.array([0, 3, 4]), items=np.array([1, 2, 3, 1]), times=np.array([10, 20, 35, 7])
    )
    view = Sequences(store, np.arange(2), store.offsets[:-1], store.offsets[1:])
    batch = history_batch(view, np.array([1, 0]), 2, np.array([8, 99]))
    assert batch.times_P is not None
    assert batch.times_P.tolist() == [7, 20, 35]
    assert batch.query_times_P is not None
    assert batch.query_times_P.tolist() == [8, 35, 99]
    assert batch.to(torch.device("meta")).query_times_P.device.type == "meta"  # type: ignore[union-attr]
    assert history_batch(view, np.array([1, 0]), 2).query_times_P is None
