"""Attention to a fixed number of summaries of the far events: `low-rank` and `memory`.

Every event spreads a weight of one over M summaries. A summary is the weighted mean of the keys, and of the values, of
the events so far, up to the blocks that are near (`nn.block_attention`); its weight sum counts like a number of events.

Suffixes: `G` rows of a group, `H` heads, `N` blocks, `W` events of a block, `M` summaries, `T` places, `B` blocks of
queries, `d` width of a head.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.nn.attention import ATTENTIONS, AttentionConfig, Heads
from ensue.nn.block_attention import BlockAttention, Far, Places, SharedFar


class PooledAttention(BlockAttention):
    """Near events, and M summaries of the events of the far blocks before: O(T (W + M)).

    Without `causal` the summaries are those of all events of the row.
    """

    @abstractmethod
    def shares(self, k_GHNWd: Tensor) -> Tensor:
        """The share of each event in each summary, [G or 1, H or 1, N, W, M]; the sum over summaries is one."""

    def far(self, k_GHNWd: Tensor, v_GHNWd: Tensor, places: Places) -> Far | None:
        """The summaries."""
        blocks, size, width = k_GHNWd.shape[2:]
        if self.heads.causal and blocks <= 2:
            return None
        # A column of ones gives the sums of the shares.
        one = k_GHNWd.new_ones(1).expand(*k_GHNWd.shape[:4], 1)
        kv1 = torch.cat((k_GHNWd, v_GHNWd, one), -1)
        share = self.shares(k_GHNWd)
        if self.heads.causal:
            sums = (share.transpose(-1, -2) @ kv1).cumsum(2)
            sums = places.pick(F.pad(sums, (0, 0, 0, 0, 2, 0))[:, :, :-2])
        else:
            place_NW = torch.arange(blocks * size, device=k_GHNWd.device).view(blocks, size)
            is_event = place_NW < places.length_G[:, None, None]
            sums = (share * is_event[:, None, :, :, None]).transpose(-1, -2) @ kv1
            sums = sums.sum(2, keepdim=True)
        k, v, mass = sums.tensor_split([width, 2 * width], -1)
        mass = mass.clamp(min=torch.finfo(mass.dtype).tiny)
        bias = mass.log().transpose(-1, -2)
        if not self.heads.causal:
            return SharedFar(k / mass, v / mass, bias, torch.ones_like(bias, dtype=torch.bool))
        return Far(k / mass, v / mass, bias, (places.block_GB > 1)[:, None, :, None, None])


class LowRankAttention(PooledAttention):
    """An event's shares depend on its place: softmax over summaries of a learned matrix [M, maxlen].

    Source: Wang et al., Linformer, 2020 (arXiv 2006.04768): keys and values are projected along the history to M rows.
    There the projection is any matrix and sees the future.
    """

    def __init__(self, heads: Heads, window: int, size: int) -> None:
        super().__init__(heads, window)
        self.projection_MT = nn.Parameter(torch.empty(size, heads.maxlen))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the logits from the standard normal distribution, so that summaries differ from the start."""
        self.projection_MT.normal_(generator=generator)

    def shares(self, k_GHNWd: Tensor) -> Tensor:
        """By the place of an event in its row."""
        blocks, size = k_GHNWd.shape[2:4]
        logits_MT = self.projection_MT[:, : blocks * size]
        logits_MT = F.pad(logits_MT, (0, blocks * size - logits_MT.shape[1]))
        share: Tensor = logits_MT.to(k_GHNWd.dtype).softmax(0)
        return torch.unflatten(share, 1, (blocks, size)).permute(1, 2, 0)[None, None]


class MemoryAttention(PooledAttention):
    """An event's shares depend on its key: softmax over the products of its key with M learned slots of each head.

    Source: Peng et al., Attention with Bounded-Memory Control, ACL 2022, with learned slots.
    """

    def __init__(self, heads: Heads, window: int, size: int) -> None:
        super().__init__(heads, window)
        self.slots_HMd = nn.Parameter(torch.empty(heads.number, size, heads.width))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the slots from the standard normal distribution, so that they differ from the start."""
        self.slots_HMd.normal_(generator=generator)

    def shares(self, k_GHNWd: Tensor) -> Tensor:
        """By the key of an event."""
        slots_HNdM = self.slots_HMd.to(k_GHNWd.dtype).transpose(1, 2)[:, None]
        share: Tensor = (k_GHNWd @ slots_HNdM * k_GHNWd.shape[-1] ** -0.5).softmax(-1)
        return share


def _low_rank(config: AttentionConfig, heads: Heads) -> LowRankAttention:
    return LowRankAttention(heads, config.attention_window, config.attention_size)


def _memory(config: AttentionConfig, heads: Heads) -> MemoryAttention:
    return MemoryAttention(heads, config.attention_window, config.attention_size)


ATTENTIONS.register("low-rank")(_low_rank)
ATTENTIONS.register("memory")(_memory)
