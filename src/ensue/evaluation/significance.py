"""Significance of differences: paired tests on per-user values, intervals, and corrections for several tests.

Suffixes: `B` cases, `M` tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ensue.data.arrays import FloatArray, IntArray
from ensue.errors import ConfigError, DataError, nearest
from ensue.rng import stream

TestName: TypeAlias = Literal["t", "wilcoxon", "permutation"]
IntervalMethod: TypeAlias = Literal["percentile", "bca"]
DRAWS_AT_ONCE = 4_000_000  # numbers drawn per step, to bound memory for a million users
# Drawing how often a value occurs costs as much as drawing this many cases one by one (measured).
COST_OF_COUNT = 20
# From this number of cases on, more than GROUPS distinct values are drawn as groups of similar ones.
MANY, GROUPS = 20_000, 1_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.estimate:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two models on the same cases; `effect` is the mean of a - b.

    Attributes:
        mean_a: mean of the first model.
        mean_b: mean of the second model.
        effect: bootstrap interval of the mean difference.
        effect_size: the mean difference divided by the standard deviation of the differences (paired Cohen's d).
        p: two-sided p-value of `test`.
        test: the test's name.
        num_cases: number of pairs.
    """

    mean_a: float
    mean_b: float
    effect: Interval
    effect_size: float
    p: float
    test: TestName
    num_cases: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def _paired(a_B: ArrayLike, b_B: ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(a_B, dtype=np.float64), np.asarray(b_B, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise DataError(f"paired values must be two arrays [B] of the same length (got shapes {a.shape} and {b.shape})")
    if a.size < 2:
        raise DataError(f"a paired test needs 2 or more pairs (got {a.size})")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("paired values must be finite (got NaN or infinity)")
    return a, b


def by_user(values_B: ArrayLike, users_B: ArrayLike) -> FloatArray:
    """One value for each user, so that tests and intervals count users, whose cases are not independent.

    Each is the overall mean, plus the sum of the deviations of the user's cases from it times (users / cases). The mean
    over users therefore equals the mean over cases, and its spread is that of the ratio estimator for clusters
    (Cochran, Sampling Techniques, 1977, section 6.3).

    Args:
        values_B: a value for each case, such as a metric or a difference.
        users_B: the user of each case: numbers or texts.

    Returns:
        float64, one per user; the given values if every user has one case.
    """
    values = np.asarray(values_B, dtype=np.float64)
    _, number_B = np.unique(np.asarray(users_B), return_inverse=True)
    count = int(number_B.max(initial=-1)) + 1
    if count == values.size:
        return values
    mean = values.mean()
    sums = np.bincount(number_B, weights=values - mean, minlength=count)
    return np.asarray(mean + sums * (count / values.size))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must be between 0 and 1 (got {confidence})")


def paired_t(a_B: ArrayLike, b_B: ArrayLike) -> float:
    """Two-sided p-value of Student's paired t-test; 1 if all pairs are equal."""
    a, b = _paired(a_B, b_B)
    difference = a - b
    if np.ptp(difference) == 0:  # without spread t is 0 / 0 or infinite
        return 1.0 if difference[0] == 0 else 0.0
    return float(stats.ttest_rel(a, b).pvalue)


def wilcoxon(a_B: ArrayLike, b_B: ArrayLike) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; 1 if all pairs are equal.

    Pairs without a difference take part in the ranking, as in Pratt (JASA 1959). Dropping them would overstate
    differences, since most users score 0 with both models.
    """
    a, b = _paired(a_B, b_B)
    if (a == b).all():
        return 1.0
    return float(stats.wilcoxon(a, b, zero_method="pratt", correction=False, method="auto").pvalue)


def permutation_test(a_B: ArrayLike, b_B: ArrayLike, num_draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of the mean difference under random swaps within pairs (Fisher's randomisation test).

    p = (1 + draws at least as extreme) / (1 + draws), so it is never 0 (Phipson & Smyth, 2010).

    Args:
        a_B: values of the first model.
        b_B: values of the second model, for the same cases.
        num_draws: random assignments of signs to the differences.
        seed: seed of the draws.
    """
    a, b = _paired(a_B, b_B)
    if num_draws < 1:
        raise ConfigError(f"num_draws must be 1 or more (got {num_draws})")
    moved = (a - b)[a != b]  # a swap of equal values changes nothing
    close = 1e-9 * np.abs(moved).sum()  # sums that differ only by rounding are ties
    sums = _signed_sums(np.abs(moved), num_draws, seed)
    extreme = int((np.abs(sums) >= abs(moved.sum()) - close).sum())
    return (1 + extreme) / (1 + num_draws)


def _steps(seed: int, purpose: str, num_draws: int, size: int) -> Iterator[tuple[np.random.Generator, int]]:
    """Generators, each with a number of draws of `size` numbers that fit in memory."""
    step = max(1, DRAWS_AT_ONCE // max(size, 1))
    for first in range(0, num_draws, step):
        yield stream(seed, purpose, step=first), min(step, num_draws - first)


def _grouped(values: FloatArray) -> tuple[FloatArray, FloatArray, IntArray] | None:
    """Mean [K], variance [K] and size [K] of groups of equal values; None if drawing cases one by one costs less.

    Many values that are mostly distinct are grouped with their neighbours in order.
    """
    distinct, sizes = np.unique(values, return_counts=True)
    if distinct.size * COST_OF_COUNT <= values.size and distinct.size <= GROUPS:
        return distinct, np.zeros(distinct.size), sizes
    if values.size < MANY:
        return None
    edges = np.linspace(0, values.size, GROUPS + 1).astype(np.int64)[:-1]
    ordered, sizes = np.sort(values), np.diff(edges, append=values.size)
    mean = np.add.reduceat(ordered, edges) / sizes
    variance = np.add.reduceat(np.square(ordered - np.repeat(mean, sizes)), edges) / sizes
    return mean, variance, sizes


def _signed_sums(sizes: FloatArray, num_draws: int, seed: int) -> FloatArray:
    """Sums of values with random signs, [num_draws]; of groups, the number of positive signs is drawn."""
    groups, parts = _grouped(sizes), []
    for rng, draws in _steps(seed, "permutation_test", num_draws, sizes.size if groups is None else groups[0].size):
        if groups is None:
            signs = rng.integers(2, size=(draws, sizes.size), dtype=np.int8)
            parts.append(2.0 * (signs @ sizes) - sizes.sum())
            continue
        mean, variance, count = groups
        positive = rng.binomial(count, 0.5, size=(draws, count.size))
        within = np.sqrt((variance * count).sum()) * rng.standard_normal(draws)
        parts.append((2.0 * positive - count) @ mean + within)
    return np.concatenate(parts)


def bootstrap_interval(
    values_B: ArrayLike,
    confidence: float = 0.95,
    method: IntervalMethod = "bca",
    num_draws: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of a mean over cases (Efron & Tibshirani 1993; BCa: Efron, JASA 1987).

    Args:
        values_B: one value for each case, such as a metric or a difference of two metrics.
        confidence: the nominal coverage.
        method: "bca" corrects the percentiles for bias and skewness; "percentile" does not.
        num_draws: number of resamples.
        seed: seed of the draws.
    """
    values = np.asarray(values_B, dtype=np.float64)
    _check_confidence(confidence)
    if method not in ("percentile", "bca"):
        raise ConfigError(f"unknown interval method {method!r}: {nearest(method, ('percentile', 'bca'))}")
    if values.ndim != 1 or values.size < 2 or not np.isfinite(values).all():
        raise DataError(f"an interval needs an array [B] of 2 or more finite values (got shape {values.shape})")
    if num_draws < 1:
        raise ConfigError(f"num_draws must be 1 or more (got {num_draws})")
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean, confidence)
    means = _resampled_means(values, num_draws, seed)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "bca":
        tails = _bca_tails(values, means, tails)
    low, high = np.quantile(means, tails)
    return Interval(mean, float(low), float(high), confidence)


def _resampled_means(values: FloatArray, num_draws: int, seed: int) -> FloatArray:
    """Means of resamples of all values, with replacement, [num_draws].

    A mean depends only on how often each distinct value is drawn, which is multinomial. In a group of similar values
    the mean of the drawn ones is normal, with the group's mean and variance.
    """
    groups, size = _grouped(values), values.size
    parts = []
    for rng, draws in _steps(seed, "bootstrap_interval", num_draws, size if groups is None else groups[0].size):
        if groups is None:
            parts.append(values[rng.integers(size, size=(draws, size), dtype=np.int32)].mean(axis=1))
            continue
        mean, variance, sizes = groups
        drawn = rng.multinomial(size, sizes / size, size=draws)
        within = np.sqrt(drawn @ variance) * rng.standard_normal(draws)
        parts.append((drawn @ mean + within) / size)
    return np.concatenate(parts)


def _bca_tails(values: FloatArray, means: FloatArray, tails: FloatArray) -> FloatArray:
    """The percentiles to use instead of `tails`; for a mean, the jackknife has a closed form."""
    share_below = ((means < values.mean()).mean() + (means <= values.mean()).mean()) / 2
    edge = 0.5 / means.size
    bias = stats.norm.ppf(np.clip(share_below, edge, 1 - edge))
    centred = values - values.mean()
    acceleration = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)
    z = bias + stats.norm.ppf(tails)
    return np.asarray(stats.norm.cdf(bias + z / (1 - acceleration * z)))


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean and Student's t interval over independent runs, such as seeds.

    Raises:
        DataError: there are fewer than two values, or one is not finite.
    """
    runs = np.asarray(values, dtype=np.float64)
    _check_confidence(confidence)
    if runs.ndim != 1 or runs.size < 2 or not np.isfinite(runs).all():
        raise DataError(f"an interval over seeds needs 2 or more finite values (got {runs.tolist()})")
    half = stats.t.ppf((1 + confidence) / 2, runs.size - 1) * runs.std(ddof=1) / np.sqrt(runs.size)
    mean = float(runs.mean())
    return Interval(mean, float(mean - half), float(mean + half), confidence)


def _p_values(p_M: ArrayLike) -> FloatArray:
    p = np.asarray(p_M, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise DataError(f"p-values must be an array [M] of numbers from 0 to 1 (got {p.tolist()})")
    return p


def holm(p_M: ArrayLike) -> FloatArray:
    """Adjusted p-values that control the family-wise error rate (Holm 1979), in the given order, [M]."""
    p = _p_values(p_M)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * (p.size - np.arange(p.size))), 1.0)
    return adjusted


def benjamini_hochberg(p_M: ArrayLike) -> FloatArray:
    """Adjusted p-values that control the false discovery rate (Benjamini & Hochberg 1995), in the given order, [M]."""
    p = _p_values(p_M)
    order = np.argsort(p, kind="stable")[::-1]
    adjusted = np.empty_like(p)
    scaled = p[order] * p.size / np.arange(p.size, 0, -1)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return adjusted


def compare(
    a_B: ArrayLike, b_B: ArrayLike, test: TestName = "t", confidence: float = 0.95, seed: int = 0
) -> Comparison:
    """Compare two models case by case.

    Args:
        a_B: values of a metric for the first model.
        b_B: values for the second model, on the same cases in the same order.
        test: "t", "wilcoxon" or "permutation". For hundreds of users "t" and "permutation" agree.
        confidence: confidence of the interval of the mean difference.
        seed: seed of the bootstrap and the permutations.

    Raises:
        ConfigError: the test is unknown, or the confidence is out of range.
        DataError: the arrays differ in length, have fewer than two cases, or contain NaN or infinity.
    """
    a, b = _paired(a_B, b_B)
    tests: dict[str, Callable[[], float]] = {
        "t": lambda: paired_t(a, b),
        "wilcoxon": lambda: wilcoxon(a, b),
        "permutation": lambda: permutation_test(a, b, seed=seed),
    }
    if test not in tests:
        raise ConfigError(f"unknown test {test!r}: {nearest(test, tests)}")
    difference = a - b
    spread = float(difference.std(ddof=1))
    effect = bootstrap_interval(difference, confidence, seed=seed)
    size = effect.estimate / spread if spread > 0 else 0.0
    return Comparison(float(a.mean()), float(b.mean()), effect, size, tests[test](), test, int(a.size))
