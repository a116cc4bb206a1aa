"""Metrics of recommended lists by name, such as `coverage@10`, and rank metrics weighted by popularity.

Suffixes: `B` cases, `N` items, `K` places of a list, `G` categories, `P` events of histories or training, `R` training
rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import polars as pl

from ensue.data.arrays import FloatArray, gather_events
from ensue.data.split import Cases, Sequences
from ensue.errors import ConfigError, DataError, nearest
from ensue.evaluation import metrics
from ensue.registry import OWN, Registry


@dataclass(frozen=True, eq=False)
class Lists:
    """The lists of an evaluation, with all that a metric may read.

    Attributes:
        items_BK: int64, item numbers, best first; 0 is an empty place.
        cases: the cases, with history and target.
        train: the training part.
        popularity_N: training events of each item.
        column: the item column of `attributes_NG`.
        probabilities_BK: the predicted probability of each place, for the metrics `OF_PROBABILITIES`.
    """

    items_BK: np.ndarray
    cases: Cases
    train: Sequences
    popularity_N: np.ndarray
    column: str = "category"
    probabilities_BK: np.ndarray | None = None

    def top(self, k: int) -> Lists:
        """The first k places."""
        given = self.probabilities_BK
        return replace(self, items_BK=self.items_BK[:, :k], probabilities_BK=None if given is None else given[:, :k])

    @property
    def predictions(self) -> tuple[np.ndarray, np.ndarray]:
        """The probabilities of the filled places, and whether each has the target."""
        assert self.probabilities_BK is not None
        is_filled_BK, is_target_BK = self.items_BK > 0, self.items_BK == self.cases.target_items_B[:, None]
        return self.probabilities_BK[is_filled_BK], is_target_BK[is_filled_BK]

    @cached_property
    def exposure_N(self) -> np.ndarray:
        """int64 [N]: the number of lists' places that each item has."""
        return np.bincount(self.items_BK.ravel(), minlength=self.popularity_N.size + 1)[1:]

    @property
    def num_train_users(self) -> int:
        """The number of users with training events."""
        return np.unique(self.train.users_R).size

    @cached_property
    def users_N(self) -> np.ndarray:
        """int64 [N]: the number of users who have each item in training."""
        number = self.popularity_N.size
        user_P = np.repeat(self.train.users_R.astype(np.int64), self.train.lengths_R)
        pairs = np.unique(user_P * (number + 1) + self.train.items_P)
        return np.bincount(pairs % (number + 1), minlength=number + 1)[1:]

    @cached_property
    def attributes_NG(self) -> FloatArray:
        """The categories or the vector of each item; see `attributes`."""
        return attributes(self.cases.store.item_table, self.column)

    @cached_property
    def history_BG(self) -> FloatArray:
        """The sum over each history of its items' category distributions."""
        shares_NG = metrics.category_shares(self.attributes_NG)
        cases, width = self.cases, self.attributes_NG.shape[1]
        sums_BG = np.zeros((len(cases), width))
        # A few cases at a time, so that memory does not grow with their number.
        for first in range(0, len(cases), 4096):
            part = slice(first, first + 4096)
            start_B, stop_B = cases.start_B[part], cases.stop_B[part]
            row_P = np.repeat(np.arange(len(start_B)), stop_B - start_B)
            np.add.at(sums_BG[part], row_P, shares_NG[cases.store.items[gather_events(start_B, stop_B)] - 1])
        return sums_BG


# lists -> a value for each case, [B], or one for all, as an array without dimensions.
ListMetric: TypeAlias = Callable[[Lists], FloatArray]
LIST_METRICS: Registry[ListMetric] = Registry("list metric", hint=OWN)


@LIST_METRICS.register("coverage")
def coverage(lists: Lists) -> FloatArray:
    """The share of the catalogue in at least one list."""
    return np.asarray(metrics.coverage(lists.items_BK, lists.popularity_N.size))


@LIST_METRICS.register("gini")
def gini(lists: Lists) -> FloatArray:
    """The Gini coefficient of how often each item is in a list; 0 is equal exposure."""
    return np.asarray(metrics.gini(lists.exposure_N))


