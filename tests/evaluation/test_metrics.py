from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, ndcg_score, roc_auc_score

from ensue.errors import ConfigError, DataError
from ensue.evaluation import metrics
from ensue.evaluation.metrics import METRICS, parse_metric


def standing(scores_BN: np.ndarray, target_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own_B1 = np.take_along_axis(scores_BN, target_B[:, None], axis=1)
    return (scores_BN > own_B1).sum(axis=1), (scores_BN == own_B1).sum(axis=1) - 1


@pytest.fixture(scope="module")
def tie_free() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    scores = rng.permuted(np.tile(np.arange(40.0), (60, 1)), axis=1)
    return scores, rng.integers(40, size=60)


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("hr@10", "Success@10"),
        ("ndcg@10", "nDCG@10"),
        ("ndcg", "nDCG"),
        ("mrr", "RR"),
        ("mrr@5", "RR@5"),
        ("map@10", "AP@10"),
        ("recall@20", "R@20"),
        ("precision@5", "P@5"),
    ],
)
def test_equal_to_ir_measures_per_case(name: str, measure: str, tie_free: tuple[np.ndarray, np.ndarray]) -> None:
    scores, target = tie_free
    run = {str(b): {str(i): float(s) for i, s in enumerate(row)} for b, row in enumerate(scores)}
    qrels = {str(b): {str(t): 1} for b, t in enumerate(target)}
    theirs = np.zeros(len(target))
    for result in ir_measures.iter_calc([ir_measures.parse_measure(measure)], qrels, run):
        theirs[int(result.query_id)] = result.value
    ours = parse_metric(name)(*standing(scores, target), scores.shape[1])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    assert theirs.max() > theirs.min()


def test_auc_and_ndcg_equal_scikit_learn(tie_free: tuple[np.ndarray, np.ndarray]) -> None:
    scores, target = tie_free
    truth = np.eye(scores.shape[1])[target]
    counts = standing(scores, target)
    auc = parse_metric("auc")(*counts, scores.shape[1])
    np.testing.assert_allclose(auc, [roc_auc_score(t, s) for t, s in zip(truth, scores, strict=True)])
    ndcg = parse_metric("ndcg@10")(*counts, scores.shape[1])
    np.testing.assert_allclose(ndcg.mean(), ndcg_score(truth, scores, k=10))


def test_ties_equal_scikit_learn() -> None:
    """scikit-learn also averages DCG over tied groups (with the same result in expectation)."""
    rng = np.random.default_rng(5)
    scores, target = rng.integers(4, size=(80, 30)).astype(float), rng.integers(30, size=80)
    truth = np.eye(30)[target]
    counts = standing(scores, target)
    ndcg = [ndcg_score(t[None], s[None], k=7) for t, s in zip(truth, scores, strict=True)]
    np.testing.assert_allclose(metrics.ndcg(*counts, 30, 7), ndcg, atol=1e-12)
    auc = [roc_auc_score(t, s) for t, s in zip(truth, scores, strict=True)]
    np.testing.assert_allclose(metrics.auc(*counts, 30), auc, atol=1e-12)


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize("k", [1, 3, 10, None])
def test_ties_are_the_mean_over_all_orders(name: str, k: int | None) -> None:
    number, better, equal = 15, 2, 6
    places = [METRICS[name](place - 1, 0, number, k) for place in range(better + 1, better + equal + 2)]
    np.testing.assert_allclose(METRICS[name](better, equal, number, k), np.mean(places), atol=1e-13)


@given(st.integers(1, 100_000), st.integers(1, 200))
def test_a_constant_scorer_gets_chance(num_items: int, k: int) -> None:
    depth = min(k, num_items)
    places = np.arange(1, depth + 1)
    tied = (np.zeros(1), np.full(1, num_items - 1), num_items)
    assert metrics.hit_rate(*tied, k)[0] == pytest.approx(depth / num_items, abs=1e-12)
    assert metrics.ndcg(*tied, k)[0] == pytest.approx((1 / np.log2(places + 1)).sum() / num_items, abs=1e-12)
    assert metrics.mrr(*tied, k)[0] == pytest.approx((1 / places).sum() / num_items, abs=1e-12)
    assert metrics.auc(*tied)[0] == pytest.approx(0.5, abs=1e-12)
    assert metrics.rank(*tied)[0] == (num_items + 1) / 2


