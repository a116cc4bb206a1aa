"""Session neighbours: SKNN and VSKNN (Ludewig & Jannach, UMUAI 2018), STAN (Garg et al., SIGIR 2019).

Suffixes: `B` rows, `P` events of all rows, `Q` asked events, `N` items, `S` sessions, `E` entries: items of histories,
their sessions, items of neighbours; `1` one more entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.data.arrays import FloatArray, IntArray, gather_events, packed_events
from ensue.data.session_index import SessionIndex
from ensue.data.split import Sequences
from ensue.errors import EnsueError
from ensue.models.base import MODELS, ModelConfig, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.nn.model import CountedModel


class VSKNNConfig(ModelConfig):
    """The variant, how many neighbours, and how places and ages weigh; see docs/models/vsknn.md."""

    name: Literal["vsknn"] = "vsknn"
    maxlen: int = Field(50, ge=1, description="newest events of a history that the model reads")
    variant: Literal["sknn", "vsknn", "stan"] = Field(
        "vsknn", description="sknn: all places weigh the same; vsknn: linear decay; stan: three exponential decays"
    )
    neighbours: int = Field(500, ge=1, description="most similar sessions that vote")
    candidates: int = Field(
        5_000, ge=1, description="newest sessions, of those that share an item, whose similarity is computed"
    )
    idf: float = Field(1.0, ge=0, description="vsknn, stan: weight of the inverse frequency of the items voted for")
    history_decay: float = Field(
        2.0, gt=0, description="stan: events back in the history after which an item weighs 1/e"
    )
    age_decay: float = Field(
        1.0, gt=0, description="stan: age at which a session weighs 1/e, as a share of the training period"
    )
    distance_decay: float = Field(
        5.0, gt=0, description="stan: events from the shared item in a neighbour after which an item weighs 1/e"
    )
    only_after: bool = Field(False, description="vote only for what comes after the newest shared item in a neighbour")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The neighbours of every asked event, those of one event after another.

    Attributes:
        event_E: the asked event, 0..Q - 1.
        session_E: the neighbour's number.
        similarity_E: with the history.
        back_E: how far back in the history the newest shared item lies, 0 for its newest event.
        place_E: the place of that item in the neighbour.
    """

    event_E: IntArray
    session_E: IntArray
    similarity_E: FloatArray
    back_E: IntArray
    place_E: IntArray


