"""Retention: a gated linear recurrence whose memory fades with events and with time; its state has a fixed size.

Sources: RetNet (Sun et al. 2023, arXiv 2307.08621) for the layer; Mamba-2 (Dao & Gu, ICML 2024) for a decay that the
event chooses.

Suffixes: `P` events of all rows, `Q` asked events, `B` histories to advance, `G` rows of a group, `T` events of its
longest row, `L` layers, `H` heads, `D` width, `d` width of a head, `E` several of it beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import Layout
from ensue.errors import DataError
from ensue.models.base import MODELS, CausalConfig, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.models.tied import TiedEncoder
from ensue.nn.block import LAYER_NORM_EPS, FeedForward
from ensue.nn.dropout import Dropout
from ensue.nn.ops.heads import heads_first
from ensue.nn.ops.retention import retention, step
from ensue.nn.trunk import HeadedConfig

# The unit of a gap: below an hour a memory hardly fades with time.
HOUR = 3_600.0
# The decay per event at the start: heads remember about 2 to 256 events.
SHORTEST, LONGEST = 2.0, 256.0


class RetentionConfig(HeadedConfig, CausalConfig):
    """Settings of retention."""

    name: Literal["retention"] = "retention"
    hidden_units: int = Field(64, ge=1, description="width of item vectors and states")
    num_heads: int = Field(4, ge=1, description="heads, each with a memory of its own; divides hidden_units")
    num_blocks: int = Field(2, ge=1, description="blocks, each with retention and a feed-forward layer")
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="dropout on embeddings and on what each layer adds")
    time: Literal["timestamps", "order"] = Field(
        "timestamps", description="timestamps: a memory also fades with elapsed time; order: with events alone"
    )

    @property
    def reads_times(self) -> bool:
        """Whether a memory fades with time."""
        return self.time == "timestamps"


class RetentionState(NamedTuple):
    """What a history has left in a model, of a size that does not depend on its length.

    Attributes:
        memory_LBHdd: the memories of every block and head.
        times_B: the time of the newest event, int64; any before the first one, since an empty memory cannot fade.
    """

    memory_LBHdd: Tensor
    times_B: Tensor


class RetentionBlock(nn.Module):
    """x = x + W_o (norm(retention(q, k, v, a)) * SiLU(g)); x = x + feed_forward(norm(x)).

    q, k, v, g = W norm(x); a = -softplus(w . norm(x) + b) - softplus(c) log(1 + gap in hours), for each head.
    """

    def __init__(self, config: RetentionConfig) -> None:
        super().__init__()
        width, self.num_heads = config.hidden_units, config.num_heads
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.qkv, self.gate = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.decay = nn.Linear(width, self.num_heads)
        self.time_bias = nn.Parameter(torch.empty(self.num_heads)) if config.reads_times else None
        self.heads_norm = nn.GroupNorm(self.num_heads, width)
        self.out = nn.Linear(width, width, bias=False)
        self.dropout = Dropout(config.dropout_rate)
        self.feed_forward_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(width, config.dropout_rate, "gelu")

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Give the heads memories of different lengths, in events; the share of time is small at the start."""
        lengths_H = torch.logspace(0, 1, self.num_heads, LONGEST / SHORTEST) * SHORTEST
        self.decay.bias.copy_(lengths_H.reciprocal().expm1().log())
        if self.time_bias is not None:
            self.time_bias.fill_(-4.0)

    def forward(self, x_PD: Tensor, gaps_P: Tensor, layout: Layout) -> Tensor:
        """The asked events, [Q, D], from all events and the logarithms of the gaps before them."""
        normed_PD = self.norm(x_PD)
        decay_PH = self._decay(normed_PD, gaps_P)
        wide = torch.promote_types(x_PD.dtype, torch.float32)
        qkv_PE, outs = self.qkv(normed_PD).to(wide), []
        with torch.autocast(x_PD.device.type, enabled=False):
            for x_GTE, decay_GTH in zip(layout.pad(qkv_PE), layout.pad(decay_PH.to(wide)), strict=True):
                q, k, v = heads_first(x_GTE, 3, self.num_heads)
                read_GHTd = retention(q * q.shape[-1] ** -0.5, k, v, decay_GTH.transpose(1, 2))
                outs.append(read_GHTd.transpose(1, 2).flatten(2))
        read_QD = layout.choose(layout.unpad(outs)).to(x_PD.dtype)
        return self._write(layout.choose(x_PD), layout.choose(normed_PD), read_QD)

    def advance(self, memory_BHdd: Tensor, x_BD: Tensor, gaps_B: Tensor) -> tuple[Tensor, Tensor]:
        """One more event of each history: the memories after it, and its state, [B, D]."""
        normed_BD = self.norm(x_BD)
        q, k, v = self.qkv(normed_BD).view(len(x_BD), 3, self.num_heads, -1).unbind(1)
        decay_BH = self._decay(normed_BD, gaps_B)
        memory_BHdd, read_BHd = step(memory_BHdd, q * q.shape[-1] ** -0.5, k, v, decay_BH)
        return memory_BHdd, self._write(x_BD, normed_BD, read_BHd.flatten(1))

    def _decay(self, normed_PD: Tensor, gaps_P: Tensor) -> Tensor:
        decay_PH: Tensor = -F.softplus(self.decay(normed_PD))
        if self.time_bias is None:
            return decay_PH
        return decay_PH - F.softplus(self.time_bias) * gaps_P[:, None].to(decay_PH.dtype)

    def _write(self, x_QD: Tensor, normed_QD: Tensor, read_QD: Tensor) -> Tensor:
        gated_QD = self.heads_norm(read_QD) * F.silu(self.gate(normed_QD))
        x_QD = x_QD + self.dropout(self.out(gated_QD))
        out_QD: Tensor = x_QD + self.feed_forward(self.feed_forward_norm(x_QD))
        return out_QD