@given(st.lists(st.integers(0, 3), min_size=2, max_size=20), st.data())
def test_moving_the_candidates_changes_nothing(row: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(row))))
    target = data.draw(st.integers(0, len(row) - 1))
    scores = np.array([row, [row[i] for i in order]], dtype=float)
    better, equal = standing(scores, np.array([target, order.index(target)]))
    for name in METRICS:
        values = METRICS[name](better, equal, len(row), 5)
        assert values[0] == values[1]


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 60))
def test_bounds_and_growth_in_k(better: int, equal: int, k: int) -> None:
    number = better + equal + 1
    for name in ("hr", "ndcg", "mrr", "recall", "map"):
        low, high = METRICS[name](better, equal, number, k), METRICS[name](better, equal, number, k + 1)
        assert 0 <= low <= high + 1e-12
        assert high <= 1 + 1e-12


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match="case 1: better 5, equal 0 of 5"):
        metrics.ndcg([0, 5], [0, 0], 5)
    with pytest.raises(DataError, match="case 0"):
        metrics.hit_rate([-1], [0], 5)


def test_no_cases_give_no_values() -> None:
    empty = np.zeros(0, dtype=np.int64)
    assert all(METRICS[name](empty, empty, 10, 5).shape == (0,) for name in METRICS)


def test_parse_metric() -> None:
    assert parse_metric(" NDCG@10 ") == metrics.Metric("ndcg", 10, metrics.ndcg)
    assert str(parse_metric("hr@5")) == "HR@5"
    assert str(parse_metric("mrr")) == "MRR"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ndgc@10", "did you mean 'ndcg'"),
        ("ndcg@0", "got '0'"),
        ("hr@", "whole number"),
        ("hr@1.5", "got '1.5'"),
        ("rank@3", "has no cut-off"),
        ("", "unknown metric"),
    ],
)
def test_parse_metric_names_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_metric(text)


def test_list_metrics_by_hand() -> None:
    lists = np.array([[1, 2, 3], [1, 4, 0]])
    counts = np.array([8, 4, 2, 2, 0])
    assert metrics.coverage(lists, 5) == 4 / 5
    np.testing.assert_allclose(metrics.novelty(lists, counts), [(1 + 2 + 3) / 3, (1 + 3) / 2])
    np.testing.assert_allclose(metrics.popularity_bias(lists, counts), [(14 / 3) / 3.2, 5 / 3.2])
    vectors = metrics.category_vectors(["a", "a", "b", "b", "c"])
    np.testing.assert_allclose(metrics.intra_list_diversity(lists, vectors), [2 / 3, 1.0])
    assert np.isfinite(metrics.novelty([[5]], counts)).all()


def test_diversity_equals_the_loop_over_pairs() -> None:
    rng = np.random.default_rng(1)
    vectors, lists = rng.normal(size=(12, 4)), rng.permuted(np.tile(np.arange(1, 13), (6, 1)), axis=1)[:, :5]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    slow = [np.mean([1 - unit[a - 1] @ unit[b - 1] for i, a in enumerate(row) for b in row[i + 1 :]]) for row in lists]
    np.testing.assert_allclose(metrics.intra_list_diversity(lists, vectors), slow, rtol=0, atol=1e-12)


def test_lists_without_items() -> None:
    none = np.zeros((2, 3), dtype=np.int64)
    assert metrics.coverage(none, 4) == 0.0
    assert (metrics.intra_list_diversity(none, np.eye(4)) == 0).all()
    assert (metrics.novelty(none, np.ones(4)) == 0).all()
    with pytest.raises(DataError, match=r"0\.\.4"):
        metrics.coverage([[5]], 4)


def test_gini() -> None:
    assert metrics.gini([3, 3, 3]) == 0.0
    assert metrics.gini([0, 0, 0, 8]) == 0.75
    assert metrics.gini([0, 0]) == 0.0