class VSKNN(CountedModel):
    """score(i) = sum over neighbours n that contain i of similarity(n) * decay(n, i) * (1 + idf * log(S / S_i)).

    Where we differ from the authors' code: the candidates are the newest sessions exactly, never a sample; items that
    no neighbour contains score 0, and where there is no neighbour at all, popularity decides.
    """

    def __init__(self, config: VSKNNConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen)
        self.config = config
        self.index: SessionIndex | None = None
        self.age_S: FloatArray = np.zeros(0)

    def fit(self, train: Sequences) -> None:
        """Index the training sessions."""
        self._take(SessionIndex.build(train))

    def add(self, sessions: Sequences) -> None:
        """Index further sessions, of the same item numbers, as newer than all before; the rest is not built again."""
        self._take(self._fitted().plus(sessions))

    def logits_of_all(self, batch: SequenceBatch) -> Tensor:
        """Votes of the neighbours: [Q, N]."""
        near, index = self._neighbours(batch), self._fitted()
        scores_QN = torch.zeros(len(batch.asked_Q), self.num_items)
        occurrences, _ = packed_events(index.starts_S1[near.session_E], index.starts_S1[near.session_E + 1])
        count_E = index.lengths_S[near.session_E]
        item, steps = index.items_E[occurrences], index.places_E[occurrences] - np.repeat(near.place_E, count_E)
        vote = np.repeat(near.similarity_E, count_E)
        if self.config.variant == "vsknn":
            vote *= np.repeat(np.maximum(0.0, 1 - 0.1 * near.back_E), count_E)
        if self.config.variant == "stan":
            vote *= np.exp(-np.abs(steps) / self.config.distance_decay)
        if self.config.variant != "sknn":
            vote *= self.weight_N[item - 1]
        if self.config.only_after:
            vote *= steps > 0
        cell = np.repeat(near.event_E, count_E) * self.num_items + item - 1
        scores_QN.view(-1).index_add_(0, torch.from_numpy(cell), torch.from_numpy(vote.astype(np.float32)))
        alone_Q = np.bincount(near.event_E, minlength=len(scores_QN)) == 0
        scores_QN[torch.from_numpy(alone_Q)] = torch.from_numpy(index.sessions_of_N.astype(np.float32))
        return scores_QN

    def _neighbours(self, batch: SequenceBatch) -> Neighbours:
        """The most similar of the newest sessions that share an item with each history."""
        index, config = self._fitted(), self.config
        event_E, item_E, back_E, length_Q, different_Q = self._histories(batch)
        weight_E = np.ones(len(item_E))
        if config.variant == "vsknn":
            weight_E = 1 - back_E / length_Q[event_E]
        if config.variant == "stan":
            weight_E = np.exp(-back_E / config.history_decay)
        # The newest sessions of a history are among the newest of each of its items.
        stop_E = index.first_N1[item_E]
        start_E = np.maximum(index.first_N1[item_E - 1], stop_E - config.candidates)
        count_E = stop_E - start_E
        entry = gather_events(start_E, stop_E)
        key = np.repeat(event_E, count_E) * index.num_sessions + index.sessions_E[entry]
        # Newest items of a history come first, so the first of a pair is the newest shared item.
        order = np.argsort(key, kind="stable")
        key = key[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        if not len(first):
            nothing = np.zeros(0, dtype=np.int64)
            return Neighbours(nothing, nothing, np.zeros(0), nothing, nothing)
        shared = np.add.reduceat(np.repeat(weight_E, count_E)[order], first)
        event, session = np.divmod(key[first], index.num_sessions)
        similarity = shared / np.sqrt(index.lengths_S[session] * different_Q[event])
        if config.variant == "stan":
            similarity *= np.exp(-self.age_S[session] / config.age_decay)
        newest = order[first]
        # Within an event sessions rise, so the newest candidates are the last.
        chosen = _best(event, np.arange(len(event)), config.candidates)
        chosen = chosen[_best(event[chosen], similarity[chosen], config.neighbours)]
        back, place = np.repeat(back_E, count_E)[newest[chosen]], index.places_of_E[entry[newest[chosen]]]
        return Neighbours(event[chosen], session[chosen], similarity[chosen], back, place.astype(np.int64))

    def _histories(self, batch: SequenceBatch) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray]:
        """The different items of each history, newest first, and how far back each lies.

        Returns:
            event_E, item_E, back_E; events of each history [Q], different items of each [Q].
        """
        lengths_B, items_P = batch.lengths_B.cpu().numpy(), batch.items_P.cpu().numpy()
        asked_Q = batch.asked_Q.cpu().numpy()
        start_Q = (np.cumsum(lengths_B) - lengths_B)[batch.row_Q.cpu().numpy()]
        length_Q = asked_Q + 1 - start_Q
        events, place = packed_events(start_Q, asked_Q + 1)
        event_E = np.repeat(np.arange(len(asked_Q)), length_Q)
        back_E = length_Q[event_E] - 1 - place
        _, kept = np.unique(
            (event_E * (self.num_items + 1) + items_P[events])[::-1], return_index=True
        )  # the first from behind: the newest of equal items
        kept = len(events) - 1 - kept
        kept = kept[np.lexsort((back_E[kept], event_E[kept]))]
        event_E = event_E[kept]
        return event_E, items_P[events[kept]], back_E[kept], length_Q, np.bincount(event_E, minlength=len(asked_Q))

    def _take(self, index: SessionIndex) -> None:
        """Use an index: weights of items and ages of sessions follow from it."""
        self.index = index
        share_N = np.maximum(1, index.sessions_of_N) / max(1, index.num_sessions)
        self.weight_N: FloatArray = 1 - self.config.idf * np.log(share_N)
        if index.num_sessions:
            age_S = index.times_S.max() - index.times_S
            self.age_S = age_S / max(1, age_S.max())

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """The sessions as tensors, under the names of `SessionIndex.arrays`."""
        return {name: torch.from_numpy(array.copy()) for name, array in self._fitted().arrays().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take the sessions that `state_dict` gave.

        Raises:
            ArtefactError: the arrays do not fit together, or have other items.
        """
        named = {name: tensor.numpy() for name, tensor in state_dict.items()}
        self._take(SessionIndex.from_arrays(named, self.num_items))

    def _fitted(self) -> SessionIndex:
        if self.index is None:
            raise EnsueError("this neighbour model has not been fitted: call fit first")
        return self.index


def _best(event_E: IntArray, value_E: NDArray[Any], count: int) -> IntArray:
    """The places of the `count` largest values of each event, in their own order; of equal values the later ones."""
    size_Q = np.bincount(event_E)
    if size_Q.max(initial=0) <= count:
        return np.arange(len(event_E))
    order = np.lexsort((value_E, event_E))
    rank_from_best = np.repeat(np.cumsum(size_Q), size_Q) - 1 - np.arange(len(event_E))
    return np.sort(order[rank_from_best < count])


MODELS.register("vsknn")(ModelEntry(VSKNNConfig, VSKNN))
