"""The protocol of an evaluation: its candidates, its metrics, and the name of its results."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ensue.config import Config
from ensue.evaluation.conventions import CONVENTIONS, list_metric_of, metric_of
from ensue.evaluation.list_metrics import parse_list_metric

# Settings that choose what is reported, and change no other figure.
CHOICES = ("metrics", "list_metrics", "list_attribute", "propensity_power", "propensity_floor")
ProtocolName = Literal["full", "uniform-100", "popularity-100"]


class EvaluateConfig(Config):
    """The protocol and the metrics."""

    protocol: ProtocolName = Field("full", description="candidates: all items, or the target and 100 sampled ones")
    filter_seen: bool = Field(True, description="full: leave out the items of the history (never the target)")
    convention: Annotated[str, CONVENTIONS] = Field(
        "ensue", description="whose definition of the metrics: ensue's, or that of another library"
    )
    metrics: tuple[str, ...] = Field(
        ("hr@1", "hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr@10"), description="metrics to report"
    )
    list_metrics: tuple[str, ...] = Field(
        (),
        description="metrics of the recommended lists: coverage@10, diversity@10, novelty@10, popularity@10, gini@10, "
        "head@10, bias@10, serendipity@10, miscalibration@10, brier@10, ece@10",
    )
    list_attribute: str = Field("category", description="item column of diversity and miscalibration")
    propensity_power: float = Field(
        0.0, ge=0, le=4, description="also report |ips: cases weighted by (events of the target)^-power; 0 is off"
    )
    propensity_floor: int = Field(
        1, ge=1, description="propensity_power: a target with fewer training events counts as if it had this many"
    )
    evaluation_seed: int = Field(0, ge=0, description="seed of the sampled candidates")
    rerank: int = Field(0, ge=0, description="candidates that a second model re-ranks; 0: none; set by re-ranking")
    query_time: bool = Field(False, description="whether the model reads the request's time; follows the model")

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """Keep each metric once, in lower case, so that the figures of two runs have the same names."""
        if not names:
            raise ValueError("name at least one metric, such as ndcg@10")
        convention = info.data.get("convention", "ensue")
        return tuple(dict.fromkeys(str(metric_of(name, convention)).lower() for name in names))

    @field_validator("list_metrics")
    @classmethod
    def _check_lists(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        parsed = [parse_list_metric(name) for name in names]
        for name, _ in parsed:
            list_metric_of(name, info.data.get("convention", "ensue"))
        return tuple(dict.fromkeys(f"{name}@{k}" for name, k in parsed))

    @property
    def same(self) -> dict[str, Any]:
        """The settings that two evaluations must share to be compared: all but the choice of metrics."""
        return self.model_dump(mode="json", exclude=set(CHOICES))

    @property
    def key(self) -> str:
        """The key of the protocol's results: `full`, `full-with-seen`, `full+rerank-200`, `uniform-100+query-time`.

        Figures of another convention have a key of their own, `full+rectools`, so they replace none of ours.
        """
        stages = f"+rerank-{self.rerank}" if self.rerank else ""
        own = "" if self.convention == "ensue" else f"+{self.convention}"
        return self._candidates + stages + ("+query-time" if self.query_time else "") + own

    @property
    def _candidates(self) -> str:
        return "full-with-seen" if self.protocol == "full" and not self.filter_seen else self.protocol

    def label(self, metric: str) -> str:
        """The metric's name with its protocol, so that sampled figures never have the name of full ones."""
        marks = {"full": "", "full-with-seen": "|seen", "uniform-100": "|uni100", "popularity-100": "|pop100"}
        stages = f"|rerank{self.rerank}" if self.rerank else ""
        return metric + marks[self._candidates] + stages + ("|qtime" if self.query_time else "") + self._mark

    def list_label(self, metric: str) -> str:
        """The name of a metric of lists, which are of the whole catalogue in every protocol."""
        return metric + ("" if self.filter_seen else "|seen") + ("|qtime" if self.query_time else "") + self._mark

    @property
    def _mark(self) -> str:
        return "" if self.convention == "ensue" else f"|{self.convention}"
