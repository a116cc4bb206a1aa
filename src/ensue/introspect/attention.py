"""What attention looks at: by age of the key for many histories, and whole maps for one.

Weights are recomputed, in the obvious form, from what enters each attention layer; the layers themselves never keep
them. For many histories only the newest event's query is followed, since recommendations are made from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import Layout
from ensue.introspect.tally import Tally, answer, looking, places_of, trunk_of
from ensue.nn.model import Model
from ensue.nn.ops.attention import strips
from ensue.nn.ops.heads import split_heads
from ensue.nn.ops.relation_terms import Relations
from ensue.nn.self_attention import SelfAttention


@dataclass(frozen=True, slots=True)
class AttentionReport:
    """Where the newest event's attention lies; means over histories.

    Attributes:
        share: attention on the event of each age (0: the newest), by block and head: [L, H, A]. Sums to 1 over ages;
            what a model that attends to padding (`sasrec-padded`) gives to that is missing.
        uniform: what attending to all events of the history, and such padding, alike would give, [A].
    """

    share: list[list[list[float]]]
    uniform: list[float]


@dataclass(frozen=True, slots=True)
class Looked:
    """What entered one attention layer for one batch.

    Attributes:
        block: number of the block, from 0.
        queries_PD: projected queries; keys likewise, both with the position vectors of `relations` in them.
        keys_PD: projected keys.
        layout: the rectangles that the layer sees.
        places_P: where the batch's events are in them; the model's own padding is at the others.
        relations: what is known of pairs of events, or None.
        heads: H.
        causal: whether a query sees no newer key.
    """

    block: int
    queries_PD: Tensor
    keys_PD: Tensor
    layout: Layout
    places_P: Tensor
    relations: Relations | None
    heads: int
    causal: bool

    def newest(self) -> Iterator[NewestLook]:
        """The newest events' attention, one group of the layout after another."""
        both_PE = torch.cat((self.queries_PD, self.keys_PD), -1)
        is_event_P = torch.zeros(len(both_PE), dtype=torch.bool, device=both_PE.device)
        is_event_P[self.places_P] = True
        rectangles = zip(self.layout.pad(both_PE), self.layout.pad(is_event_P), self.layout.groups, strict=True)
        for number, (x_GTE, is_event_GT, group) in enumerate(rectangles):
            q_XTD, k_XTD = split_heads(x_GTE.float(), 2, self.heads)
            place_X = group.length_G.repeat_interleave(self.heads) - 1
            q_X1D = q_XTD[torch.arange(len(place_X), device=place_X.device), place_X][:, None]
            scores_X1T = q_X1D @ k_XTD.transpose(1, 2) * q_X1D.shape[-1] ** -0.5
            bucket_GT = None
            if self.relations is not None:
                bucket_GTT = whole_buckets(self.relations, group.width, number, self.causal)
                bucket_GT = bucket_GTT[torch.arange(group.rows), group.length_G - 1]
            terms_X1R = self.terms(q_X1D)
            if bucket_GT is not None and terms_X1R is not None:
                scores_X1T = scores_X1T + terms_X1R.gather(2, bucket_GT.repeat_interleave(self.heads, 0)[:, None])
            age_GT = group.length_G[:, None] - 1 - torch.arange(group.width, device=place_X.device)
            scores_GHT = scores_X1T.view(group.rows, self.heads, group.width)
            weights_GHT = scores_GHT.masked_fill(age_GT[:, None] < 0, float("-inf")).softmax(-1)
            terms_GHR = None if terms_X1R is None else terms_X1R.view(group.rows, self.heads, -1)
            yield NewestLook(weights_GHT, age_GT, is_event_GT, bucket_GT, terms_GHR)

    def terms(self, q_XQD: Tensor) -> Tensor | None:
        """What each bucket of intervals adds to the queries' logits, [X, Q, R]; X counts rows and heads in them."""
        if self.relations is None:
            return None
        rows = q_XQD.shape[0] // self.heads
        found: Tensor | None = None
        if self.relations.keys_BRD is not None:
            # Outside training the vectors are the same for all rows.
            keys_HRD = split_heads(self.relations.keys_BRD[:1].float(), 1, self.heads)[0]
            found = q_XQD @ keys_HRD.repeat(rows, 1, 1).transpose(1, 2) * q_XQD.shape[-1] ** -0.5
        if self.relations.bias_HR is not None:
            bias = self.relations.bias_HR.float().repeat(rows, 1)[:, None].expand(-1, q_XQD.shape[1], -1)
            found = bias if found is None else found + bias
        return found

    def whole_map(self) -> Tensor:
        """The attention of every place of a batch of one history: [H, T, T], row: query, column: key."""
        both = torch.cat((self.queries_PD, self.keys_PD), -1)[None].float()
        q_HTD, k_HTD = split_heads(both, 2, self.heads)
        scores_HTT = q_HTD @ k_HTD.transpose(1, 2) * q_HTD.shape[-1] ** -0.5
        terms_HTR = self.terms(q_HTD)
        if self.relations is not None and terms_HTR is not None:
            bucket_1TT = whole_buckets(self.relations, scores_HTT.shape[-1], causal=self.causal)
            scores_HTT = scores_HTT + terms_HTR.gather(2, bucket_1TT.expand(self.heads, -1, -1))
        if self.causal:
            future = torch.ones_like(scores_HTT, dtype=torch.bool).triu(1)
            scores_HTT = scores_HTT.masked_fill(future, float("-inf"))
        weights_HTT: Tensor = scores_HTT.softmax(-1)
        return weights_HTT


