from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ensue.errors import ConfigError, DataError
from ensue.evaluation import significance
from ensue.evaluation.significance import bootstrap_interval, compare, permutation_test, t_interval

# Student (Biometrika 1908), hours of sleep gained by ten patients under two drugs: t = 4.0621, p = 0.00283
SLEEP_A = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
SLEEP_B = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
# Darwin's maize (Fisher, The Design of Experiments, 1935): crossed minus self-fertilised, eighths of an inch;
# 1,726 of the 2^15 exchanges are at least as extreme: p = 0.0527
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def test_paired_t_of_students_sleep_data() -> None:
    assert significance.paired_t(SLEEP_A, SLEEP_B) == pytest.approx(0.00283, abs=5e-6)


def test_permutation_test_of_darwins_maize() -> None:
    signs = np.array(list(itertools.product((-1, 1), repeat=15)))
    exact = (np.abs(signs @ MAIZE) >= sum(MAIZE)).mean()
    assert round(exact * 2**15) == 1726
    assert permutation_test(MAIZE, np.zeros(15), num_draws=40_000) == pytest.approx(exact, abs=0.005)


def test_permutation_test_of_few_pairs_is_near_the_exact_value() -> None:
    # all 6 differences of one sign: 2 of the 64 exchanges are as extreme
    assert permutation_test([1, 2, 3, 4, 5, 6.0], np.zeros(6)) == pytest.approx(2 / 64, abs=0.005)


def test_permutation_test_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.15, 1, 80), rng.normal(0, 1, 80)
    theirs = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=9_999, rng=rng
    ).pvalue
    assert permutation_test(a, b) == pytest.approx(theirs, abs=0.03)


def test_permutation_test_is_the_same_for_every_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draws come in steps; more steps than one still give a p-value from all draws."""
    whole = permutation_test(SLEEP_A, SLEEP_B, num_draws=4_000)
    monkeypatch.setattr(significance, "DRAWS_AT_ONCE", 1_000)
    assert permutation_test(SLEEP_A, SLEEP_B, num_draws=4_000) == pytest.approx(whole, abs=0.004)


def test_wilcoxon_agrees_with_scipy_and_counts_equal_pairs() -> None:
    a, b = np.array(SLEEP_A), np.array(SLEEP_B)
    distinct = a != b
    assert significance.wilcoxon(a[distinct], b[distinct]) == pytest.approx(2 / 2**9)
    padded = np.concatenate([a, np.zeros(500)]), np.concatenate([b, np.zeros(500)])
    pratt = stats.wilcoxon(*padded, zero_method="pratt").pvalue
    assert significance.wilcoxon(*padded) == pytest.approx(pratt)


def test_equal_models_are_not_different() -> None:
    same = np.random.default_rng(2).random(50)
    assert permutation_test(same, same) == 1.0
    for test in ("t", "wilcoxon", "permutation"):
        result = compare(same, same, test=test)
        assert (result.p, result.effect.low, result.effect.high, result.effect_size) == (1.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_agrees_with_scipy(method: str) -> None:
    values = np.random.default_rng(1).exponential(size=120)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=9_999,
        method="BCa" if method == "bca" else method,
        rng=np.random.default_rng(0),
    ).confidence_interval
    ours = bootstrap_interval(values, method=method, num_draws=9_999)
    assert ours.estimate == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_bca_follows_the_skew_and_percentile_does_not() -> None:
    values = np.random.default_rng(1).exponential(size=60)
    bca, plain = bootstrap_interval(values, method="bca"), bootstrap_interval(values, method="percentile")
    assert bca.high - bca.estimate > plain.high - plain.estimate


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for trial in range(300):
        interval = bootstrap_interval(rng.random(60) ** 2, confidence=0.9, num_draws=400, seed=trial)
        covered += interval.low <= 1 / 3 <= interval.high
    assert 0.83 < covered / 300 < 0.96


def test_t_interval_by_hand() -> None:
    # mean 3, s = sqrt(2.5), t(0.975, 4) = 2.776445
    interval = t_interval([1, 2, 3, 4, 5])
    half = 2.776445 * np.sqrt(2.5 / 5)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((3, 3 - half, 3 + half), abs=1e-5)
    assert str(interval) == "3.0000 [1.0368, 4.9632]"
    with pytest.raises(DataError, match="2 or more"):
        t_interval([0.5])


# The fifteen p-values of the example in Benjamini & Hochberg (1995), section 3.2: at level 0.05 Holm's
# procedure rejects three hypotheses and theirs rejects four.
PUBLISHED = [
    *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344),
    *(0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
]


def test_corrections_on_the_published_example() -> None:
    assert (significance.holm(PUBLISHED) <= 0.05).sum() == 3
    assert (significance.benjamini_hochberg(PUBLISHED) <= 0.05).sum() == 4
    np.testing.assert_allclose(significance.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_corrections(p: list[float]) -> None:
    false_discovery = significance.benjamini_hochberg(p)
    np.testing.assert_allclose(false_discovery, stats.false_discovery_control(p))
    family = significance.holm(p)
    assert (family >= false_discovery - 1e-12).all()
    assert (np.array(p) <= false_discovery + 1e-12).all()
    np.testing.assert_array_equal(significance.holm(p[::-1])[::-1], family)


def test_compare() -> None:
    rng = np.random.default_rng(7)
    b = rng.random(400)
    a = b + rng.normal(0.02, 0.1, 400)
    result = compare(a, b)
    assert result.effect.estimate == pytest.approx(result.mean_a - result.mean_b)
    assert result.effect.low < result.effect.estimate < result.effect.high
    assert (result.p < 0.05) == (result.effect.low > 0)
    assert result.effect_size == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert json.loads(json.dumps(result.as_dict()))["effect"]["confidence"] == 0.95
    back = compare(b, a)
    assert back.p == pytest.approx(result.p)
    assert back.effect.estimate == pytest.approx(-result.effect.estimate)
    assert compare(a, b, seed=3) == compare(a, b, seed=3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: compare([1, 2, 3], [1, 2]), DataError, "the same length"),
        (lambda: compare([1], [2]), DataError, "2 or more"),
        (lambda: compare([1, np.nan], [1, 2]), DataError, "finite"),
        (lambda: compare([1, 2], [3, 5], test="wilcoxn"), ConfigError, "did you mean 'wilcoxon'"),
        (lambda: compare([1, 2], [3, 5], confidence=95), ConfigError, "got 95"),
        (lambda: bootstrap_interval([1, 2], method="bcs"), ConfigError, "did you mean 'bca'"),
        (lambda: permutation_test([1, 2], [3, 5], num_draws=0), ConfigError, "num_draws"),
        (lambda: significance.holm([0.5, 1.5]), DataError, "from 0 to 1"),
    ],
)
def test_what_is_wrong_is_named(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
