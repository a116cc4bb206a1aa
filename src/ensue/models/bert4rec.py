"""BERT4Rec: bidirectional transformer trained by the cloze task (Sun et al., CIKM 2019).

Suffixes: `P` events of all rows, `Q` asked events, `D` width.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.batch import SequenceBatch
from ensue.batches.tasks import Task, append_mask, cloze
from ensue.models.base import MODELS, FeatureConfig, ModelEntry
from ensue.models.biased import BiasedEncoder, with_one
from ensue.models.catalogue import Catalogue
from ensue.nn.block import Activation
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import PositionEmbedding
from ensue.nn.model import check_newest
from ensue.nn.trunk import Trunk, TrunkConfig


class BERT4RecConfig(TrunkConfig, FeatureConfig):
    """Settings of BERT4Rec: those of the trunk and of the cloze task."""

    name: Literal["bert4rec"] = "bert4rec"
    maxlen: int = Field(200, ge=2, description="newest events of a history that the model reads, including [MASK]")
    activation: Activation = Field("gelu", description="activation of the feed-forward layers; none: linear")
    mask_prob: float = Field(0.2, gt=0, le=1, description="probability that an event of a training window is masked")
    mask_share: float = Field(1.0, ge=0, le=1, description="share of the masked events that are replaced by [MASK]")
    random_share: float = Field(
        0.0, ge=0, le=1, description="share of the masked events replaced by a random item; the rest keep their own"
    )
    newest_share: float = Field(
        0.0, ge=0, le=1, description="share of the windows in which only the newest event is masked, as in serving"
    )

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.mask_share + self.random_share > 1:
            raise ValueError(
                f"mask_share and random_share must sum to 1 at most (got {self.mask_share} and {self.random_share})"
            )
        return self

    def make_task(self) -> Task:
        """The cloze task."""
        return cloze(self.mask_prob, self.mask_share, self.random_share, self.newest_share)

    def fine_tuning(self) -> Task:
        """The cloze task with [MASK] in place of each window's newest event alone."""
        return cloze(newest_share=1.0)


class BERT4Rec(BiasedEncoder):
    """h = GELU(W trunk(dropout(E[items] + P[age])) + b), score(h, i) = h . E[i] + b_i; [MASK] is item N + 1.

    An event sees all events of its row. In training the model predicts the items of masked events. In serving, [MASK]
    is appended to the history and its item is predicted; a history of `maxlen` events therefore loses its oldest.

    Differences from the authors' code: pre-norm (theirs is `norm="post"`); the feed-forward layer has width D, not 4 D;
    positions count from the newest event; each epoch draws new masks (theirs fixes ten masked copies of the data).
    """

    answers_everywhere = False

    def __init__(self, config: BERT4RecConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, config.hidden_units, extra=1)
        self.positions = PositionEmbedding(config.maxlen, config.hidden_units, "learned")
        self.dropout = Dropout(config.dropout_rate)
        self.trunk = Trunk(config, config.maxlen, causal=False)
        self.projection = nn.Linear(config.hidden_units, config.hidden_units)

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D + 1].

        Raises:
            EnsueError: the batch asks for the next item after an event that is not the newest of its row.
        """
        check_newest(batch)
        if batch.asks == "next":
            batch = append_mask(batch, self.num_items + 1, self.maxlen)
        x_PD = self.dropout(self.positions(self.events(batch), batch.layout.age_P))
        return with_one(F.gelu(self.projection(self.trunk(x_PD, batch.layout))))


MODELS.register("bert4rec")(ModelEntry(BERT4RecConfig, BERT4Rec))
