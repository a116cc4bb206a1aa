"""Several comparisons as one family of tests, and each in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ensue.evaluation.contrast import Contrast
from ensue.evaluation.significance import Interval, TestName, benjamini_hochberg, holm

LEVEL = 0.05
LOWER_IS_BETTER = ("rank", "miscalibration")
# Properties of lists that are neither good nor bad by themselves.
WITHOUT_DIRECTION = ("popularity", "head", "bias")
# Pair of names -> name of the metric -> comparison.
Contrasts = Mapping[tuple[str, str], Mapping[str, Contrast]]


@dataclass(frozen=True, slots=True)
class Adjusted:
    """The p-values of one comparison of a metric, adjusted for all comparisons of all metrics.

    Attributes:
        holm: by Holm's method: the probability of any false finding stays below the level.
        bh: by Benjamini and Hochberg's method: the expected share of false findings stays below the level.
    """

    holm: float
    bh: float


def adjust(contrasts: Contrasts, test: TestName) -> dict[tuple[str, str], dict[str, Adjusted]]:
    """Adjust the p-values of a test for the number of comparisons and metrics."""
    places = [(pair, name) for pair, metrics in contrasts.items() for name in metrics]
    p = [contrasts[pair][name].p[test] for pair, name in places]
    adjusted: dict[tuple[str, str], dict[str, Adjusted]] = {pair: {} for pair in contrasts}
    for (pair, name), family, discovery in zip(places, holm(p), benjamini_hochberg(p), strict=True):
        adjusted[pair][name] = Adjusted(float(family), float(discovery))
    return adjusted


def main_metric(names: list[str]) -> str:
    """The metric that decides: NDCG@10, or the first one."""
    return next((name for name in names if name.partition("|")[0] == "ndcg@10"), names[0])


def is_lower_better(metric: str) -> bool:
    """Whether lower values of a metric are better, as those of `rank`."""
    return _base(metric) in LOWER_IS_BETTER


def _base(metric: str) -> str:
    """The name without cut-off and marks of the protocol."""
    return metric.partition("|")[0].partition("@")[0]


def sentence(a: str, b: str, metrics: Mapping[str, Contrast], adjusted: Mapping[str, Adjusted], test: str) -> str:
    """The result of a comparison in one sentence, by the main metric.

    Args:
        a: name of the first model.
        b: name of the second.
        metrics: name of the metric -> comparison.
        adjusted: name of the metric -> adjusted p-values.
        test: the test whose p-values these are.
    """
    name = main_metric(list(metrics))
    own, p = metrics[name], adjusted[name].holm
    if all(each.effect == Interval(0.0, 0.0, 0.0, each.effect.confidence) for each in metrics.values()):
        return f"{a} and {b} have the same value of every metric for each of the {own.num_users:,} users."
    share = "" if own.relative is None else f" ({100 * own.relative.estimate:+.1f} %)"
    effect = f"{own.effect.estimate:+.4f} [{own.effect.low:+.4f}, {own.effect.high:+.4f}]{share}"
    if p >= LEVEL:
        return (
            f"{a} and {b} do not differ significantly in {name}: {own.mean_a:.4f} and {own.mean_b:.4f}, difference "
            f"{effect}, p = {p:.2g} ({test}, Holm); a true difference of {own.detectable:.4f} would be found in 80 % "
            "of such comparisons."
        )
    is_better = (own.effect.estimate < 0) == is_lower_better(name)
    opposite = [
        other
        for other, each in metrics.items()
        if _base(other) not in WITHOUT_DIRECTION
        and adjusted[other].holm < LEVEL
        and ((each.effect.estimate < 0) == is_lower_better(other)) != is_better
    ]
    but = f", but {'worse' if is_better else 'better'} in {', '.join(opposite)}" if opposite else ""
    return (
        f"{a} is {'better' if is_better else 'worse'} than {b} in {name}: {own.mean_a:.4f} against {own.mean_b:.4f}, "
        f"difference {effect}, p = {p:.2g} ({test}, Holm){but}."
    )
