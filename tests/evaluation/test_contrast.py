"""Comparisons over users and seeds, in simulated worlds whose truth is known; and gates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from ensue.errors import ConfigError, DataError
from ensue.evaluation import significance
from ensue.evaluation.conclusion import adjust, sentence
from ensue.evaluation.contrast import Contrast, contrast
from ensue.evaluation.gate import judge, parse_gate
from ensue.evaluation.significance import bootstrap_interval

USERS = 150
# Standard error of a rate near .05 in so many worlds; a test allows four of them.
WORLDS = 600
SLACK = 4 * np.sqrt(0.05 * 0.95 / WORLDS)


def world(rng: np.random.Generator, lift: float = 0.0, seeds: tuple[int, int] = (1, 1), drift: float = 0.0) -> Any:
    """Values of two models as NDCG@10 has them: many zeros, and users who are easy or hard for both.

    Args:
        lift: the true difference of the means.
        seeds: number of seeds of each.
        drift: standard deviation of the mean over seeds.
    """
    ease_U = rng.beta(0.5, 1.5, USERS)

    def model(mean: float, count: int) -> list[np.ndarray]:
        hit = rng.random((count, USERS)) < ease_U
        gain = np.where(hit, 1 / np.log2(1 + rng.integers(1, 11, (count, USERS))), 0.0)
        return [*(gain + mean + drift * rng.standard_normal((count, 1)))]

    return model(lift, seeds[0]), model(0.0, seeds[1])


def test_null_worlds_keep_the_nominal_rate() -> None:
    rng = np.random.default_rng(0)
    results = [contrast(*world(rng), num_draws=400, seed=number) for number in range(WORLDS)]
    for test in ("t", "wilcoxon", "permutation"):
        assert np.mean([each.p[test] < 0.05 for each in results]) == pytest.approx(0.05, abs=SLACK)
    missed = np.mean([not each.effect.low <= 0 <= each.effect.high for each in results])
    assert missed == pytest.approx(0.05, abs=SLACK + 0.01)


def test_a_planted_effect_is_found_at_the_stated_power() -> None:
    rng = np.random.default_rng(1)
    lift = float(np.mean([contrast(*world(rng), num_draws=10).detectable for _ in range(100)]))
    found = np.mean([contrast(*world(rng, lift), num_draws=10).p["t"] < 0.05 for _ in range(WORLDS)])
    assert found == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / WORLDS))


@pytest.mark.parametrize("seeds", [(2, 2), (3, 3), (5, 3)])
def test_differences_between_seeds_are_not_differences_between_models(seeds: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    worlds = [world(rng, seeds=seeds, drift=0.03) for _ in range(WORLDS)]
    results = [contrast(a, b, num_draws=10) for a, b in worlds]
    rate = np.mean([each.p["t"] < 0.05 for each in results])
    assert 0.01 < rate < 0.05 + SLACK
    assert np.mean([each.effect.low <= 0 <= each.effect.high for each in results]) == pytest.approx(1 - rate)
    assert np.mean([stats.ttest_rel(np.mean(a, 0), np.mean(b, 0)).pvalue < 0.05 for a, b in worlds]) > 0.2


def test_seeds_that_agree_do_not_hide_an_effect() -> None:
    rng = np.random.default_rng(3)
    lift = float(np.mean([contrast(*world(rng, seeds=(3, 3)), num_draws=10).detectable for _ in range(100)]))
    found = np.mean([contrast(*world(rng, lift, (3, 3)), num_draws=10).p["t"] < 0.05 for _ in range(200)])
    assert found > 0.8 - 4 * np.sqrt(0.8 * 0.2 / 200)


def test_one_seed_each_is_the_paired_t_test() -> None:
    (a,), (b,) = world(np.random.default_rng(4), 0.05)
    result = contrast([a], [b])
    assert result.p["t"] == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert result.p["permutation"] == pytest.approx(result.p["t"], abs=0.02)
    assert result.effect_size == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert result.num_users == USERS
    assert contrast([b], [a]).p["t"] == pytest.approx(result.p["t"])


def test_users_who_are_alike_leave_welchs_test_of_the_seeds() -> None:
    a, b = [0.31, 0.35, 0.36, 0.3], [0.29, 0.28, 0.31]
    levels = contrast(*([np.full(20, value) for value in values] for values in (a, b)))
    reference = stats.ttest_ind(a, b, equal_var=False)
    assert levels.p["t"] == pytest.approx(reference.pvalue)
    interval = reference.confidence_interval(0.95)
    assert (levels.effect.low, levels.effect.high) == pytest.approx((interval.low, interval.high))
    paired = contrast([np.full(20, value) for value in a], [np.full(20, value) for value in (*b, 0.27)], True)
    assert paired.p["t"] == pytest.approx(stats.ttest_rel(a, [*b, 0.27]).pvalue)


def test_the_relative_interval_agrees_with_scipys_bootstrap_of_the_ratio() -> None:
    rng = np.random.default_rng(5)
    worlds = [world(rng, 0.01) for _ in range(20)]
    a, b = (np.concatenate([pair[side][0] for pair in worlds]) for side in (0, 1))
    theirs = stats.bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis) / y.mean(axis) - 1,
        paired=True,
        vectorized=True,
        n_resamples=2_000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    ours = contrast([a], [b]).relative
    assert ours is not None
    assert ours.estimate == pytest.approx(a.mean() / b.mean() - 1)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)


@pytest.mark.parametrize("gate", ["ndcg@10 > -0.5%", "ndcg@10 within 0.1%", "ndcg@10 > -0.001", "ndcg@10 < 1%"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_identical_runs_pass(gate: str, seeds: int) -> None:
    a, _ = world(np.random.default_rng(6), seeds=(seeds, 1), drift=0.1)
    for values in (a, [0 * each for each in a]):
        same = contrast(values, [each.copy() for each in values], same_seeds=True)
        assert judge(parse_gate(gate), {"ndcg@10": same}).passed
        assert (same.effect.low, same.effect.high) == (0.0, 0.0)


def test_a_model_that_breaks_the_rule_seldom_passes() -> None:
    """At the margin itself a gate lets 2.5 % pass; equivalence is two such tests."""
    rng = np.random.default_rng(7)
    gates = [parse_gate("x > -0.02"), parse_gate("x within 0.02")]
    worse = [contrast(*world(rng, -0.02), num_draws=400) for _ in range(WORLDS)]
    for gate in gates:
        assert np.mean([gate.is_passed(each) for each in worse]) < 0.025 + 4 * np.sqrt(0.025 * 0.975 / WORLDS)
    better = [contrast(*world(rng, 0.15), num_draws=400) for _ in range(100)]
    assert [np.mean([gate.is_passed(each) for each in better]) for gate in gates] == [pytest.approx(1, abs=0.1), 0]


def test_gates_are_read_as_written() -> None:
    assert [str(parse_gate(text)) for text in ("NDCG@10>-0.5%", " hr@10 within 1 % ", "rank < 0", "mrr > +.5")[:3]] == [
        "ndcg@10 > -0.5%",
        "hr@10 within 1%",
        "rank < 0",
    ]
    sampled = contrast([np.array([0.0, 1.0, 1.0])], [np.array([0.0, 1.0, 0.0])])
    assert judge(parse_gate("hr@10 > -900%"), {"hr@10|uni100": sampled}).metric == "hr@10|uni100"
    with pytest.raises(ConfigError, match=r"mrr was not evaluated: choose one of hr@10\|uni100"):
        judge(parse_gate("mrr > 0"), {"hr@10|uni100": sampled})
    nothing = contrast([np.array([0.0, 1.0, 1.0])], [np.zeros(3)])
    assert judge(parse_gate("hr > -99%"), {"hr": nothing}).interval is None
    assert not judge(parse_gate("hr > -99%"), {"hr": nothing}).passed


@pytest.mark.parametrize("text", ["", "ndcg@10", "ndcg@10 > x", "ndcg@10 >= 1", "ndcg@10 within -1%", "> 1", "a > 1e3"])
def test_what_is_no_gate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="gate"):
        parse_gate(text)


def test_values_of_other_users_are_refused() -> None:
    with pytest.raises(DataError, match="3 and 4 users"):
        contrast([np.zeros(3)], [np.zeros(4)])
    with pytest.raises(DataError, match="the same users"):
        contrast([np.zeros(3), np.zeros(4)], [np.zeros(3)])
    with pytest.raises(DataError, match="2 or more"):
        contrast([np.zeros(1)], [np.zeros(1)])


@pytest.mark.parametrize("values", ["few distinct", "many distinct"])
def test_draws_by_groups_have_the_spread_of_draws_one_by_one(values: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    sample = rng.choice([0.0, 0.0, 0.5, 1.0], 3_000) if values == "few distinct" else rng.standard_t(3, 3_000)
    monkeypatch.setattr(significance, "MANY", 1_000)
    monkeypatch.setattr(significance, "GROUPS", 100)
    grouped = [significance._resampled_means(sample, 4_000, 0), significance._signed_sums(np.abs(sample), 4_000, 0)]
    monkeypatch.setattr(significance, "COST_OF_COUNT", 10_000)
    monkeypatch.setattr(significance, "MANY", 10_000)
    single = [significance._resampled_means(sample, 4_000, 0), significance._signed_sums(np.abs(sample), 4_000, 0)]
    for one, other in zip(grouped, single, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3
        assert one.std() == pytest.approx(other.std(), rel=0.06)


def test_the_interval_of_a_metric_covers_its_true_value() -> None:
    """NDCG@10 of targets whose ranks are uniform over 40 items has a known mean."""
    truth = float((1 / np.log2(1 + np.arange(1, 11))).sum() / 40)
    rng = np.random.default_rng(9)
    covered = 0
    for number in range(WORLDS):
        rank = rng.integers(1, 41, 300)
        interval = bootstrap_interval(np.where(rank <= 10, 1 / np.log2(1.0 + rank), 0.0), num_draws=500, seed=number)
        covered += interval.low <= truth <= interval.high
    assert covered / WORLDS == pytest.approx(0.95, abs=SLACK)


def told(metrics: dict[str, Contrast]) -> str:
    pair = ("a", "b")
    return sentence(*pair, metrics, adjust({pair: metrics}, "t")[pair], "t")


def test_the_sentence_says_which_is_better() -> None:
    (a,), (b,) = world(np.random.default_rng(10), 0.1)
    better = contrast([a], [b])
    assert told({"hr@1": contrast([b], [a]), "ndcg@10": better}).startswith("a is better than b in ndcg@10: ")
    assert told({"ndcg@10": better, "hr@1": contrast([b], [a])}).endswith("(t, Holm), but worse in hr@1.")
    assert told({"ndcg@10": contrast([b], [a])}).startswith("a is worse than b")
    assert told({"rank": better}).startswith("a is worse than b in rank")
    assert "have the same value of every metric for each of the 150 users" in told({"mrr": contrast([a], [a])})
    listed = {"ndcg@10": better, "popularity@10": contrast([b], [a]), "miscalibration@10": better}
    assert told(listed).endswith("but worse in miscalibration@10.")
    (c,), (d,) = world(np.random.default_rng(11))
    none = contrast([c], [d])
    assert f"do not differ significantly in mrr: {none.mean_a:.4f}" in told({"mrr": none})
    assert f"a true difference of {none.detectable:.4f} would be found in 80 %" in told({"mrr": none})