class Retention(TiedEncoder):
    """h = norm(blocks(dropout(sqrt(D) E[items]))), score(h, i) = h . E[i], with tied item vectors.

    The order of events is in the decay alone, so there are no positions, and a state needs no earlier event.
    """

    def __init__(self, config: RetentionConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, config.hidden_units)
        self.scale = config.hidden_units**0.5
        self.num_heads, self.reads_times = config.num_heads, config.reads_times
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(RetentionBlock(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(config.hidden_units, eps=LAYER_NORM_EPS)

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D].

        Raises:
            DataError: the batch has no times, and the model reads them.
        """
        layout, gaps_P = batch.layout, self._gaps(batch)
        x_PD = self.dropout(self.events(batch) * self.scale)
        for block in self.blocks[:-1]:
            x_PD = block(x_PD, gaps_P, layout.everything)
        h_QD: Tensor = self.norm(self.blocks[-1](x_PD, gaps_P, layout))
        return h_QD

    def _gaps(self, batch: SequenceBatch) -> Tensor:
        """log(1 + hours) since the event before, [P]; 0 for the first event of a row, and without times."""
        gaps_P = batch.items_P.new_zeros(len(batch.items_P))
        if self.reads_times:
            if batch.times_P is None:
                raise DataError(
                    "model retention needs times of events, but there are none: give them (times=, --times), or train "
                    "with time = 'order' (--time order), so that a memory fades with events alone"
                )
            gaps_P[1:] = batch.times_P.diff()
            gaps_P[batch.lengths_B.cumsum(0)[:-1]] = 0
        return _log_hours(gaps_P)

    def begin(self, rows: int) -> RetentionState:
        """The states of histories without events."""
        width = self.items.weight.shape[1] // self.num_heads
        memory_LBHdd = self.items.weight.new_zeros(len(self.blocks), rows, self.num_heads, width, width)
        return RetentionState(memory_LBHdd, torch.zeros(rows, dtype=torch.int64, device=self.device))

    def advance(
        self,
        state: RetentionState,
        items_B: Tensor,
        times_B: Tensor | None = None,
        codes: Mapping[str, Tensor] | None = None,
    ) -> tuple[RetentionState, Tensor]:
        """One more event of each history, for the cost of one step.

        Args:
            state: the states before, from `begin` or `advance`.
            items_B: the item number of each history's new event.
            times_B: its time in seconds, int64; required if the model reads times.
            codes: name -> the codes of its features, [B], if the model reads any (see `SequenceBatch.features`).

        Returns:
            The states after, and what `encode` gives for the whole histories, [B, D]; for histories of more than
            `maxlen` events, of which `encode` reads the newest, it remembers the older ones too.

        Raises:
            DataError: there are no times, and the model reads them.
        """
        gaps_B = torch.zeros_like(items_B)
        if self.reads_times:
            if times_B is None:
                raise DataError("model retention needs the times of new events: give times_B")
            gaps_B = times_B - state.times_B
        x_BD: Tensor = self.items(items_B)
        if self.features is not None:
            x_BD = self.features(x_BD, items_B, codes)
        x_BD, after = self.dropout(x_BD * self.scale), []
        for block, memory_BHdd in zip(self.blocks, state.memory_LBHdd, strict=True):
            assert isinstance(block, RetentionBlock)
            memory_BHdd, x_BD = block.advance(memory_BHdd, x_BD, _log_hours(gaps_B))
            after.append(memory_BHdd)
        return RetentionState(torch.stack(after), items_B if times_B is None else times_B), self.norm(x_BD)


def _log_hours(gaps_P: Tensor) -> Tensor:
    return (gaps_P.clamp(min=0).double() / HOUR).log1p()


MODELS.register("retention")(ModelEntry(RetentionConfig, Retention))
