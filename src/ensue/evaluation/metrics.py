"""Metrics of rankings and of recommended lists, in numpy.

A ranking metric takes two counts for the target of each case: `better_B`, the candidates with a strictly higher score,
and `equal_B`, the *other* candidates with the same score. Its value is the expectation over the `equal + 1` equally
likely ranks `better + 1 .. better + equal + 1`, so a constant scorer gets exactly the value of a random order, and the
order of the candidates does not matter. NaN and infinite scores are refused where the counts are made.

Suffixes: `B` cases or lists, `N` items, `K` places of a list, `D` width of a vector, `G` categories, `P` predictions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensue.data.arrays import FloatArray, IntArray
from ensue.errors import ConfigError, DataError
from ensue.registry import OWN, Registry

# (better_B, equal_B, num_candidates_B, k) -> values_B; k is None for a metric without a cut-off.
MetricFunction: TypeAlias = Callable[[ArrayLike, ArrayLike, ArrayLike, int | None], FloatArray]
METRICS: Registry[MetricFunction] = Registry("metric", hint=OWN)
WITHOUT_CUTOFF = frozenset({"rank"})


def _counts(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike) -> tuple[IntArray, IntArray, IntArray]:
    """Check the three counts and convert them to int64 arrays of one shape."""
    better, equal, number = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.int64) for value in (better_B, equal_B, num_candidates))
    )
    wrong = (better < 0) | (equal < 0) | (better + equal >= number)
    if wrong.any():
        b = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"case {b}: better {better.flat[b]}, equal {equal.flat[b]} of {number.flat[b]} candidates: "
            "counts must be 0 or more, and their sum less than the number of candidates"
        )
    return better, equal, number


def expected_gain(
    better_B: ArrayLike,
    equal_B: ArrayLike,
    num_candidates: ArrayLike,
    k: int | None,
    gain: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    """The mean of `gain(rank)` over the target's possible ranks, [B]; the gain beyond rank k is 0."""
    better, equal, _ = _counts(better_B, equal_B, num_candidates)
    last = int((better + equal).max(initial=0)) + 1
    depth = last if k is None else min(k, last)
    below = np.concatenate([[0.0], np.cumsum(gain(np.arange(1, depth + 1, dtype=np.float64)))])
    first, after = np.minimum(better, depth), np.minimum(better + equal + 1, depth)
    return np.asarray((below[after] - below[first]) / (equal + 1))


@METRICS.register("hr")
def hit_rate(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None = 10) -> FloatArray:
    """HR@k, [B]: the probability that the target is among the first k."""
    better, equal, _ = _counts(better_B, equal_B, num_candidates)
    hits = equal + 1 if k is None else np.clip(k - better, 0, equal + 1)
    return np.asarray(hits / (equal + 1))


@METRICS.register("ndcg")
def ndcg(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None = 10) -> FloatArray:
    """NDCG@k, [B]: 1 / log2(rank + 1) within the first k, else 0.

    The ideal gain of one positive is 1 (Järvelin & Kekäläinen, TOIS 2002).
    """
    return expected_gain(better_B, equal_B, num_candidates, k, lambda ranks: 1.0 / np.log2(ranks + 1.0))


@METRICS.register("mrr")
def mrr(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None = 10) -> FloatArray:
    """MRR@k, [B]: 1 / rank within the first k, else 0."""
    return expected_gain(better_B, equal_B, num_candidates, k, lambda ranks: 1.0 / ranks)


@METRICS.register("map")
def average_precision(
    better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None = 10
) -> FloatArray:
    """AP@k, [B]: the precision at the rank of the one positive, so equal to MRR@k."""
    return mrr(better_B, equal_B, num_candidates, k)


@METRICS.register("recall")
def recall(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None = 10) -> FloatArray:
    """Recall@k, [B]: the share of the positives among the first k; for one positive, equal to HR@k."""
    return hit_rate(better_B, equal_B, num_candidates, k)


@METRICS.register("precision")
def precision(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None = 10) -> FloatArray:
    """Precision@k, [B]: the share of positives among the first k, so HR@k / k.

    The divisor is k even if there are fewer candidates, as in trec_eval.
    """
    hits = hit_rate(better_B, equal_B, num_candidates, k)
    return np.asarray(hits / (np.asarray(num_candidates) if k is None else k))


