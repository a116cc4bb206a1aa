"""Attention to the events with the best scores, chosen by a cheap estimate of the scores.

Suffixes: `G` rows of a group, `H` heads, `T` events of the group's longest row, `A` asked events of the row that has
the most, `K` chosen events, `X` events of all rows and heads, `d` width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ensue.nn.attention import ATTENTIONS, AttentionConfig, Heads, RectangleAttention, hide
from ensue.nn.dropout import Dropout

# Columns of a head that the cheap score reads.
CHEAP = 8
# Queries whose cheap scores are computed at once.
STRIP = 128


class ContentAttention(RectangleAttention):
    """An event sees itself and the K - 1 events with the highest cheap score: the product of the first 8 columns.

    The choice compares all pairs, O(T T) but with 8 columns and without a gradient; the attention, its gradient and its
    memory are O(T K).

    Source: Gupta et al., Memory-efficient Transformers via Top-k Attention, 2021 (arXiv 2106.06899), there by the
    exact scores.
    """

    def __init__(self, heads: Heads, size: int) -> None:
        super().__init__(heads)
        self.size = size
        self.dropout = Dropout(heads.dropout_rate)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, place_GA: Tensor | None, length_G: Tensor) -> Tensor:
        """See `RectangleAttention.attend`."""
        if place_GA is None:
            place_GA = torch.arange(k.shape[2], device=k.device).expand(len(k), -1)
        outs = [
            self._strip(q_GHAd, k, v, place, length_G)
            for q_GHAd, place in zip(torch.split(q, STRIP, 2), torch.split(place_GA, STRIP, 1), strict=True)
        ]
        return torch.cat(outs, 2)

    def _strip(self, q: Tensor, k: Tensor, v: Tensor, place_GA: Tensor, length_G: Tensor) -> Tensor:
        """What some of the queries read."""
        chosen_GHAK, is_seen_GHAK = self._choose(q, k, place_GA, length_G)
        near_k, near_v = _take(k, chosen_GHAK), _take(v, chosen_GHAK)
        scores = (q[..., None, :] @ near_k.transpose(-1, -2)).squeeze(-2) * q.shape[-1] ** -0.5
        weights: Tensor = self.dropout(hide(scores, is_seen_GHAK).softmax(-1))
        return (weights[..., None, :] @ near_v).squeeze(-2)

    @torch.no_grad()
    def _choose(self, q: Tensor, k: Tensor, place_GA: Tensor, length_G: Tensor) -> tuple[Tensor, Tensor]:
        """The places of the chosen events, [G, H, A, K], and whether they may be seen."""
        cheap = q[..., :CHEAP] @ k[..., :CHEAP].transpose(-1, -2)
        key_T = torch.arange(k.shape[2], device=k.device)
        if self.heads.causal:
            is_hidden_GAT = key_T > place_GA[..., None]
        else:
            is_hidden_GAT = (key_T >= length_G[:, None, None]).expand(-1, place_GA.shape[1], -1)
        own_GAT = key_T == place_GA[..., None]
        cheap.masked_fill_(is_hidden_GAT[:, None], float("-inf")).masked_fill_(own_GAT[:, None], float("inf"))
        best, chosen_GHAK = cheap.topk(min(self.size, k.shape[2]), sorted=False)
        return chosen_GHAK, best > float("-inf")


def _take(x_GHTd: Tensor, place_GHAK: Tensor) -> Tensor:
    """The vectors at these places, [G, H, A, K, d]."""
    rows, heads, width, size = x_GHTd.shape
    first_GH = torch.arange(rows * heads, device=x_GHTd.device).view(rows, heads, 1, 1) * width
    x_Xd = x_GHTd.reshape(-1, size)
    return x_Xd.index_select(0, (place_GHAK + first_GH).flatten()).view(*place_GHAK.shape, size)


def _content(config: AttentionConfig, heads: Heads) -> ContentAttention:
    return ContentAttention(heads, config.attention_size)


ATTENTIONS.register("content")(_content)
