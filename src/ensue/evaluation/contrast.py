"""The difference of two models on the same users, from one training of each or from several seeds.

With one training of each, the users are a sample: paired tests and a bootstrap interval over users. With several seeds,
the trainings are a sample too. The variance of the difference is then that over users plus that over seeds, with
Satterthwaite's degrees of freedom (Biometrics 1946), so the result holds for further seeds and further users. Tests
over users alone take differences between seeds for differences between models.

Suffixes: `S` seeds, `U` users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from ensue.data.arrays import FloatArray
from ensue.errors import DataError
from ensue.evaluation.significance import (
    Interval,
    TestName,
    bootstrap_interval,
    paired_t,
    permutation_test,
    wilcoxon,
)

CONFIDENCE, POWER = 0.95, 0.8
NUM_DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Contrast:
    """The comparison of a metric of two models; differences are a - b.

    Attributes:
        mean_a: mean of the first model over users and seeds.
        mean_b: mean of the second.
        effect: the mean difference with its interval.
        relative: the same, divided by the mean of the second; None if that is 0 and the models differ.
        effect_size: the mean difference divided by the standard deviation over users (paired Cohen's d).
        detectable: the difference that a comparison of this size finds in 80 % of all cases (t-test at .05).
        p: two-sided p-values: of `t` for further users and seeds, of `wilcoxon` and `permutation` for further users.
        num_users: number of users.
        num_seeds: number of seeds of each model.
    """

    mean_a: float
    mean_b: float
    effect: Interval
    relative: Interval | None
    effect_size: float
    detectable: float
    p: dict[TestName, float]
    num_users: int
    num_seeds: tuple[int, int]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _TwoLevels:
    """The mean difference over users and seeds, its standard error, and the degrees of freedom."""

    mean: float
    error: float
    freedom: float

    @property
    def half(self) -> float:
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom) * self.error)

    @property
    def interval(self) -> Interval:
        return Interval(self.mean, self.mean - self.half, self.mean + self.half, CONFIDENCE)

    @property
    def p(self) -> float:
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.freedom))


def contrast(
    a: Sequence[FloatArray],
    b: Sequence[FloatArray],
    same_seeds: bool = False,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Contrast:
    """Compare two models user by user.

    Args:
        a: for each seed of the first model the value of every user, [U].
        b: the same of the second, with the users in the same order.
        same_seeds: the two are the same settings with the same seeds, in one order, so that seeds are paired too.
        num_draws: resamples of the bootstrap, and draws of the permutation test.
        seed: seed of these draws.

    Raises:
        DataError: values are not finite, differ in number, or are of fewer than two users.
    """
    a_SU, b_SU = _stacked(a), _stacked(b)
    if a_SU.shape[1] != b_SU.shape[1] or a_SU.shape[1] < 2:
        shapes = f"{a_SU.shape[1]} and {b_SU.shape[1]}"
        raise DataError(f"a paired comparison needs the values of the same 2 or more users (got {shapes} users)")
    a_U, b_U = a_SU.mean(0), b_SU.mean(0)
    difference_U = a_U - b_U
    mean_a, mean_b = float(a_U.mean()), float(b_U.mean())
    levels = _two_levels(a_SU, b_SU, same_seeds)
    is_single = len(a_SU) == len(b_SU) == 1
    spread = float(difference_U.std(ddof=1))
    quantiles = stats.t.ppf((1 + CONFIDENCE) / 2, levels.freedom) + stats.t.ppf(POWER, levels.freedom)

    def effect(first_SU: FloatArray, second_SU: FloatArray) -> Interval:
        if not is_single:
            return _two_levels(first_SU, second_SU, same_seeds).interval
        return bootstrap_interval(first_SU[0] - second_SU[0], CONFIDENCE, num_draws=num_draws, seed=seed)

    relative = None
    if mean_b != 0:
        # The delta method: the ratio's deviation is linear in the users' values.
        ratio = mean_a / mean_b - 1
        around = effect(a_SU / mean_b, (1 + ratio) * b_SU / mean_b)
        relative = Interval(ratio, ratio + around.low, ratio + around.high, CONFIDENCE)
    elif not difference_U.any():
        relative = Interval(0.0, 0.0, 0.0, CONFIDENCE)
    p: dict[TestName, float] = {
        "t": paired_t(a_U, b_U) if is_single else levels.p,
        "wilcoxon": wilcoxon(a_U, b_U),
        "permutation": permutation_test(a_U, b_U, num_draws, seed),
    }
    return Contrast(
        mean_a,
        mean_b,
        effect(a_SU, b_SU),
        relative,
        levels.mean / spread if spread > 0 else 0.0,
        float(quantiles * levels.error),
        p,
        a_SU.shape[1],
        (len(a_SU), len(b_SU)),
    )


def _stacked(values: Sequence[FloatArray]) -> FloatArray:
    if len({each.shape for each in values}) != 1 or values[0].ndim != 1:
        raise DataError(f"the seeds of a model must have the same users (got {[each.shape for each in values]})")
    return np.stack([np.asarray(each, dtype=np.float64) for each in values])


def _two_levels(a_SU: FloatArray, b_SU: FloatArray, same_seeds: bool) -> _TwoLevels:
    """The variance over users plus the variances over the seeds of each model; a single seed adds none.

    Part of the differences between seeds is in both, which makes the error too large rather than too small.
    """
    difference_U = a_SU.mean(0) - b_SU.mean(0)
    users = len(difference_U)
    samples = [(difference_U.var(ddof=1) / users, users - 1)]
    for seeds_SU in [a_SU - b_SU] if same_seeds else [a_SU, b_SU]:
        count = len(seeds_SU)
        if count > 1:
            samples.append((seeds_SU.mean(1).var(ddof=1) / count, count - 1))
    variance = sum(each for each, _ in samples)
    shares = sum(each**2 / freedom for each, freedom in samples)
    freedom = variance**2 / shares if shares > 0 else float(users - 1)
    return _TwoLevels(float(difference_U.mean()), float(np.sqrt(variance)), float(freedom))