def _of_popularity(name: str, function: Callable[[np.ndarray, np.ndarray], FloatArray]) -> None:
    """Register a metric of lists and the training events of items."""
    LIST_METRICS.register(name)(lambda lists: function(lists.items_BK, lists.popularity_N))


_of_popularity("novelty", metrics.novelty)
_of_popularity("popularity", metrics.mean_popularity)
_of_popularity("head", metrics.head_share)
_of_popularity("bias", metrics.popularity_bias)
# Metrics of the probabilities of the places of all lists, which only some models predict.
OF_PROBABILITIES = ("brier", "ece")


@LIST_METRICS.register("brier")
def brier(lists: Lists) -> FloatArray:
    """Mean squared difference of the probability of each item and whether it is the target."""
    return np.asarray(metrics.brier_score(*lists.predictions))


@LIST_METRICS.register("ece")
def ece(lists: Lists) -> FloatArray:
    """Expected calibration error of the probabilities."""
    return np.asarray(metrics.calibration_error(*lists.predictions))


@LIST_METRICS.register("diversity")
def diversity(lists: Lists) -> FloatArray:
    """Mean of 1 - cosine over the pairs of a list."""
    return metrics.intra_list_diversity(lists.items_BK, lists.attributes_NG)


@LIST_METRICS.register("serendipity")
def serendipity(lists: Lists) -> FloatArray:
    """Targets in the list that a list of the most popular items does not have, over the length."""
    return metrics.serendipity(lists.items_BK, lists.cases.target_items_B, lists.popularity_N)


@LIST_METRICS.register("miscalibration")
def miscalibration(lists: Lists) -> FloatArray:
    """KL divergence of the list's categories from those of the history; 0 is calibrated."""
    return metrics.miscalibration(lists.items_BK, lists.history_BG, lists.attributes_NG)


def parse_list_metric(text: str) -> tuple[str, int]:
    """The name and the length of the lists of a metric such as `coverage@10`.

    Raises:
        ConfigError: the metric is unknown, or the length is missing or not a whole number of 1 or more.
    """
    name, _, length = text.strip().lower().partition("@")
    LIST_METRICS.check(name)
    if re.fullmatch(r"[1-9][0-9]{0,3}", length) is None:
        raise ConfigError(f"list metric {text!r}: write the length of the lists, 1 to 9999, such as {name}@10")
    return name, int(length)


def attributes(items: pl.DataFrame, column: str) -> FloatArray:
    """The categories of items as indicators, or their vectors: float64 [N, G].

    Args:
        items: the item table.
        column: categories as text, several separated by `|`, or as lists of texts; other values are one category each;
            lists of numbers with a decimal type are vectors.

    Raises:
        DataError: there is no such column, or its vectors differ in width.
    """
    if column not in items.columns:
        raise DataError(
            f"the items have no column {column!r}: {nearest(column, items.columns)}; ensue prepare --items FILE reads "
            "columns of items, and list_attribute names one"
        )
    values = items[column]
    inner = values.dtype.inner if isinstance(values.dtype, pl.List | pl.Array) else None
    if inner is not None and inner.is_float():
        widths = values.list.len().drop_nulls().unique().to_list() if isinstance(values.dtype, pl.List) else [0]
        if len(widths) != 1:
            raise DataError(f"the vectors of item column {column!r} must all have the same width (got {widths[:5]})")
        width = next(len(row) for row in values.to_list() if row is not None)
        return np.array([row if row is not None else [0.0] * width for row in values.to_list()], dtype=np.float64)
    texts = values if inner is not None else values.cast(pl.String).str.split("|")
    frame = pl.DataFrame({"row": np.arange(len(items)), "value": texts}).explode("value").drop_nulls("value")
    _, code = np.unique(frame["value"].cast(pl.String).to_numpy(), return_inverse=True)
    result = np.zeros((len(items), int(code.max(initial=-1)) + 1))
    result[frame["row"].to_numpy(), code] = 1.0
    return result
