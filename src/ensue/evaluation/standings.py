"""The standings of targets among their candidates: the result of an evaluation, before any metric.

Suffix: `B` cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ensue.evaluation.conventions import metric_of
from ensue.evaluation.protocol import EvaluateConfig


@dataclass(frozen=True)
class Standings:
    """The standing of each case's target.

    Attributes:
        users_B: user numbers (0-based).
        targets_B: item numbers of the targets.
        better_B: candidates scored strictly higher.
        equal_B: other candidates scored the same.
        candidates_B: candidates, including the target.
        repeated_B: whether the target also occurs in the history (a filter of seen items must keep it).
        others: further metrics by name: a value for each case, [B], or one for all, without dimensions.
        groups: the cases that are also reported on their own, bool [B] by name.
    """

    users_B: np.ndarray
    targets_B: np.ndarray
    better_B: np.ndarray
    equal_B: np.ndarray
    candidates_B: np.ndarray
    repeated_B: np.ndarray
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def rank_B(self) -> np.ndarray:
        """The expected rank, 1 + better + equal / 2."""
        rank: np.ndarray = 1.0 + self.better_B + self.equal_B / 2.0
        return rank

    def metric(self, name: str, convention: str = "ensue") -> np.ndarray:
        """The metric of each case, float64 [B], as a library defines it."""
        return metric_of(name, convention)(self.better_B, self.equal_B, self.candidates_B)

    def means(self, config: EvaluateConfig) -> dict[str, float]:
        """The mean over cases of each metric of the configuration, by `config.label(metric)`, and of the others."""
        ranked = {config.label(name): float(self.metric(name, config.convention).mean()) for name in config.metrics}
        return ranked | {name: float(values.mean()) for name, values in self.others.items()}

    def columns(self, config: EvaluateConfig) -> dict[str, np.ndarray]:
        """The value of each case, float64 [B], of each metric that has one, by name."""
        ranked = {config.label(name): self.metric(name, config.convention) for name in config.metrics}
        return ranked | {name: values for name, values in self.others.items() if values.ndim}

    def group_means(self, config: EvaluateConfig) -> dict[str, dict[str, Any]]:
        """The number of cases and of users of each group, and the mean of every metric that has a value for each case.

        Metrics with weights over all cases (`|ips`) are left out, as are those of an empty group.
        """
        columns = {name: values for name, values in self.columns(config).items() if not name.endswith("|ips")}
        result = {}
        for group, is_in_B in self.groups.items():
            means = {name: float(values[is_in_B].mean()) for name, values in columns.items()} if is_in_B.any() else {}
            users = len(np.unique(self.users_B[is_in_B]))
            result[group] = {"cases": int(is_in_B.sum()), "users": users, "metrics": means}
        return result