def test_mean_popularity_head_and_serendipity_by_hand() -> None:
    lists = np.array([[1, 2, 3], [5, 4, 0]])
    counts = np.array([8, 4, 2, 2, 0])
    np.testing.assert_allclose(metrics.mean_popularity(lists, counts), [14 / 3, 1.0], rtol=0, atol=1e-12)
    # The head is a fifth of five items: item 1. With two fifths, items 1 and 2.
    np.testing.assert_allclose(metrics.head_share(lists, counts), [1 / 3, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(metrics.head_share(lists, counts, 0.4), [2 / 3, 0], rtol=0, atol=1e-12)
    # Lists of three popular items are 1, 2, 3, so only the second target is unexpected.
    np.testing.assert_allclose(metrics.serendipity(lists, [2, 4], counts), [0, 1 / 3], rtol=0, atol=1e-12)
    np.testing.assert_allclose(metrics.serendipity(lists, [2, 3], counts), [0, 0], rtol=0, atol=1e-12)


def test_miscalibration_equals_scipys_divergence() -> None:
    rng = np.random.default_rng(4)
    attributes = (rng.random((30, 6)) < 0.4).astype(float)
    attributes[:, 0] = 1.0
    lists, history = rng.integers(1, 31, (20, 5)), rng.random((20, 6))
    shares = attributes / attributes.sum(1, keepdims=True)
    p = history / history.sum(1, keepdims=True)
    q = 0.99 * shares[lists - 1].mean(1) + 0.01 * p
    ours = metrics.miscalibration(lists, history, attributes)
    np.testing.assert_allclose(ours, stats.entropy(p, q, axis=1), rtol=0, atol=1e-12)
    # A list with the history's own categories is calibrated; a history without categories says nothing.
    np.testing.assert_allclose(metrics.miscalibration([[1, 2]], [[1, 1]], np.eye(2)), 0.0, atol=1e-12)
    assert metrics.miscalibration([[1, 2]], [[0, 0]], np.eye(2)) == 0.0
    # By hand: p = (1, 0) and q = (0, 1), so KL = ln(1 / 0.01).
    np.testing.assert_allclose(metrics.miscalibration([[2]], [[1, 0]], np.eye(2)), np.log(100), rtol=0, atol=1e-12)


def test_propensity_weights_equal_a_weighted_mean() -> None:
    rng = np.random.default_rng(6)
    counts, targets, values = rng.integers(0, 50, 20), rng.integers(1, 21, 200), rng.random(200)
    ours = (values * metrics.propensity_weights(targets, counts, 0.5)).mean()
    theirs = np.average(values, weights=1 / np.sqrt(np.maximum(counts, 1))[targets - 1])
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert (metrics.propensity_weights(targets, counts, 0.0) == 1.0).all()
    # Three cases of a popular item are right and the one of a rare item is wrong: 3/4 plain, 3/(3 + 100) debiased.
    weights = metrics.propensity_weights([1, 1, 1, 2], [100, 1], 1.0)
    assert (np.array([1, 1, 1, 0]) * weights).mean() == pytest.approx(0.03 / 1.03, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 7, 40])
def test_auc_of_the_best_others_equals_scikit_learn(k: int, tie_free: tuple[np.ndarray, np.ndarray]) -> None:
    scores, target = tie_free
    ours = parse_metric(f"auc@{k}")(*standing(scores, target), scores.shape[1])
    for row, own, value in zip(scores, target, ours, strict=True):
        others = np.sort(np.delete(row, own))[::-1][:k]
        truth, given = [1, *[0] * len(others)], [row[own], *others]
        assert value == pytest.approx(roc_auc_score(truth, given), abs=1e-12)


def test_probabilities_equal_scikit_learn_and_a_case_by_hand() -> None:
    rng = np.random.default_rng(8)
    given = rng.random(500)
    outcomes = (rng.random(500) < given).astype(int)
    assert metrics.brier_score(given, outcomes) == pytest.approx(brier_score_loss(outcomes, given), abs=1e-12)
    share, mean = calibration_curve(outcomes, given, n_bins=10, strategy="quantile")
    assert metrics.calibration_error(given, outcomes) == pytest.approx(np.abs(share - mean).mean(), abs=1e-12)
    # Two bins: .1 and .3 with one outcome, .6 and .8 with one: |.4 - 1| / 4 + |1.4 - 1| / 4.
    assert metrics.calibration_error([0.8, 0.1, 0.6, 0.3], [1, 0, 0, 1], 2) == pytest.approx(0.25, abs=1e-12)
    assert metrics.calibration_error([1.0, 0.0], [1, 0]) == 0.0


def test_a_floor_of_propensities_equals_counts_of_that_many_events() -> None:
    counts, targets = np.array([0, 2, 5, 40]), [1, 2, 3, 4, 4]
    floored = metrics.propensity_weights(targets, counts, 0.7, floor=5)
    np.testing.assert_allclose(floored, metrics.propensity_weights(targets, [5, 5, 5, 40], 0.7), atol=1e-12)
    assert floored[0] < metrics.propensity_weights(targets, counts, 0.7)[0]
