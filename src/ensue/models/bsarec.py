"""BSARec: attention combined with a frequency filter (Shin et al., AAAI 2024).

Suffixes: `P` events of all rows, `Q` asked events, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import Layout
from ensue.models.base import MODELS, ModelEntry, NewestConfig
from ensue.models.catalogue import Catalogue
from ensue.models.tied import TiedEncoder
from ensue.nn.attention import AttentionConfig, Heads
from ensue.nn.block import LAYER_NORM_EPS
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import PositionEmbedding
from ensue.nn.frequency import FrequencyRescaler
from ensue.nn.model import check_newest
from ensue.nn.self_attention import SelfAttention
from ensue.nn.trunk import HeadedConfig


class FrequencyConfig(NewestConfig):
    """Settings of a model that mixes events by frequency; the defaults are the authors' for Amazon Beauty."""

    maxlen: int = Field(50, ge=1, description="newest events of a history that the model reads; also the FFT window")
    hidden_units: int = Field(64, ge=1, description="width of item vectors and states")
    num_blocks: int = Field(2, ge=1, description="blocks, each with a mixing layer and a feed-forward layer")
    dropout_rate: float = Field(0.5, ge=0, lt=1, description="dropout on embeddings, mixing and feed-forward")


class BSARecConfig(FrequencyConfig, HeadedConfig, AttentionConfig):
    """Settings of BSARec."""

    name: Literal["bsarec"] = "bsarec"
    alpha: float = Field(0.7, ge=0, le=1, description="share of the frequency layer; the rest is attention")
    frequencies: int = Field(3, ge=1, description="number of low frequencies; with maxlen / 2 + 1 or more, all are low")


class AddAndNorm(nn.Module):
    """norm(x + dropout(layer(x))), at the asked events.

    Args:
        layer: (all events [P, D], layout) -> asked events [Q, D].
        hidden_units: D.
        dropout_rate: on the output of the layer.
    """

    def __init__(self, layer: nn.Module, hidden_units: int, dropout_rate: float) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.LayerNorm(hidden_units, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(dropout_rate)

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """The asked events, [Q, D], from all events, [P, D]."""
        y_QD: Tensor = self.norm(layout.choose(x_PD) + self.dropout(self.layer(x_PD, layout)))
        return y_QD


class FrequencyBlock(nn.Module):
    """x = mixer(x); x = norm(x + dropout(W2 GELU(W1 x + b1) + b2)), with an inner width of 4 D.

    Args:
        mixer: (all events [P, D], layout) -> asked events [Q, D], after addition and normalisation.
        hidden_units: D.
        dropout_rate: on the output of the feed-forward layer.
    """

    def __init__(self, mixer: nn.Module, hidden_units: int, dropout_rate: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.inner = nn.Linear(hidden_units, 4 * hidden_units)
        self.outer = nn.Linear(4 * hidden_units, hidden_units)
        self.norm = nn.LayerNorm(hidden_units, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(dropout_rate)

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """The asked events, [Q, D], from all events, [P, D]."""
        x_QD = self.mixer(x_PD, layout)
        out_QD: Tensor = self.norm(x_QD + self.dropout(self.outer(F.gelu(self.inner(x_QD)))))
        return out_QD


class FrequencyEncoder(TiedEncoder):
    """h = blocks(dropout(norm(E[items] + P[age]))), score(h, i) = h . E[i], only at the newest event of a row.

    Args:
        config: the settings.
        catalogue: the items.
        mixer: creates the mixing layer of a block, see `FrequencyBlock`.
    """

    answers_everywhere = False

    def __init__(self, config: FrequencyConfig, catalogue: Catalogue, mixer: Callable[[], nn.Module]) -> None:
        super().__init__(catalogue.num_items, config.maxlen, config.hidden_units)
        self.positions = PositionEmbedding(config.maxlen, config.hidden_units, "learned")
        self.norm = nn.LayerNorm(config.hidden_units, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(
            FrequencyBlock(mixer(), config.hidden_units, config.dropout_rate) for _ in range(config.num_blocks)
        )

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw matrices and tables from a normal distribution with standard deviation 0.02, as the authors do."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.02, generator=generator)

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the newest events, [Q, D].

        Raises:
            EnsueError: another event is asked; its state would have seen the events after it.
        """
        check_newest(batch)
        layout = batch.layout
        x_PD = self.dropout(self.norm(self.positions(self.events(batch), layout.age_P)))
        for block in self.blocks[:-1]:
            x_PD = block(x_PD, layout.everything)
        h_QD: Tensor = self.blocks[-1](x_PD, layout)
        return h_QD


class Rescaling(nn.Module):
    """F(x), at the asked events."""

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__()
        self.filter = FrequencyRescaler(config.maxlen, config.hidden_units, config.frequencies)

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """The asked events, [Q, D], from all events, [P, D]."""
        return layout.choose(self.filter(x_PD, layout))


class Attending(nn.Module):
    """Causal attention, at the asked events."""

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__()
        width, count, rate = config.hidden_units, config.num_heads, config.dropout_rate
        kind = config.attend(Heads(count, width // count, rate, maxlen=config.maxlen))
        self.attention = SelfAttention(width, count, rate, kind=kind)

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """The asked events, [Q, D], from all events, [P, D]."""
        y_QD: Tensor = self.attention(layout.choose(x_PD), x_PD, layout)
        return y_QD


class AttentionAndFrequency(nn.Module):
    """alpha norm(x + dropout(F(x))) + (1 - alpha) norm(x + dropout(attention(x)))."""

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__()
        self.alpha = config.alpha
        self.frequency = AddAndNorm(Rescaling(config), config.hidden_units, config.dropout_rate)
        self.attention = AddAndNorm(Attending(config), config.hidden_units, config.dropout_rate)

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """The asked events, [Q, D], from all events, [P, D]."""
        mixed_QD: Tensor = self.alpha * self.frequency(x_PD, layout) + (1 - self.alpha) * self.attention(x_PD, layout)
        return mixed_QD


class BSARec(FrequencyEncoder):
    """Blocks whose mixing layer is alpha norm(x + F(x)) + (1 - alpha) norm(x + attention(x)).

    F(x) = LFC(x) + beta^2 HFC(x): the low frequencies, and a learned share of the others.

    Differences from the authors' code: the places of the window before a short history are zeros in the filter and
    absent from attention (in theirs they are vectors of the position and the padding item in the filter), and a
    history's first item is no target.
    """

    def __init__(self, config: BSARecConfig, catalogue: Catalogue) -> None:
        super().__init__(config, catalogue, lambda: AttentionAndFrequency(config))


MODELS.register("bsarec")(ModelEntry(BSARecConfig, BSARec))
