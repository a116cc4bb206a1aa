"""The metrics of other libraries, computed from the same standings and lists as ours.

A convention says which metrics a library has, which of them have a cut-off, and how those differ that ensue defines
otherwise. Each was measured by running the library (docs/conventions.md). Where a library orders tied items by their
place in the catalogue, ours remain expectations over all orders, since standings do not contain that place.

Suffixes: `B` cases or lists, `N` items, `K` places of a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from ensue.data.arrays import FloatArray
from ensue.errors import ConfigError
from ensue.evaluation import metrics
from ensue.evaluation.list_metrics import LIST_METRICS, ListMetric, Lists
from ensue.evaluation.metrics import METRICS, WITHOUT_CUTOFF, Metric, MetricFunction, split_cutoff
from ensue.registry import Registry

ACCURACY = ("hr", "ndcg", "mrr", "map", "recall", "precision")


@dataclass(frozen=True, slots=True)
class Convention:
    """The metrics of a library.

    Attributes:
        release: the release that was run; "" for ensue.
        own: rank metrics that it defines differently.
        own_lists: metrics of lists that it defines differently.
        names: the rank metrics that it has; None for all.
        lists: the metrics of lists that it has; None for all.
        needs_cutoff: the metrics that it has only at a cut-off.
        without_cutoff: the metrics that have no cut-off.
    """

    release: str = ""
    own: Mapping[str, MetricFunction] = field(default_factory=dict)
    own_lists: Mapping[str, ListMetric] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    lists: tuple[str, ...] | None = None
    needs_cutoff: frozenset[str] = frozenset()
    without_cutoff: frozenset[str] = WITHOUT_CUTOFF


CONVENTIONS: Registry[Convention] = Registry("convention")


def metric_of(text: str, convention: str = "ensue") -> Metric:
    """Read the name of a rank metric, such as `ndcg@10`, as a library defines it.

    Raises:
        ConfigError: the metric or the convention is unknown, the library does not have the metric, or the cut-off is
            missing, not allowed or not a whole number of 1 or more.
    """
    own, (name, k) = CONVENTIONS[convention], split_cutoff(text)
    if own.names is not None and name not in own.names:
        METRICS.check(name)
        raise ConfigError(f"metric {text!r}: {convention} {own.release} has no {name}; it has {', '.join(own.names)}")
    if k is not None and name in own.without_cutoff:
        raise ConfigError(f"metric {text!r}: {name} has no cut-off; write {name!r}")
    if k is None and name in own.needs_cutoff:
        raise ConfigError(f"metric {text!r}: {name} of {convention} needs a cut-off, such as {name}@10")
    return Metric(name, k, own.own[name] if name in own.own else METRICS[name])


def list_metric_of(name: str, convention: str) -> ListMetric:
    """A metric of lists as a library defines it.

    Raises:
        ConfigError: the metric is unknown, or the library does not have it.
    """
    own = CONVENTIONS[convention]
    LIST_METRICS.check(name)
    if own.lists is not None and name not in own.lists:
        known = ", ".join(own.lists) or "none"
        raise ConfigError(f"list metric {name!r}: {convention} {own.release} has no {name} (it has {known})")
    return own.own_lists[name] if name in own.own_lists else LIST_METRICS[name]


# ---- rank metrics that differ ----


def _ndcg_of_all_places(
    better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None
) -> FloatArray:
    """RecTools: the ideal list is relevant at all k places, also for one target."""
    assert k is not None
    ideal = (1.0 / np.log2(np.arange(2, k + 2))).sum()
    return np.asarray(metrics.ndcg(better_B, equal_B, num_candidates, k) / ideal)


def _ndcg_clipped(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None) -> FloatArray:
    """LensKit: the gain is 1 / log2(rank), and 1 at rank 1 as at rank 2."""
    return metrics.expected_gain(
        better_B, equal_B, num_candidates, k, lambda ranks: 1.0 / np.log2(np.maximum(ranks, 2))
    )


def _precision_of_list(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None) -> FloatArray:
    """LensKit: a list that is shorter than k has its own length as the divisor."""
    number = np.asarray(num_candidates, dtype=np.float64)
    hits = metrics.hit_rate(better_B, equal_B, num_candidates, k)
    return np.asarray(hits / (number if k is None else np.minimum(number, k)))


def _auc_of_negatives(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None) -> FloatArray:
    """RecTools' PartialAUC@k: as ours, but of k other candidates also where there are fewer."""
    assert k is not None
    return metrics.expected_gain(better_B, equal_B, num_candidates, k, lambda ranks: (k + 1.0 - ranks) / k)


