"""Attention by blocks: an event sees the events near it exactly, and of the others only some, or summaries.

A row is cut into blocks of W events, from the oldest. Near an event are the events of its own block and of the block
before it (and without `causal`, after it); the kinds differ in what they read of the far blocks. One softmax covers
both, so an event costs about 2 W + M products, whatever the length of its row.

Suffixes: `G` rows of a group, `H` heads, `T` events of the group's longest row, `N` blocks, `A` asked events of the row
that has the most, `B` blocks of queries: N blocks of W queries or A of one, `W` queries of a block, `K` near events,
`M` far keys, `d` width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ensue.nn.attention import ATTENTIONS, AttentionConfig, Heads, RectangleAttention, hide
from ensue.nn.dropout import Dropout
from ensue.rng import stream


@dataclass(frozen=True, slots=True)
class Places:
    """The queries of a rectangle, by blocks.

    Attributes:
        block_GB: the block of each block of queries; one row if the same for all rows.
        place_GBW: the place of each query in its row, likewise.
        length_G: number of events of each row.
        all_ask: whether the queries are those of all events, W to a block.
    """

    block_GB: Tensor
    place_GBW: Tensor
    length_G: Tensor
    all_ask: bool

    def pick(self, x_GHN: Tensor) -> Tensor:
        """Of values for every block, [G or 1, H or 1, N, ...], those of the queries' blocks: [G, H, B, ...]."""
        if self.all_ask:
            return x_GHN
        row_G1 = torch.arange(len(self.block_GB), device=self.block_GB.device)[:, None]
        return x_GHN.expand(len(row_G1), *x_GHN.shape[1:]).transpose(1, 2)[row_G1, self.block_GB].transpose(1, 2)

    def is_far(self, blocks: int, causal: bool) -> Tensor:
        """Whether a block is far from the queries' block and may be seen, [G, B, N]."""
        beyond_GBN = self.block_GB[:, :, None] - torch.arange(blocks, device=self.block_GB.device)
        return beyond_GBN > 1 if causal else beyond_GBN.abs() > 1


class Far:
    """What blocks of queries read besides the near events.

    Args:
        k_GHBMd: keys of each block of queries.
        v_GHBMd: values.
        bias_GHBWM: added to the scores; sizes of one are broadcast.
        is_visible_GHBWM: which keys are seen, likewise.
    """

    def __init__(self, k_GHBMd: Tensor, v_GHBMd: Tensor, bias_GHBWM: Tensor | None, is_visible_GHBWM: Tensor) -> None:
        self.k, self.v, self.bias, self.is_visible = k_GHBMd, v_GHBMd, bias_GHBWM, is_visible_GHBWM

    def scores(self, q_GHBWd: Tensor) -> Tensor:
        """The scaled scores of the queries, [G, H, B, W, M]."""
        scores = self.products(q_GHBWd) * q_GHBWd.shape[-1] ** -0.5
        if self.bias is not None:
            scores = scores + self.bias
        return hide(scores, self.is_visible)

    def products(self, q_GHBWd: Tensor) -> Tensor:
        """Queries times keys."""
        return q_GHBWd @ self.k.transpose(-1, -2)

    def read(self, weights_GHBWM: Tensor) -> Tensor:
        """Weights times values, [G, H, B, W, d]."""
        return weights_GHBWM @ self.v


class SharedFar(Far):
    """Far keys and values that are the same for all blocks of queries: B is 1 in keys and values."""

    def products(self, q_GHBWd: Tensor) -> Tensor:
        """Queries times keys, without a copy of the keys for each block."""
        return torch.unflatten(q_GHBWd.flatten(2, 3) @ self.k[:, :, 0].transpose(-1, -2), 2, q_GHBWd.shape[2:4])

    def read(self, weights_GHBWM: Tensor) -> Tensor:
        """Weights times values."""
        return torch.unflatten(weights_GHBWM.flatten(2, 3) @ self.v[:, :, 0], 2, weights_GHBWM.shape[2:4])


class FarByPlace(Far):
    """Far keys and values for each place within a block instead of each block, [G, H, W, M, d]."""

    def products(self, q_GHBWd: Tensor) -> Tensor:
        """Queries times keys."""
        return (q_GHBWd.transpose(2, 3) @ self.k.transpose(-1, -2)).transpose(2, 3)

    def read(self, weights_GHBWM: Tensor) -> Tensor:
        """Weights times values."""
        return (weights_GHBWM.transpose(2, 3) @ self.v).transpose(2, 3)


class WindowAttention(RectangleAttention):
    """Attention that cuts rows into windows.

    Args:
        heads: the heads.
        window: W, the number of events of a window.
    """

    def __init__(self, heads: Heads, window: int) -> None:
        super().__init__(heads)
        self.window = window