@METRICS.register("auc")
def auc(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None = None) -> FloatArray:
    """AUC, [B]: the share of the other candidates that are below the target.

    With `k`, the share of the k best other candidates (partial AUC, Hiranandani et al., ICML 2020). A target that is
    the only candidate gets 0.5.
    """
    better, equal, number = _counts(better_B, equal_B, num_candidates)
    others = number - 1 if k is None else np.minimum(number - 1, k)
    # With `place` ties before it, the target is below min(better + place, others) of the other candidates.
    few = np.clip(others - better, 0, equal + 1)
    above = (few * better + few * (few - 1) / 2 + (equal + 1 - few) * others) / (equal + 1)
    return np.asarray(np.where(number > 1, 1.0 - above / np.maximum(others, 1), 0.5))


@METRICS.register("rank")
def rank(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None = None) -> FloatArray:
    """The expected rank of the target, [B]: 1 + better + equal / 2; 1 is best. `k` is not used."""
    better, equal, _ = _counts(better_B, equal_B, num_candidates)
    return np.asarray(1.0 + better + equal / 2)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its cut-off; call it with counts to get the values."""

    name: str
    k: int | None
    function: MetricFunction

    def __call__(self, better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike) -> FloatArray:
        """The metric of each case, [B]. `num_candidates` includes the target: one number, or [B]."""
        return self.function(better_B, equal_B, num_candidates, self.k)

    def __str__(self) -> str:
        """The name in reports, such as `NDCG@10`."""
        return self.name.upper() if self.k is None else f"{self.name.upper()}@{self.k}"


def parse_metric(text: str) -> Metric:
    """Read a metric's name, in any case: `ndcg@10`, `HR@5`, `MRR` (no cut-off), `auc`.

    Raises:
        ConfigError: the metric is unknown, or its cut-off is not a whole number of 1 or more.
    """
    name, k = split_cutoff(text)
    if k is not None and name in WITHOUT_CUTOFF:
        raise ConfigError(f"metric {text!r}: {name} has no cut-off; write {name!r}")
    return Metric(name, k, METRICS[name])


def split_cutoff(text: str) -> tuple[str, int | None]:
    """The name and the cut-off of a metric; None without one.

    Raises:
        ConfigError: as `parse_metric`.
    """
    name, at, cutoff = text.strip().lower().partition("@")
    METRICS.check(name)
    if at and re.fullmatch(r"[1-9][0-9]{0,8}", cutoff) is None:
        raise ConfigError(f"metric {text!r}: the cut-off must be a whole number of 1 or more (got {cutoff!r})")
    return name, int(cutoff) if at else None


# ---- recommended lists: item numbers 1..N, best first; 0 is an empty place ----


def _lists(lists_BK: ArrayLike, num_items: int) -> IntArray:
    lists = np.asarray(lists_BK, dtype=np.int64)
    if lists.ndim != 2 or (lists.size and (lists.min() < 0 or lists.max() > num_items)):
        raise DataError(f"lists must be [B, K] item numbers 0..{num_items} (got shape {lists.shape})")
    return lists


def mean_of_items(lists_BK: ArrayLike, values_N: ArrayLike) -> FloatArray:
    """The mean over each list of a number that every item has, [B]; 0 for an empty list.

    Args:
        lists_BK: item numbers.
        values_N: the numbers of items 1..N.
    """
    values = np.concatenate([[0.0], np.asarray(values_N, dtype=np.float64)])
    lists = _lists(lists_BK, values.size - 1)
    return np.asarray(values[lists].sum(axis=1) / np.maximum((lists > 0).sum(axis=1), 1))


def coverage(lists_BK: ArrayLike, num_items: int) -> float:
    """The share of the catalogue that appears in at least one list."""
    lists = _lists(lists_BK, num_items)
    return float(np.unique(lists[lists > 0]).size / num_items)


def gini(counts_N: ArrayLike) -> float:
    """The Gini coefficient of counts: 0 if all are equal, near 1 if one item has all of them."""
    counts = np.sort(np.asarray(counts_N, dtype=np.float64))
    total = counts.sum()
    if total <= 0:
        return 0.0
    places = np.arange(1, counts.size + 1)
    return float(((2 * places - counts.size - 1) * counts).sum() / (counts.size * total))


def novelty(lists_BK: ArrayLike, popularity_N: ArrayLike) -> FloatArray:
    """The mean self-information of each list, [B], in bits: -log2 of each item's share of the training events.

    Source: Zhou et al., PNAS 2010. An item without events counts as if it had one.

    Args:
        lists_BK: item numbers.
        popularity_N: training events of items 1..N.
    """
    counts = np.asarray(popularity_N, dtype=np.float64)
    return mean_of_items(lists_BK, -np.log2(np.maximum(counts, 1.0) / max(counts.sum(), 1.0)))


def mean_popularity(lists_BK: ArrayLike, popularity_N: ArrayLike) -> FloatArray:
    """The mean number of training events of a list's items, [B] (Yin et al., VLDB 2012)."""
    return mean_of_items(lists_BK, popularity_N)