def _auc_of_list(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None) -> FloatArray:
    """RePlay's RocAuc@k: the share of the list's other items that are below the target; 0 if it is not in the list."""
    assert k is not None
    length = np.minimum(np.asarray(num_candidates), k)
    others = np.maximum(length - 1, 1)
    hits = metrics.hit_rate(better_B, equal_B, num_candidates, k)
    places = metrics.expected_gain(better_B, equal_B, num_candidates, k, lambda ranks: ranks - 1.0)
    return np.asarray(hits - places / others)


def _auc_strict(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None) -> FloatArray:
    """Cornac: a tie counts as an error."""
    better, equal = np.asarray(better_B, dtype=np.int64), np.asarray(equal_B, dtype=np.int64)
    return metrics.auc(better + equal, np.zeros_like(equal), num_candidates, None)


def _ap_of_last_tie(better_B: ArrayLike, equal_B: ArrayLike, num_candidates: ArrayLike, k: int | None) -> FloatArray:
    """Cornac: the target has the last of its tied ranks."""
    better, equal = np.asarray(better_B, dtype=np.int64), np.asarray(equal_B, dtype=np.int64)
    return metrics.average_precision(better + equal, np.zeros_like(equal), num_candidates, None)


# ---- metrics of lists that differ ----


def _coverage_with_padding(lists: Lists) -> FloatArray:
    """RecBole: the catalogue has one more item, padding, which no list shows."""
    number = lists.popularity_N.size
    return np.asarray(metrics.coverage(lists.items_BK, number) * number / (number + 1))


def _gini_with_padding(lists: Lists) -> FloatArray:
    """RecBole: padding is an item that no list shows."""
    return np.asarray(metrics.gini(np.append(lists.exposure_N, 0)))


def _covered_items(lists: Lists) -> FloatArray:
    """RecTools: the number of items that lists show, not their share."""
    return np.asarray(float((lists.exposure_N > 0).sum()))


def _coverage_of_training(lists: Lists) -> FloatArray:
    """RePlay: the share of the items with training events that lists show."""
    trained_N = lists.popularity_N > 0
    return np.asarray(float(((lists.exposure_N > 0) & trained_N).sum() / max(1, trained_N.sum())))


def _inverse_user_frequency(lists: Lists) -> FloatArray:
    """RecTools' MeanInvUserFreq: -log2 of the share of the training users who have the item; one user if nobody has."""
    bits_N = -np.log2(np.maximum(lists.users_N, 1.0) / max(1, lists.num_train_users))
    return metrics.mean_of_items(lists.items_BK, bits_N)


CONVENTIONS.register("ensue")(Convention())
CONVENTIONS.register("ir-measures")(
    Convention("0.4.3", names=ACCURACY, lists=(), needs_cutoff=frozenset({"hr", "recall", "precision"}))
)
CONVENTIONS.register("rectools")(
    Convention(
        "0.19.0",
        own={"ndcg": _ndcg_of_all_places, "auc": _auc_of_negatives},
        own_lists={"coverage": _covered_items, "novelty": _inverse_user_frequency},
        names=(*ACCURACY, "auc"),
        lists=("coverage", "novelty", "popularity"),
        needs_cutoff=frozenset({*ACCURACY, "auc"}),
        without_cutoff=frozenset(),
    )
)
CONVENTIONS.register("replay")(
    Convention(
        "0.22.0",
        own={"auc": _auc_of_list},
        own_lists={"coverage": _coverage_of_training},
        names=(*ACCURACY, "auc"),
        lists=("coverage",),
        needs_cutoff=frozenset({*ACCURACY, "auc"}),
        without_cutoff=frozenset(),
    )
)
CONVENTIONS.register("lenskit")(
    Convention(
        "2026.4.0",
        own={"ndcg": _ndcg_clipped, "precision": _precision_of_list},
        names=ACCURACY,
        lists=("gini",),
    )
)
CONVENTIONS.register("cornac")(
    Convention(
        "3.0.1",
        own={"auc": _auc_strict, "map": _ap_of_last_tie},
        names=(*ACCURACY, "auc"),
        lists=(),
        without_cutoff=frozenset({"mrr", "map", "auc"}),
    )
)
CONVENTIONS.register("recbole")(
    Convention(
        "1.2.1",
        own_lists={"coverage": _coverage_with_padding, "gini": _gini_with_padding},
        names=(*ACCURACY, "auc"),
        lists=("coverage", "gini", "popularity"),
        needs_cutoff=frozenset(ACCURACY),
        without_cutoff=frozenset({"auc"}),
    )
)