class BlockAttention(WindowAttention):
    """softmax over the near events and what `far` returns; arguments as of `WindowAttention`."""

    def __init__(self, heads: Heads, window: int) -> None:
        super().__init__(heads, window)
        self.dropout = Dropout(heads.dropout_rate)

    def far(self, k_GHNWd: Tensor, v_GHNWd: Tensor, places: Places) -> Far | None:
        """What the queries read of the far blocks; by default nothing.

        Args:
            k_GHNWd: the keys of all blocks; zero for padding.
            v_GHNWd: the values, likewise.
            places: the blocks and places of the queries.
        """
        return None

    def few(self, width: int) -> int:
        """The number of blocks: a query alone reads as much as a block of queries does together."""
        return math.ceil(width / self.window)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, place_GA: Tensor | None, length_G: Tensor) -> Tensor:
        """See `RectangleAttention.attend`."""
        width = k.shape[2]
        blocks = math.ceil(width / self.window)
        size = self.window if blocks > 1 else width
        k_GHNWd, v_GHNWd = (cut(x, blocks, size) for x in (k, v))
        if place_GA is None:
            q_GHBWd = cut(q, blocks, size)
            place_1T = torch.arange(blocks * size, device=q.device)[None]
            places = Places(place_1T[:, ::size] // size, torch.unflatten(place_1T, 1, (blocks, size)), length_G, True)
        else:
            q_GHBWd, places = q[:, :, :, None], Places(place_GA // size, place_GA[..., None], length_G, False)
        out = self._softmax(q_GHBWd, k_GHNWd, v_GHNWd, places)
        return out[:, :, :, 0] if place_GA is not None else out.flatten(2, 3)[:, :, :width]

    def _softmax(self, q: Tensor, k: Tensor, v: Tensor, places: Places) -> Tensor:
        """What blocks of queries read, [G, H, B, W, d], from the keys and values of all blocks."""
        offsets = (-1, 0, 1)[: 2 if self.heads.causal else 3] if k.shape[2] > 1 else (0,)
        near_k, near_v = (places.pick(beside(x, offsets)) for x in (k, v))
        is_near = self._is_near(places, offsets, k.shape[3])[:, None]
        scores = q @ near_k.transpose(-1, -2) * q.shape[-1] ** -0.5
        scores = hide(scores, is_near)
        far = self.far(k, v, places)
        if far is None:
            near: Tensor = self.dropout(scores.softmax(-1)) @ near_v
            return near
        weights = self.dropout(torch.cat((scores, far.scores(q)), -1).softmax(-1))
        near_weights, far_weights = weights.tensor_split([scores.shape[-1]], -1)
        both: Tensor = near_weights @ near_v + far.read(far_weights)
        return both

    def _is_near(self, places: Places, offsets: tuple[int, ...], size: int) -> Tensor:
        """Whether each of the events beside a query is seen as near, [G, B, W, K]."""
        step_K = torch.arange(offsets[0] * size, (offsets[-1] + 1) * size, device=places.block_GB.device)
        key_GBK = places.block_GB[:, :, None] * size + step_K
        key_GB1K, query_GBW1 = key_GBK[:, :, None], places.place_GBW[..., None]
        if self.heads.causal:
            return (key_GB1K >= 0) & (key_GB1K <= query_GBW1) & self.is_inside(query_GBW1 - key_GB1K)
        is_event = (key_GB1K >= 0) & (key_GB1K < places.length_G[:, None, None, None])
        return is_event & self.is_inside((query_GBW1 - key_GB1K).abs())

    def is_inside(self, distance: Tensor) -> Tensor:
        """Whether an event of the blocks beside a query is seen, by its distance: by default all are."""
        return torch.ones_like(distance, dtype=torch.bool)


class LocalAttention(BlockAttention):
    """An event sees the newest W events up to itself, without `causal` also the W - 1 after it: O(T W).

    Source: Beltagy, Peters & Cohan, Longformer, 2020 (arXiv 2004.05150), section 3.1.
    """

    def is_inside(self, distance: Tensor) -> Tensor:
        """Less than W away."""
        return distance < self.window


class StridedAttention(BlockAttention):
    """Near events, and of the far ones those at a multiple of W events away: O(T (W + T / W)).

    Source: Child, Gray, Radford & Sutskever, Sparse Transformers, 2019 (arXiv 1904.10509), the strided pattern.
    """

    def far(self, k_GHNWd: Tensor, v_GHNWd: Tensor, places: Places) -> Far | None:
        """The events of the far blocks at the same place within their block."""
        _, _, blocks, size, _ = k_GHNWd.shape
        if blocks <= 2:
            return None
        k_GHWNd, v_GHWNd = k_GHNWd.transpose(2, 3), v_GHNWd.transpose(2, 3)
        is_far = places.is_far(blocks, self.heads.causal)[:, None, :, None]
        if not self.heads.causal:
            key_WN = torch.arange(blocks * size, device=k_GHNWd.device).view(blocks, size).T
            within_GBWN = key_WN[places.place_GBW % size] < places.length_G[:, None, None, None]
            is_far = is_far & within_GBWN[:, None]
        if places.all_ask:
            return FarByPlace(k_GHWNd, v_GHWNd, None, is_far)
        own = Places(places.place_GBW[..., 0] % size, places.place_GBW, places.length_G, False)
        return Far(own.pick(k_GHWNd), own.pick(v_GHWNd), None, is_far)


@lru_cache(maxsize=1 << 14)
def draw(layer: int, block: int, window: int, size: int, last: int) -> np.ndarray:
    """At most `size` places before `last` that are far from a block, drawn without repeats; -1 fills the rest."""
    far = np.r_[0 : min(max((block - 1) * window, 0), last), min((block + 2) * window, last) : last]
    places = np.full(size, -1)
    drawn = stream(0, "random attention", layer, block).permutation(far)[:size]
    places[: len(drawn)] = drawn
    return places


class RandomAttention(BlockAttention):
    """Near events, and M random events of the far blocks, the same for all queries of a block: O(T (W + M)).

    The draws are a function of the layer and the block. Without `causal` they are from all `maxlen` places, so a short
    row sees fewer.

    Source: Zaheer et al., Big Bird, NeurIPS 2020, without its global events.
    """

    def __init__(self, heads: Heads, window: int, size: int) -> None:
        super().__init__(heads, window)
        self.size = size

    def far(self, k_GHNWd: Tensor, v_GHNWd: Tensor, places: Places) -> Far | None:
        """The drawn events."""
        rows, heads, blocks, size, width = k_GHNWd.shape
        if blocks <= 2:
            return None
        last = [max((block - 1) * size, 0) if self.heads.causal else self.heads.maxlen for block in range(blocks)]
        drawn = [draw(self.heads.layer, block, size, self.size, last[block]) for block in range(blocks)]
        drawn_NM = torch.from_numpy(np.stack(drawn)).to(k_GHNWd.device)
        drawn_GBM = drawn_NM[places.block_GB]
        is_visible = (drawn_GBM >= 0) & (drawn_GBM < places.length_G[:, None, None])
        at = drawn_GBM.clamp(0, blocks * size - 1).flatten(1)[:, None, :, None].expand(rows, heads, -1, width)
        k, v = (torch.unflatten(x.flatten(2, 3).gather(2, at), 2, drawn_GBM.shape[1:]) for x in (k_GHNWd, v_GHNWd))
        return Far(k, v, None, is_visible[:, None, :, None])


class HierarchicalAttention(BlockAttention):
    """Near events, and a summary of each far block: the mean of its keys and of its values, O(T (W + T / W)).

    A summary of n events counts like n events: log n is added to its score. If the keys of each block are equal, the
    result is that of full attention.

    Source: Zhu & Soricut, H-Transformer-1D, ACL 2021, with two levels.
    """

    def far(self, k_GHNWd: Tensor, v_GHNWd: Tensor, places: Places) -> Far | None:
        """The summaries."""
        blocks, size = k_GHNWd.shape[2:4]
        if blocks <= 2:
            return None
        first_N = torch.arange(blocks, device=k_GHNWd.device) * size
        count_GN = (places.length_G[:, None] - first_N).clamp(0, size)
        share_GN = count_GN.clamp(min=1).to(k_GHNWd.dtype)
        k, v = ((x.sum(3) / share_GN[:, None, :, None])[:, :, None] for x in (k_GHNWd, v_GHNWd))
        is_visible = places.is_far(blocks, self.heads.causal) & (count_GN > 0)[:, None]
        return SharedFar(k, v, share_GN.log()[:, None, None, None], is_visible[:, None, :, None])


def cut(x_GHTd: Tensor, blocks: int, size: int) -> Tensor:
    """Cut events into blocks, [G, H, N, W, d]; the last one is filled with zeros."""
    missing = blocks * size - x_GHTd.shape[2]
    return torch.unflatten(F.pad(x_GHTd, (0, 0, 0, missing)), 2, (blocks, size))


def beside(x_GHNWd: Tensor, offsets: tuple[int, ...]) -> Tensor:
    """The events of the blocks at consecutive offsets from each block, [G, H, N, K, d]; zeros beyond the ends."""
    before, after = -offsets[0], offsets[-1]
    padded = F.pad(x_GHNWd, (0, 0, 0, 0, before, after))
    blocks = x_GHNWd.shape[2]
    return torch.cat([padded[:, :, number : number + blocks] for number in range(len(offsets))], 3)


def _random(config: AttentionConfig, heads: Heads) -> RandomAttention:
    return RandomAttention(heads, config.attention_window, config.attention_size)


ATTENTIONS.register("local")(lambda config, heads: LocalAttention(heads, config.attention_window))
ATTENTIONS.register("strided")(lambda config, heads: StridedAttention(heads, config.attention_window))
ATTENTIONS.register("random")(_random)
ATTENTIONS.register("hierarchical")(lambda config, heads: HierarchicalAttention(heads, config.attention_window))
