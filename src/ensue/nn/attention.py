"""Attention by name: which events of a row see which, and at what cost.

A kind of attention receives projected queries, keys and values and returns what each asked event reads. `FullAttention`
is the usual one; the others are in the modules that `ATTENTIONS` lists. docs/models/attention.md has the equations.

Suffixes: `P` events of all rows, `Q` asked events, `G` rows of a group, `H` heads, `T` events of the group's longest
row, `A` asked events of the row that has the most, `D` width, `d` width of a head, `E` queries, keys and values side by
side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ensue.batches.layout import Layout
from ensue.config import Config
from ensue.nn.ops.attention import attention
from ensue.nn.ops.heads import heads_first
from ensue.nn.ops.relation_terms import Relations
from ensue.registry import OWN, Registry


class Heads(NamedTuple):
    """The heads of an attention layer.

    Attributes:
        number: H.
        width: width of a head, d.
        dropout_rate: on the attention weights, in training.
        causal: whether an event sees only itself and the events before it, or all events of its row.
        maxlen: number of events of the longest row.
        layer: number of the layer, from 0.
    """

    number: int
    width: int
    dropout_rate: float
    causal: bool = True
    maxlen: int = 1
    layer: int = 0


Build = Callable[["AttentionConfig", Heads], nn.Module]
_BLOCKS, _POOLED, _KERNELS = "ensue.nn.block_attention", "ensue.nn.pooled_attention", "ensue.nn.kernel_attention"
ATTENTIONS: Registry[Build] = Registry(
    "attention",
    {
        "full": __name__,
        "local": _BLOCKS,
        "strided": _BLOCKS,
        "random": _BLOCKS,
        "hierarchical": _BLOCKS,
        "low-rank": _POOLED,
        "memory": _POOLED,
        "linear": _KERNELS,
        "performer": _KERNELS,
        "content": "ensue.nn.content_attention",
    },
    OWN,
)


class AttentionConfig(Config):
    """Settings of attention."""

    attention: Annotated[str, ATTENTIONS] = Field(
        "full", description="which events see which; kinds other than full cost less for long histories"
    )
    attention_window: int = Field(
        64, ge=1, description="attention other than full and content: events of a window or a block"
    )
    attention_size: int = Field(
        32,
        ge=1,
        description="random, content: events seen of all; performer: features; low-rank, memory: summaries",
    )

    def attend(self, heads: Heads) -> nn.Module:
        """The attention named by `attention`."""
        return ATTENTIONS[self.attention](self, heads)

    def check_full(self, why: str) -> None:
        """Make sure that attention is full.

        Raises:
            ValueError: it is not, and `why` need it.
        """
        if self.attention != "full":
            raise ValueError(f"{why} need attention 'full' (got {self.attention!r})")


class FullAttention(nn.Module):
    """Every event sees every event of its row, or with `causal` those up to itself: O(T T)."""

    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.heads = heads

    def forward(
        self, packed_PE: Tensor, layout: Layout, relations: Relations | None = None, q_QD: Tensor | None = None
    ) -> Tensor:
        """See `nn.ops.attention.attention`."""
        rate = self.heads.dropout_rate if self.training else 0.0
        return attention(packed_PE, layout, self.heads.number, rate, self.heads.causal, relations, q_QD)


class RectangleAttention(nn.Module, ABC):
    """Attention that computes on rectangles, by operations that have a gradient; it reads no relations.

    Under mixed precision it computes in float32, as full attention does.
    """

    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.heads = heads

    @abstractmethod
    def attend(
        self, q_GHAd: Tensor, k_GHTd: Tensor, v_GHTd: Tensor, place_GA: Tensor | None, length_G: Tensor
    ) -> Tensor:
        """What the queries of a rectangle read, [G, H, A, d].

        Args:
            q_GHAd: the queries.
            k_GHTd: the keys of all events; zero for padding, which follows the events of a row.
            v_GHTd: the values, likewise.
            place_GA: the place of each query in its row, 0 for the oldest event; None if all events ask (A = T).
            length_G: number of events of each row.
        """

    def few(self, width: int) -> int:
        """The number of queries of a row of `width` events up to which `attend` is cheaper for these alone."""
        return width

    def forward(
        self, packed_PE: Tensor, layout: Layout, relations: Relations | None = None, q_QD: Tensor | None = None
    ) -> Tensor:
        """Attention within each row of a packed batch; arguments and result of `nn.ops.attention.attention`."""
        count, dtype = self.heads.number, packed_PE.dtype
        wide = torch.promote_types(dtype, torch.float32)
        asked = [None] * len(layout.groups) if q_QD is None else layout.pad_asked(q_QD.to(wide))
        outs = []
        with torch.autocast(packed_PE.device.type, enabled=False):
            for number, x_GTE in enumerate(layout.pad(packed_PE.to(wide))):
                q_GAD, length_G = asked[number], layout.groups[number].length_G
                parts = heads_first(x_GTE, 3 if q_GAD is None else 2, count)
                q_GHAd = parts[0] if q_GAD is None else heads_first(q_GAD, 1, count)[0]
                place_GA = None if layout.asked is None else layout.asked.places[number]
                out_GHAd = self._attend_at(q_GHAd, parts[-2], parts[-1], place_GA, length_G)
                outs.append(out_GHAd.transpose(1, 2).flatten(2))
        return layout.unpad_asked(outs).to(dtype)

    def _attend_at(self, q: Tensor, k: Tensor, v: Tensor, place_GA: Tensor | None, length_G: Tensor) -> Tensor:
        """`attend`; many queries are placed among those of all events, so that the cost is that of all events."""
        if place_GA is None or place_GA.shape[1] <= self.few(k.shape[2]):
            return self.attend(q, k, v, place_GA, length_G)
        # The queries of padding, which are zero, are added to the first place.
        place_GHAd = place_GA[:, None, :, None].expand_as(q)
        everywhere = self.attend(torch.zeros_like(k).scatter_add(2, place_GHAd, q), k, v, None, length_G)
        return everywhere.gather(2, place_GHAd)


def hide(scores: Tensor, is_seen: Tensor) -> Tensor:
    """The scores, and the smallest number where the key is not seen: finite, since padding may see nothing."""
    return scores.masked_fill(~is_seen, torch.finfo(scores.dtype).min)


ATTENTIONS.register("full")(lambda _, heads: FullAttention(heads))
