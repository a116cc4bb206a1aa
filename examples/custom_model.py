"""A model of your own in one file: a GRU over item vectors (Hidasi et al., ICLR 2016), with tied output.

ensue train ratings.csv --model my-gru --model-module custom_model.py --out runs/my-gru

Suffixes: P events of all rows, Q asked events, G rows of a rectangle, T events of its longest row, D width.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.models import MODELS, Catalogue
from ensue.models.base import CausalConfig, ModelEntry
from ensue.models.tied import TiedEncoder


class MyGRUConfig(CausalConfig):
    """The settings; each is a flag of `ensue train`."""

    name: Literal["my-gru"] = "my-gru"
    hidden_units: int = Field(64, ge=1, description="width of item vectors and states")
    num_layers: int = Field(1, ge=1, description="stacked GRU layers")
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="dropout on item vectors and between layers")


class MyGRU(TiedEncoder):
    """h = GRU(dropout(E[items])), score(h, i) = h . E[i]."""

    def __init__(self, config: MyGRUConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, config.hidden_units)
        self.dropout = nn.Dropout(config.dropout_rate)
        width, layers = config.hidden_units, config.num_layers
        between = config.dropout_rate if layers > 1 else 0.0
        self.gru = nn.GRU(width, width, layers, batch_first=True, dropout=between)

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D]."""
        # The layout cuts the packed events into a few rectangles of similar lengths, padded on the right.
        rectangles = batch.layout.pad(self.dropout(self.events(batch)))
        h_PD = batch.layout.unpad([self.gru(x_GTD)[0] for x_GTD in rectangles])
        return batch.layout.choose(h_PD)


MODELS.register("my-gru")(ModelEntry(MyGRUConfig, MyGRU))