def head_items(popularity_N: ArrayLike, share: float = 0.2) -> NDArray[np.bool_]:
    """Whether each item is in the short head: the `share` of the items with the most training events, [N].

    Of items with the same number of events, those with the smaller numbers come first.
    """
    counts = np.asarray(popularity_N, dtype=np.float64)
    head = np.zeros(counts.size, dtype=np.bool_)
    head[np.argsort(-counts, kind="stable")[: int(np.ceil(share * counts.size))]] = True
    return head


def head_share(lists_BK: ArrayLike, popularity_N: ArrayLike, share: float = 0.2) -> FloatArray:
    """The share of a list's items that are in the short head, [B]; see `head_items`."""
    return mean_of_items(lists_BK, head_items(popularity_N, share))


def serendipity(lists_BK: ArrayLike, targets_B: ArrayLike, popularity_N: ArrayLike) -> FloatArray:
    """The number of relevant and unexpected items over the length of the list, [B] (Ge et al., RecSys 2010).

    The one relevant item is the target. Expected items are those that a list of the same length of the most popular
    items would have.
    """
    counts = np.asarray(popularity_N, dtype=np.float64)
    lists = _lists(lists_BK, counts.size)
    expected = np.argsort(-counts, kind="stable")[: lists.shape[1]] + 1
    target_B = np.asarray(targets_B, dtype=np.int64)
    hit_B = (lists == target_B[:, None]).any(axis=1) & ~np.isin(target_B, expected)
    return np.asarray(hit_B / max(1, lists.shape[1]))


def miscalibration(
    lists_BK: ArrayLike, history_BG: ArrayLike, attributes_NG: ArrayLike, alpha: float = 0.01
) -> FloatArray:
    """KL divergence in nats of the list's categories from those of the history, [B] (Steck, RecSys 2018); 0 is best.

    An item with several categories counts in equal parts for each. The list's distribution q is mixed with that of the
    history, p: (1 - alpha) q + alpha p, so that the divergence is finite.

    Args:
        lists_BK: item numbers.
        history_BG: sums of the histories' category distributions, not normalised. A row of zeros gives 0.
        attributes_NG: non-negative weights of the categories of items 1..N.
        alpha: share of p in the mixture.
    """
    weights_NG = category_shares(attributes_NG)
    lists = _lists(lists_BK, weights_NG.shape[0])
    padded = np.concatenate([np.zeros((1, weights_NG.shape[1])), weights_NG])
    listed_BG = np.zeros((lists.shape[0], weights_NG.shape[1]))
    for column in lists.T:  # one place at a time, as for diversity
        listed_BG += padded[column]
    p, q = _normalised(np.asarray(history_BG, dtype=np.float64)), _normalised(listed_BG)
    mixed = (1 - alpha) * q + alpha * p
    terms = np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0) / np.where(mixed > 0, mixed, 1.0)), 0.0)
    return np.asarray(np.maximum(terms.sum(axis=1), 0.0))


def category_shares(attributes_NG: ArrayLike) -> FloatArray:
    """The distribution over categories of each item, [N, G]; zeros for an item without one."""
    return _normalised(np.asarray(attributes_NG, dtype=np.float64))


