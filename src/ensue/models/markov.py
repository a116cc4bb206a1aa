"""Markov chain of order k with back-off: the items that followed the last items in training.

Suffixes: `B` rows, `P` events of all rows, `Q` asked events, `N` items, `M` entries of the counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.data.arrays import gather_events
from ensue.data.split import Sequences
from ensue.data.transitions import MAX_ORDER, Method, Smoothing, Transitions, fit_transitions
from ensue.errors import ArtefactError, EnsueError
from ensue.models.base import MODELS, ModelConfig, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.nn.model import CountedModel


class MarkovConfig(ModelConfig):
    """The length of the context, the weight of shorter contexts, and contexts farther back."""

    name: Literal["markov"] = "markov"
    order: int = Field(1, ge=1, le=MAX_ORDER, description="longest context, in items")
    smoothing: float = Field(
        1.0, gt=0, description="weight of the shorter context's prediction, in events; additive: added to each count"
    )
    smoothing_method: Method = Field(
        "interpolated", description="how counts of longer and shorter contexts become probabilities"
    )
    discount: float = Field(0.75, gt=0, lt=1, description="kneser-ney: subtracted from counts, for the shorter context")
    skips: int = Field(
        0, ge=0, lt=MAX_ORDER, description="additional contexts of one item each, 2 to 1 + skips steps before"
    )
    skip_weight: float = Field(0.5, gt=0, le=1, description="factor of the weight of a context for each step back")

    @property
    def how(self) -> Smoothing:
        """The settings of the smoothing."""
        return Smoothing(self.smoothing, self.smoothing_method, self.discount, self.skips, self.skip_weight)


class Markov(CountedModel):
    """p(i | last k items), interpolated with shorter contexts and popularity; see `Transitions.score`."""

    counts_events = True

    def __init__(self, config: MarkovConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen)
        self.config = config
        self.transitions: Transitions | None = None

    def fit(self, train: Sequences) -> None:
        """Count the items that follow each context of up to `order` items."""
        self.transitions = fit_transitions(train, self.config.order, self.config.how)

    def logits_of_all(self, batch: SequenceBatch) -> Tensor:
        """Probabilities of the next item: [Q, N]."""
        # A history ends with its asked event.
        items_P, lengths_B = batch.items_P.cpu().numpy(), batch.lengths_B.cpu().numpy()
        asked_Q, row_Q = batch.asked_Q.cpu().numpy(), batch.row_Q.cpu().numpy()
        start_Q = (np.cumsum(lengths_B) - lengths_B)[row_Q]
        events = gather_events(start_Q, asked_Q + 1)
        return torch.from_numpy(self._fitted().score(items_P[events], asked_Q + 1 - start_Q))

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """The counts as tensors, under the names of `Transitions.arrays`."""
        return {name: torch.from_numpy(array) for name, array in self._fitted().arrays().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load the counts returned by `state_dict`.

        Raises:
            ArtefactError: the counts are inconsistent, or belong to another catalogue or order.
        """
        named, config = {name: tensor.numpy() for name, tensor in state_dict.items()}, self.config
        transitions = Transitions.from_arrays(named, config.how)
        if transitions.order != config.order or transitions.popularity_N.size != self.num_items:
            raise ArtefactError(
                f"transition counts of order {transitions.order} over {transitions.popularity_N.size} items, but the "
                f"settings require order {config.order} over {self.num_items} items"
            )
        continued = [level.continuations_M is not None for level in transitions.levels[:-1]]
        is_kneser_ney = config.smoothing_method == "kneser-ney"
        if len(transitions.skips) != config.skips or continued != [is_kneser_ney] * (config.order - 1):
            raise ArtefactError("the transition counts do not match the settings skips and smoothing_method")
        self.transitions = transitions

    def _fitted(self) -> Transitions:
        if self.transitions is None:
            raise EnsueError("this Markov chain has not been fitted: call fit first")
        return self.transitions


MODELS.register("markov")(ModelEntry(MarkovConfig, Markov))
