"""The interface of a model for training, evaluation and serving.

Suffixes: `B` rows of a batch, `P` events of all rows, `Q` asked events, `N` items of the catalogue, `C` candidates, `K`
shared candidates, `D` width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.data.split import Sequences
from ensue.errors import EnsueError
from ensue.nn.content import ItemContent
from ensue.nn.embedding import ItemEmbedding
from ensue.nn.features import FeatureInput
from ensue.nn.ops.candidates import candidate_logits


class Model(nn.Module, ABC):
    """A model that scores items at the asked events of a batch. A ranker derives directly from this class.

    Args:
        num_items: number of items in the catalogue, N.
        maxlen: number of newest events of a history that the model reads.
        query_time: whether the model reads the time of the request.

    Attributes:
        answers_everywhere: whether any event may be asked. False allows only the newest of each row, since states at
            earlier events have seen later ones.
        log_probabilities: whether scores are log-probabilities, which sum to one over the catalogue.
        carried: tensors, by name, that a training step passes to the next; checkpoints contain them.
    """

    answers_everywhere = True
    log_probabilities = False

    def __init__(self, num_items: int, maxlen: int, query_time: bool = False) -> None:
        super().__init__()
        self.num_items = num_items
        self.maxlen = maxlen
        self.query_time = query_time
        self.carried: dict[str, Tensor] = {}

    @abstractmethod
    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        """Scores at each asked event, higher is better.

        Args:
            batch: the histories and their asked events.
            items_QC: candidates of each asked event (item numbers); the whole catalogue by default.
            shared_K: with `items_QC`, additional candidates shared by all asked events.

        Returns:
            [Q, C + K], or [Q, N] with item j + 1 in column j. The caller may write to it.
        """

    def study(self, train: Sequences) -> None:
        """Read statistics of the training part into buffers, before training starts.

        By default only which items have no training events, for tables that join the items' content. A model with
        statistics of its own calls this method too.
        """
        contents = [part for part in self.modules() if isinstance(part, ItemContent)]
        if contents:
            counts_N = np.bincount(train.items_P, minlength=self.num_items + 1)[1:]
            for content in contents:
                content.study(counts_N)

    def step_taken(self) -> None:
        """Update `carried`; called after each optimiser step. By default nothing is carried."""

    @property
    def device(self) -> torch.device:
        """The device of the model's tensors; the CPU for a model without tensors."""
        for tensor in chain(self.parameters(), self.buffers()):
            return tensor.device
        return torch.device("cpu")


def check_newest(batch: SequenceBatch) -> None:
    """Check that only the newest event of each row is asked.

    Raises:
        EnsueError: another event is asked; its state would have seen the events after it.
    """
    if batch.asks == "next" and not torch.equal(batch.asked_Q, batch.layout.last_B):
        raise EnsueError("this model can only predict after the newest event of a history: use task last or prefixes")


class Encoder(Model):
    """A model of vectors: score = state . item vector. It supports full-catalogue losses and vector search.

    An item bias b is an additional column: item vectors (e, b) and states (h, 1).
    """

    @abstractmethod
    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D]."""

    @abstractmethod
    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Vectors of the given item numbers, [..., D], or of the whole catalogue, [N, D]."""

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        """Inner products of the states with the vectors of the candidates; see `Model.logits`."""
        h_QD = self.encode(batch)
        if items_QC is None:
            return h_QD @ self.item_vectors().T
        own_QC = candidate_logits(h_QD, items_QC, self.item_vectors, self.num_items)
        return own_QC if shared_K is None else torch.cat((own_QC, h_QD @ self.item_vectors(shared_K).T), 1)


class EventEncoder(Encoder):
    """An encoder whose events have the vectors of their items, joined with those of features if the model reads any.

    Attributes:
        features: joins the features, or None; `build_model` sets it.
    """

    def __init__(self, num_items: int, maxlen: int, query_time: bool = False) -> None:
        super().__init__(num_items, maxlen, query_time)
        self.features: FeatureInput | None = None

    @property
    @abstractmethod
    def input_table(self) -> ItemEmbedding:
        """The table of the items' vectors as inputs."""

    def events(self, batch: SequenceBatch, at: Tensor | None = None) -> Tensor:
        """The vectors of a batch's events, or of those with the numbers `at`: [P, D].

        Raises:
            DataError: the model reads a feature that the batch does not have.
        """
        items_P = batch.items_P if at is None else batch.items_P[at]
        x_PD: Tensor = self.input_table(items_P)
        if self.features is None:
            return x_PD
        codes = batch.features
        if at is not None and codes is not None:
            codes = {name: codes_P[at] for name, codes_P in codes.items()}
        joined_PD: Tensor = self.features(x_PD, items_P, codes)
        return joined_PD


class CountedModel(Model):
    """A model that is fitted by counting, in one pass and without gradients; it scores the whole catalogue.

    Attributes:
        counts_events: whether scores are probabilities or event counts, so that their shares are probabilities.
    """

    counts_events = False

    @abstractmethod
    def fit(self, train: Sequences) -> None:
        """Count the training sequences."""

    def for_newcomers(self) -> Tensor | None:
        """What items are worth to somebody without a history, [N]; None: their numbers of training events."""
        return None

    @abstractmethod
    def logits_of_all(self, batch: SequenceBatch) -> Tensor:
        """Scores of all items at each asked event, [Q, N]."""

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        """The columns of the candidates; see `Model.logits`."""
        return columns_of(self.logits_of_all(batch), items_QC, shared_K)


def columns_of(scores_QN: Tensor, items_QC: Tensor | None, shared_K: Tensor | None) -> Tensor:
    """The return value of `Model.logits`, taken from the scores of the whole catalogue."""
    if items_QC is None:
        return scores_QN
    own_QC = scores_QN.gather(1, items_QC - 1)
    return own_QC if shared_K is None else torch.cat((own_QC, scores_QN[:, shared_K - 1]), 1)