def _normalised(rows: FloatArray) -> FloatArray:
    total = rows.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(rows, total, out=np.zeros_like(rows), where=total > 0))


def propensity_weights(targets_B: ArrayLike, popularity_N: ArrayLike, power: float, floor: float = 1.0) -> FloatArray:
    """Weights of cases whose mean is 1: the number of training events of the target to the power of `-power`, [B].

    The mean of a metric times these weights is its self-normalised inverse-propensity estimate, for propensities that
    are proportional to the popularity to this power (Yang et al., RecSys 2018). A target with fewer events than `floor`
    counts as if it had that many: capped weights, with less variance and some bias (Gilotte et al., WSDM 2018).
    """
    counts = np.asarray(popularity_N, dtype=np.float64)[np.asarray(targets_B, dtype=np.int64) - 1]
    weights = np.maximum(counts, max(floor, 1.0)) ** -power
    return np.asarray(weights / weights.mean()) if weights.size else weights


def popularity_bias(lists_BK: ArrayLike, popularity_N: ArrayLike) -> FloatArray:
    """The mean number of training events of a list's items, over the mean of the catalogue, [B]; 1 is no bias.

    This is the average recommendation popularity of Yin et al., VLDB 2012, as a ratio.
    """
    counts = np.asarray(popularity_N, dtype=np.float64)
    return mean_of_items(lists_BK, counts / max(counts.mean(), np.finfo(np.float64).tiny))


def intra_list_diversity(lists_BK: ArrayLike, vectors_ND: ArrayLike) -> FloatArray:
    """The mean of 1 - cosine over the pairs of each list, [B]; 0 for lists of fewer than two items.

    Source: Ziegler et al., WWW 2005. With `category_vectors` it is the share of pairs of different categories. An item
    with a zero vector has a cosine of 0 with every item.

    Args:
        lists_BK: item numbers.
        vectors_ND: the vectors of items 1..N.
    """
    vectors = np.asarray(vectors_ND, dtype=np.float64)
    lists = _lists(lists_BK, vectors.shape[0])
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
    unit = np.concatenate([np.zeros((1, unit.shape[1])), unit])
    total_BD = np.zeros((lists.shape[0], unit.shape[1]))
    own_B = np.zeros(lists.shape[0])
    for column in lists.T:  # one place at a time, so that memory is B x D, not B x K x D
        total_BD += unit[column]
        own_B += np.square(unit[column]).sum(axis=1)
    number = (lists > 0).sum(axis=1)
    pairs = number * (number - 1)
    similarity = (np.square(total_BD).sum(axis=1) - own_B) / np.maximum(pairs, 1)
    return np.asarray(np.where(pairs > 0, 1.0 - similarity, 0.0))


def category_vectors(categories: ArrayLike) -> NDArray[Any]:
    """The indicator vector of each item's category, [N, number of categories]."""
    _, codes = np.unique(np.asarray(categories), return_inverse=True)
    return np.asarray(np.eye(int(codes.max(initial=-1)) + 1)[codes])


# ---- predicted probabilities ----


def brier_score(probabilities_P: ArrayLike, outcomes_P: ArrayLike) -> float:
    """The mean squared difference of probabilities and outcomes, 0 or 1 (Brier, 1950); 0 is best."""
    return float(np.square(np.asarray(probabilities_P, dtype=np.float64) - np.asarray(outcomes_P)).mean())


def calibration_error(probabilities_P: ArrayLike, outcomes_P: ArrayLike, bins: int = 10) -> float:
    """The expected calibration error (Naeini et al., AAAI 2015): 0 is calibrated.

    Probabilities, in their order, are divided into bins of equal numbers, since those of items are mostly near 0; the
    error is the mean of the bins' differences between mean probability and share of outcomes, weighted by size. Equal
    probabilities can be in two bins.
    """
    given = np.asarray(probabilities_P, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    difference = given[order] - np.asarray(outcomes_P, dtype=np.float64)[order]
    return float(sum(abs(part.sum()) for part in np.array_split(difference, bins)) / max(1, given.size))
