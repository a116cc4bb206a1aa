"""Native candidates, sums by row, the full softmax and ranking against their plain forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ensue.nn.native.library import TORCH, computing_with, runnable
from ensue.nn.native.ranking import Ranking, best_of_scores
from ensue.nn.native.rows import add_rows, candidates, is_native
from ensue.nn.native.softmax import cross_entropy_pass
from ensue.nn.ops.full_softmax import cross_entropy, naive_cross_entropy
from ensue.retrieval.index import top_k

pytestmark = pytest.mark.skipif(not runnable(), reason="the native library is not built: make native")


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(loss: Tensor, *tensors: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, tensors))


@pytest.fixture(params=runnable())
def level(request: pytest.FixtureRequest) -> object:
    with computing_with(request.param):
        yield request.param


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(("count", "choices", "width"), [(1, 1, 1), (300, 2, 50), (7, 5, 33)])
def test_candidates(count: int, choices: int, width: int) -> None:
    h, vectors = draw(count, width).requires_grad_(), draw(count, choices, width, seed=2).requires_grad_()
    upstream = draw(count, choices, seed=3)
    ours = candidates(h, vectors)
    h64, vectors64 = (x.detach().double().requires_grad_() for x in (h, vectors))
    exact = (h64[:, None] * vectors64).sum(-1)
    assert torch.allclose(ours.double(), exact, atol=1e-5)
    ours_grads = gradients((ours * upstream).sum(), h, vectors)
    for ours_grad, exact_grad in zip(ours_grads, gradients((exact * upstream).sum(), h64, vectors64), strict=True):
        assert torch.allclose(ours_grad.double(), exact_grad, atol=1e-5)


@pytest.mark.usefixtures("level")
def test_sums_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, values = torch.randint(0, 40, (1000,), generator=torch.Generator().manual_seed(1)), draw(1000, 21)
    tables = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        tables.append(torch.zeros(40, 21))
        add_rows(tables[-1], rows, values)
    assert torch.equal(*tables)
    assert torch.equal(tables[0], torch.zeros(40, 21).index_add_(0, rows, values))
    for wrong in (rows - 1, rows + 1):
        with pytest.raises(ValueError, match=r"rows must be in 0\.\.39"):
            add_rows(tables[0], wrong, values)
    with pytest.raises(ValueError, match="do not fit"):
        add_rows(tables[0], rows[1:], values)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(("count", "items", "width"), [(1, 1, 1), (300, 70, 50), (5, 1200, 17)])
def test_full_softmax(count: int, items: int, width: int) -> None:
    h, table = draw(count, width).requires_grad_(), draw(items, width, seed=2).requires_grad_()
    target = torch.randint(0, items, (count,), generator=torch.Generator().manual_seed(1))
    h64, table64 = (x.detach().double().requires_grad_() for x in (h, table))
    exact = naive_cross_entropy(h64, target, table64)
    for upstream in (torch.full((count,), 0.5), draw(count, seed=3)):
        ours = cross_entropy(h, target, table)
        assert torch.allclose(ours.double(), exact, atol=1e-5)
        exact_grads = gradients((exact * upstream).sum(), h64, table64)
        exact = naive_cross_entropy(h64, target, table64)
        for ours_grad, exact_grad in zip(gradients((ours * upstream).sum(), h, table), exact_grads, strict=True):
            assert (ours_grad - exact_grad).abs().max() < 1e-5 * max(1.0, float(exact_grad.abs().max()))


@pytest.mark.usefixtures("level")
def test_full_softmax_is_finite_and_the_same_for_any_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    h, table, target = 3000 * draw(90, 20), draw(600, 20, seed=2), torch.arange(90)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        results.append(cross_entropy_pass(h, target, table, torch.ones(90)))
    assert all(bool(x.isfinite().all()) for x in results[0] if x is not None)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))  # type: ignore[arg-type]
    for wrong in (target - 1, target + 600):
        with pytest.raises(ValueError, match=r"targets must be one or more rows in 0\.\.599"):
            cross_entropy_pass(h, wrong, table, None)
    with pytest.raises(ValueError, match="do not fit"):
        cross_entropy_pass(h[:, 1:], target, table, None)


def hidden_pairs(states: int, items: int, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    is_hidden = np.random.default_rng(1).random((states, items)) < 0.2
    is_hidden[np.arange(states), target] = False
    rows, columns = np.nonzero(is_hidden)
    return rows, columns


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(("states", "items", "width"), [(1, 1, 1), (50, 1100, 21), (3, 512, 150)])
def test_ranking(states: int, items: int, width: int) -> None:
    """Small whole numbers, so that scores are exact and many are tied."""
    h, vectors = draw(states, width).round(), draw(items, width, seed=2).round()
    target = np.arange(states) % items
    row, column = hidden_pairs(states, items, target)
    scores = h @ vectors.T
    own = scores[torch.arange(states), torch.from_numpy(target)][:, None].clone()
    expected = scores.clone()
    expected[torch.from_numpy(row), torch.from_numpy(column)] = -torch.inf
    ranking = Ranking(vectors)
    standings = ranking.standings(h, target, row, column)
    assert standings is not None
    assert standings[0].tolist() == (expected > own).sum(1).tolist()
    assert standings[1].tolist() == ((expected == own).sum(1) - 1).tolist()
    for k in {1, min(10, items), min(items, 1000)}:
        best = ranking.best(h, k, row, column)
        assert best is not None
        with computing_with(TORCH):
            plain = top_k(scores.clone(), k, (torch.from_numpy(row), torch.from_numpy(column) + 1))
        assert torch.equal(best[0], plain[0])
        is_left = plain[0].isfinite()
        assert torch.equal(best[1][is_left], plain[1][is_left])


@pytest.mark.usefixtures("level")
def test_a_target_is_tied_with_its_copies_and_not_with_itself() -> None:
    """Scores of one item and of a block of items are summed in the same order, in every bit."""
    h, vectors = draw(40, 50), draw(700, 50, seed=2)
    vectors[600:640] = vectors[:40]
    none = np.zeros(0, dtype=np.int64)
    standings = Ranking(vectors).standings(h, np.arange(40), none, none)
    assert standings is not None
    assert standings[1].tolist() == [1] * 40


def test_ranking_refuses_what_cannot_be_ranked() -> None:
    h, none = draw(2, 8), np.zeros(0, dtype=np.int64)
    for value in (float("nan"), float("inf"), -float("inf")):
        vectors = draw(20, 8)
        vectors[7, 3] = value
        assert Ranking(vectors).standings(h, np.zeros(2), none, none) is None
        assert Ranking(vectors).best(h, 3, none, none) is None
    ranking = Ranking(draw(20, 8))
    for target in ([0, 20], [-1, 0], [0]):
        with pytest.raises(ValueError, match="targets must be 2 columns"):
            ranking.standings(h, np.array(target), none, none)
    for row, column in (([0, 0], [3, 3]), ([1, 0], [3, 4]), ([2], [3]), ([0], [20]), ([0], [-1])):
        with pytest.raises(ValueError, match="hidden pairs must be"):
            ranking.best(h, 1, np.array(row), np.array(column))
    for k in (0, 21):
        with pytest.raises(ValueError, match="k must be in"):
            ranking.best(h, k, none, none)
    with pytest.raises(ValueError, match="states must be float32 of width 8"):
        ranking.best(h.double(), 1, none, none)


def test_what_the_library_does_not_compute() -> None:
    assert is_native(draw(2))
    assert not is_native(draw(2).double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not is_native(draw(2))
    with computing_with(TORCH):
        assert not is_native(draw(2))


@pytest.mark.usefixtures("level")
def test_the_best_of_given_scores() -> None:
    scores = draw(5, 1001).mul(3).round()
    scores[2] = -torch.inf
    scores[3, 5:] = -torch.inf
    for k in (1, 10, 1000):
        ours = best_of_scores(scores, k)
        with computing_with(TORCH):
            plain = top_k(scores.clone(), k)
        assert torch.equal(ours[0], plain[0])
        is_left = plain[0].isfinite()
        assert torch.equal(ours[1][is_left], plain[1][is_left])
    for k in (0, 1002):
        with pytest.raises(ValueError, match="k must be in"):
            best_of_scores(scores, k)
