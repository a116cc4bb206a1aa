"""The flags of a second stage, shared by `ensue recommend` and `ensue evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from ensue.cli.flags import Flag, flags_of
from ensue.config import Config
from ensue.retrieval import CANDIDATES

if TYPE_CHECKING:
    from ensue.recommender import Recommender


class RerankConfig(Config):
    """A second stage.

    Attributes:
        rerank: a run whose model re-ranks the best candidates of RUN.
        candidates: number of candidates for --rerank.
        rerank_weight: share of the --rerank run in the order; the rest is RUN's own scores.
    """

    rerank: str | None = None
    candidates: int = Field(CANDIDATES, ge=1)
    rerank_weight: float = Field(1.0, gt=0, le=1)


def flags() -> list[Flag]:
    """The flags of a second stage."""
    return flags_of(RerankConfig, "Re-ranking")


def add_second_stage(recommender: Recommender, settings: dict[str, Any]) -> None:
    """Add the second stage that the settings name, if they name one.

    Raises:
        ConfigError: a number is out of range.
        DataError: the two runs were trained on different data or splits.
    """
    options = RerankConfig.parse({name: settings[name] for name in RerankConfig.model_fields if name in settings})
    if options.rerank is not None:
        recommender.rerank(options.rerank, options.candidates, options.rerank_weight)