@dataclass(frozen=True, slots=True)
class NewestLook:
    """One group's newest queries.

    Attributes:
        weights_GHT: their attention.
        age_GT: the keys' ages; negative where a row has no place.
        is_event_GT: whether the key is an event; the other places of a row are the model's own padding.
        bucket_GT: the keys' buckets.
        terms_GHR: what each bucket adds to a logit.
    """

    weights_GHT: Tensor
    age_GT: Tensor
    is_event_GT: Tensor
    bucket_GT: Tensor | None
    terms_GHR: Tensor | None

    def by(self, index_GT: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Attention on events, and that of a uniform look, by an index of them: [G, H, count] and [G, count]."""
        seen_GT = self.age_GT >= 0
        uniform_GT = seen_GT / seen_GT.sum(1, keepdim=True)
        # All else goes to one index more, which is cut off.
        index_GT = index_GT.where(self.is_event_GT, count)
        index_GHT = index_GT[:, None].expand_as(self.weights_GHT)
        share = self.weights_GHT.new_zeros(*self.weights_GHT.shape[:2], count + 1).scatter_add_(
            2, index_GHT, self.weights_GHT
        )
        uniform = uniform_GT.new_zeros(len(uniform_GT), count + 1).scatter_add_(1, index_GT, uniform_GT)
        return share[..., :count], uniform[..., :count]


def whole_buckets(relations: Relations, width: int, group: int = 0, causal: bool = True) -> Tensor:
    """The buckets of all pairs of a group `width` events wide, [G, T, T], from its strips; 0 where there is none."""
    cuts, parts = strips(width, causal), relations.buckets[group]
    whole_GTT = parts[0].new_zeros(len(parts[0]), width, width)
    for (lo, hi, keys), bucket_GQK in zip(cuts, parts, strict=True):
        whole_GTT[:, lo:hi, :keys] = bucket_GQK
    return whole_GTT


def attention_report(model: Model, *batches: SequenceBatch) -> AttentionReport:
    """Run a model over histories and measure where the newest events' attention lies.

    Args:
        model: an encoder with a `Trunk`.
        batches: histories, at least one; on the model's device.

    Raises:
        ConfigError: the model has no trunk.
        DataError: the batches lack the times that the model reads.
    """
    ages = max(int(batch.lengths_B.max()) for batch in batches)
    tally = Tally()

    def count(looked: Looked) -> None:
        for look in looked.newest():
            share_GHA, uniform_GA = look.by(look.age_GT, ages)
            tally.add(f"share {looked.block}", share_GHA)
            if looked.block == 0:
                tally.add("uniform", uniform_GA)

    watch_attention(model, count, *batches)
    blocks = len(trunk_of(model).blocks)
    return AttentionReport([tally.mean(f"share {block}") for block in range(blocks)], tally.mean("uniform"))


def attention_maps(model: Model, history: SequenceBatch) -> list[Tensor]:
    """Every block's attention over one history, [H, T, T] each; row: query, column: key, oldest first, events alone.

    Raises:
        ConfigError: the model has no trunk.
        DataError: the history lacks the times that the model reads.
    """
    maps: list[Tensor] = []
    events = len(history.items_P)
    watch_attention(model, lambda looked: maps.append(looked.whole_map()[:, -events:, -events:].cpu()), history)
    return maps


def watch_attention(model: Model, look: Callable[[Looked], None], *batches: SequenceBatch) -> None:
    """Run a model over histories; `look` is called for every block and batch."""
    trunk = trunk_of(model)
    layers = [block.attention for block in trunk.blocks]
    with looking(model):
        for batch in (each.asking_all() for each in batches):
            with _hooked(layers, batch, look):
                answer(model, batch)


@contextmanager
def _hooked(layers: list[Any], batch: SequenceBatch, look: Callable[[Looked], None]) -> Iterator[None]:
    handles = []
    for number, layer in enumerate(layers):

        def hook(layer: SelfAttention, args: Any, kwargs: Any, output: Any, number: int = number) -> None:
            look(_looked(number, layer, batch, inspect.signature(layer.forward).bind(*args, **kwargs).arguments))

        handles.append(layer.register_forward_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _looked(block: int, layer: SelfAttention, batch: SequenceBatch, given: dict[str, Any]) -> Looked:
    """Queries and keys from an attention layer's arguments, as the layer makes them."""
    x_PD, layout, relations = given["x_PD"], given["layout"], given.get("relations")
    q_PD, packed_PE = layer.project(given["query_QD"], x_PD, layout)
    if q_PD is None:
        q_PD, packed_PE = packed_PE.tensor_split([x_PD.shape[1]], 1)
    elif layout.asked_Q is not None:
        # A model that fills its rows asks its real events alone; nothing is looked up at the padding.
        q_PD = q_PD.new_zeros(x_PD.shape).index_copy(0, layout.asked_Q, q_PD)
    k_PD, _ = packed_PE.chunk(2, -1)
    if relations is not None and relations.position_PE is not None:
        k_PD = k_PD + relations.position_PE.chunk(3, -1)[1]
    return Looked(block, q_PD, k_PD, layout, places_of(batch, layout), relations, layer.num_heads, layer.causal)
