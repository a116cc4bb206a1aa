"""Two runs as one: the first retrieves candidates, the second re-ranks them.

Suffix: `B` cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ensue.data.features import Feature
from ensue.data.split import Cases
from ensue.errors import ConfigError, DataError
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.significance import by_user, compare
from ensue.evaluation.standings import Standings
from ensue.evaluation.two_stages import evaluate_stages
from ensue.models import ModelConfig
from ensue.retrieval.retriever import Retriever
from ensue.retrieval.scores import CountProgress
from ensue.retrieval.two_stage import TwoStage
from ensue.runs.run import Run


@dataclass(frozen=True, eq=False)
class Reranking:
    """A run whose candidates another run re-ranks.

    Attributes:
        first: retrieves.
        second: re-ranks.
        candidates: number of candidates.
        weight: share of the second in the order, above 0 and at most 1 (see `TwoStage`).

    Raises:
        ConfigError: the number of candidates or the weight is out of range.
        DataError: the runs were trained on different data or parts of it, or read one feature in two ways.
    """

    first: Run
    second: Run
    candidates: int
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.candidates < 1 or not 0 < self.weight <= 1:
            raise ConfigError(
                "re-ranking needs 1 or more candidates and a weight above 0 and at most 1 "
                f"(got {self.candidates} and {self.weight})"
            )
        first, second = self.first, self.second
        if first.fingerprint != second.fingerprint or first.item_ids != second.item_ids:
            raise DataError(
                f"the re-ranking run was trained on data {second.fingerprint[:12]}..., the retrieving run on "
                f"{first.fingerprint[:12]}...: train both on the same data"
            )
        if first.config.split != second.config.split:
            raise DataError(
                "the two runs were trained on different splits, so one may know what the other is tested on: train "
                "both with the same split"
            )
        own = {feature.name: feature for feature in first.features}
        for feature in second.features:
            if own.get(feature.name, feature) != feature:
                raise DataError(f"the two runs read the feature {feature.name!r} in two ways: train both with the same")

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features that either model reads."""
        own = {feature.name for feature in self.first.features}
        return (*self.first.features, *(feature for feature in self.second.features if feature.name not in own))

    @property
    def request_model(self) -> ModelConfig:
        """The settings of the model that reads the most of a request: its time."""
        configs = self.first.config.model, self.second.config.model
        return configs[1] if configs[1].reads_query_time else configs[0]

    def retriever(self, first: Retriever) -> TwoStage:
        """Both models, with a retriever of the first."""
        return TwoStage(first, self.second.model, self.candidates, self.weight)

    def protocol(self, config: EvaluateConfig) -> EvaluateConfig:
        """The protocol of both stages."""
        return config.replace(rerank=self.candidates, query_time=self.request_model.reads_query_time)

    def evaluate(
        self, first: Retriever, cases: Cases, config: EvaluateConfig, progress: CountProgress | None = None
    ) -> tuple[Standings, dict[str, Any]]:
        """Rank the held-out events by the first model alone, and by both.

        Args:
            first: a retriever of the first model.
            cases: of both runs' split, with `features`.
            config: from `protocol`.
            progress: called with (cases done, number of cases).

        Returns:
            The standings after both stages; and, as JSON values, the ranker, the first stage's metrics and recall, and
            the gains, paired by user.
        """
        staged = evaluate_stages(self.retriever(first), cases, config, progress)
        users_B = staged.second.users_B

        def gain(name: str) -> dict[str, Any]:
            first, second = (
                by_user(stage.metric(name, config.convention), users_B) for stage in (staged.first, staged.second)
            )
            return compare(second, first).as_dict()

        gains = {name: gain(name) for name in config.metrics} if len(np.unique(users_B)) > 1 else {}
        return staged.second, {
            "rerank": {"model": self.second.config.model.name, "candidates": self.candidates, "weight": self.weight},
            "first_stage": staged.first.means(config.replace(rerank=0)),
            "recall": staged.recall,
            "gain": gains,
        }
