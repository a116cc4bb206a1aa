"""HSTU: hierarchical sequential transduction units (Zhai et al., ICML 2024).

Suffixes: `P` events of all rows, `Q` asked events, `G` rows of a group, `T` events of its longest row, `A` queries of a
strip, `K` its keys, `H` heads, `D` width, `E` several of it beside each other, `2` the times of keys and of queries.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import Layout
from ensue.models.base import MODELS, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.models.tied import TiedEncoder
from ensue.models.timed import TimedConfig
from ensue.nn.block import LAYER_NORM_EPS
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import PositionEmbedding
from ensue.nn.ops.attention import strips
from ensue.nn.relations import bucket_of
from ensue.nn.trunk import HeadedConfig

# int64 [G, A, K] for each strip of queries of a group.
Buckets = tuple[Tensor, ...]


class HSTUConfig(HeadedConfig, TimedConfig):
    """Settings of HSTU; the defaults are the authors' for MovieLens-1M."""

    name: Literal["hstu"] = "hstu"
    num_blocks: int = Field(2, ge=1, description="blocks of pointwise gated attention")
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="dropout on embeddings and on what each block adds")
    time_buckets: int = Field(128, ge=2, description="logarithmic buckets of intervals, each with a bias")


class Biases(nn.Module):
    """What a block adds to its scores: a bias of the distance of two events, and one of the interval between them."""

    def __init__(self, maxlen: int, time_buckets: int) -> None:
        super().__init__()
        self.position_bias = nn.Parameter(torch.empty(maxlen))
        self.time_bias = nn.Parameter(torch.empty(time_buckets))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the biases from a normal distribution of deviation 0.02, as the authors do."""
        self.position_bias.normal_(0, 0.02, generator=generator)
        self.time_bias.normal_(0, 0.02, generator=generator)

    def forward(self, bucket_GAK: Tensor, first: int) -> Tensor:
        """[G, A, K] from the buckets of a strip's intervals, whose first query is event `first` of its row."""
        rows, queries, keys = bucket_GAK.shape
        query_A = torch.arange(first, first + queries, device=bucket_GAK.device)
        distance_AK = (query_A[:, None] - torch.arange(keys, device=bucket_GAK.device)).clamp(min=0)
        # The gradient of a gather from an expanded table is first summed for each query, which is fast.
        position_AK = self.position_bias.expand(queries, -1).gather(1, distance_AK)
        return position_AK + self.time_bias.expand(rows, queries, -1).gather(2, bucket_GAK)


class HSTUBlock(nn.Module):
    """U, V, Q, K = split(SiLU(W norm(x))); A = SiLU(Q K^T + bias) / n, causal; x = x + W2 (norm(A V) * U) + b2."""

    def __init__(self, config: HSTUConfig) -> None:
        super().__init__()
        width = config.hidden_units
        self.maxlen, self.num_heads = config.maxlen, config.num_heads
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.uvqk = nn.Linear(width, 4 * width, bias=False)
        self.biases = Biases(config.maxlen, config.time_buckets)
        self.attended_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, x_PD: Tensor, layout: Layout, buckets: list[Buckets]) -> Tensor:
        """The asked events, [Q, D], from all events, [P, D], and the buckets of each group's strips."""
        width = x_PD.shape[1]
        uvqk_PE = F.silu(self.uvqk(self.norm(x_PD)))
        rectangles = layout.pad(uvqk_PE[:, width:])
        attended_PD = layout.unpad([self._attend(*each) for each in zip(rectangles, buckets, strict=True)])
        gated_QD = self.attended_norm(layout.choose(attended_PD)) * layout.choose(uvqk_PE[:, :width])
        out_QD: Tensor = layout.choose(x_PD) + self.out(self.dropout(gated_QD))
        return out_QD

    def _attend(self, vqk_GTE: Tensor, buckets: Buckets) -> Tensor:
        """[G, T, D]; each strip of queries meets the keys up to its last event alone."""
        rows, width = vqk_GTE.shape[:2]
        v, q, k = vqk_GTE.view(rows, width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        outs = []
        for (lo, hi, keys), bucket_GAK in zip(strips(width), buckets, strict=True):
            scores_GHAK = q[:, :, lo:hi] @ k[:, :, :keys].transpose(2, 3) + self.biases(bucket_GAK, lo)[:, None]
            outs.append((F.silu(scores_GHAK) / self.maxlen).tril(lo) @ v[:, :, :keys])
        return torch.cat(outs, 2).transpose(1, 2).flatten(2)


class HSTU(TiedEncoder):
    """h = norm(blocks(dropout(sqrt(D) E[items] + P[age]))), score(h, i) = h . E[i], with tied item vectors.

    Attention is pointwise: no softmax, so a state also knows how much of its past matters. Intervals are measured from
    the event itself; with `query_time` from the request (in training, the next event), as in the authors' code, and the
    figures then stand under a protocol name of their own.

    Where we differ from the authors' code: a final LayerNorm and plain inner products, where theirs are cosines divided
    by a temperature; the loss is any of the objective's.
    """

    def __init__(self, config: HSTUConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, config.hidden_units, config.query_time)
        self.scale = config.hidden_units**0.5
        self.times_of, self.time_buckets = config.times_of, config.time_buckets
        self.positions = PositionEmbedding(config.maxlen, config.hidden_units, "learned")
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(HSTUBlock(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(config.hidden_units, eps=LAYER_NORM_EPS)

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D].

        Raises:
            DataError: the batch has no times, or not those of the requests, and the model reads them.
        """
        layout, buckets = batch.layout, self._buckets(batch)
        x_PD = self.dropout(self.positions(self.events(batch) * self.scale, layout.age_P))
        for block in self.blocks[:-1]:
            x_PD = block(x_PD, layout.everything, buckets)
        h_QD: Tensor = self.norm(self.blocks[-1](x_PD, layout, buckets))
        return h_QD

    @torch.no_grad()
    def _buckets(self, batch: SequenceBatch) -> list[Buckets]:
        """floor(log(interval) / 0.301), at most the last bucket, of every group's strips."""
        times_P2 = torch.stack(self.times_of(batch), -1).double()
        second = torch.ones(1, dtype=torch.float64, device=times_P2.device)
        return [
            tuple(
                bucket_of(x_GT2[:, lo:hi, None, 1] - x_GT2[:, None, :keys, 0], second, "log", self.time_buckets - 1)
                for lo, hi, keys in strips(x_GT2.shape[1])
            )
            for x_GT2 in batch.layout.pad(times_P2)
        ]


MODELS.register("hstu")(ModelEntry(HSTUConfig, HSTU))
