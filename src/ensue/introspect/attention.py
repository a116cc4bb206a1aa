"""Attention weights: by age of the key for many histories, and as complete maps for one history.

Layers do not keep their attention weights. They are recomputed here, in the direct form, from each layer's inputs. For
many histories only the queries of the newest events are used, since recommendations are made from them.

Suffixes: `B` rows, `P` events of all rows, `G` rows of a group of the layout, `T` places of a row, `X` rows and heads
(G * H), `Q` queries, `K` keys, `A` ages, `R` buckets of intervals, `H` heads, `L` blocks, `D` width, `E` queries and
keys together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import Layout
from ensue.errors import ConfigError
from ensue.introspect.tally import Tally
from ensue.introspect.transformer import evaluating, event_places, transformer_of
from ensue.nn.attention import FullAttention
from ensue.nn.model import Model
from ensue.nn.ops.attention import strips
from ensue.nn.ops.heads import split_heads
from ensue.nn.ops.relation_terms import Relations
from ensue.nn.self_attention import SelfAttention


@dataclass(frozen=True, slots=True)
class AttentionReport:
    """The attention of the newest events; means over histories.

    Attributes:
        share: attention on the event of each age (0: the newest), by block and head, [L, H, A]. It sums to 1 over ages,
            minus the attention on padding in models that attend to it (`sasrec-padded`).
        uniform: the same for equal weights on all events of the history (and on such padding), [A].
    """

    share: list[list[list[float]]]
    uniform: list[float]


@dataclass(frozen=True, slots=True)
class LayerInput:
    """The input of one attention layer for one batch.

    Attributes:
        block: number of the block, from 0.
        queries_PD: projected queries.
        keys_PD: projected keys, with the position vectors of `relations`.
        layout: the rectangles that the layer computes on.
        places_P: the places of the batch's events in them; the other places are the model's own padding.
        relations: the relations between pairs of events, or None.
        heads: H.
        causal: whether a query attends only to its own and older events.
    """

    block: int
    queries_PD: Tensor
    keys_PD: Tensor
    layout: Layout
    places_P: Tensor
    relations: Relations | None
    heads: int
    causal: bool

    def newest_attention(self) -> Iterator[NewestAttention]:
        """The attention of the newest events, for one group of the layout after another."""
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
            yield NewestAttention(weights_GHT, age_GT, is_event_GT, bucket_GT, terms_GHR)

    def terms(self, q_XQD: Tensor) -> Tensor | None:
        """The term that each bucket of intervals adds to the logits of queries, [X, Q, R]; None without relations."""
        if self.relations is None:
            return None
        rows = q_XQD.shape[0] // self.heads
        terms_XQR: Tensor | None = None
        if self.relations.keys_BRD is not None:
            # Outside training all rows have the same vectors.
            keys_HRD = split_heads(self.relations.keys_BRD[:1].float(), 1, self.heads)[0]
            terms_XQR = q_XQD @ keys_HRD.repeat(rows, 1, 1).transpose(1, 2) * q_XQD.shape[-1] ** -0.5
        if self.relations.bias_HR is not None:
            bias_XQR = self.relations.bias_HR.float().repeat(rows, 1)[:, None].expand(-1, q_XQD.shape[1], -1)
            terms_XQR = bias_XQR if terms_XQR is None else terms_XQR + bias_XQR
        return terms_XQR

    def whole_map(self) -> Tensor:
        """The attention between all places of a batch of one history, [H, T, T]; row: query, column: key."""
        both_1TE = torch.cat((self.queries_PD, self.keys_PD), -1)[None].float()
        q_HTD, k_HTD = split_heads(both_1TE, 2, self.heads)
        scores_HTT = q_HTD @ k_HTD.transpose(1, 2) * q_HTD.shape[-1] ** -0.5
        terms_HTR = self.terms(q_HTD)
        if self.relations is not None and terms_HTR is not None:
            bucket_1TT = whole_buckets(self.relations, scores_HTT.shape[-1], causal=self.causal)
            scores_HTT = scores_HTT + terms_HTR.gather(2, bucket_1TT.expand(self.heads, -1, -1))
        if self.causal:
            future_HTT = torch.ones_like(scores_HTT, dtype=torch.bool).triu(1)
            scores_HTT = scores_HTT.masked_fill(future_HTT, float("-inf"))
        weights_HTT: Tensor = scores_HTT.softmax(-1)
        return weights_HTT


@dataclass(frozen=True, slots=True)
class NewestAttention:
    """The attention of the newest events of one group.

    Attributes:
        weights_GHT: attention weights.
        age_GT: ages of the keys; negative where a row has no place.
        is_event_GT: whether the key is an event; the other places of a row are the model's own padding.
        bucket_GT: buckets of the keys' intervals, or None.
        terms_GHR: the term that each bucket adds to a logit, or None.
    """

    weights_GHT: Tensor
    age_GT: Tensor
    is_event_GT: Tensor
    bucket_GT: Tensor | None
    terms_GHR: Tensor | None

    def sums(self, index_GT: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Sum attention, and uniform attention, over the events of each index: [G, H, count] and [G, count]."""
        has_place_GT = self.age_GT >= 0
        uniform_GT = has_place_GT / has_place_GT.sum(1, keepdim=True)
        # Places without an event get an extra index, which is dropped.
        index_GT = index_GT.where(self.is_event_GT, count)
        index_GHT = index_GT[:, None].expand_as(self.weights_GHT)
        shape = (*self.weights_GHT.shape[:2], count + 1)
        share = self.weights_GHT.new_zeros(shape).scatter_add_(2, index_GHT, self.weights_GHT)
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
    """Run a model on histories and measure the attention of their newest events.

    Args:
        model: a model with a `Trunk`.
        batches: histories, at least one, on the model's device.

    Raises:
        ConfigError: the model has no trunk.
        DataError: the batches lack the times that the model reads.
    """
    ages = max(int(batch.lengths_B.max()) for batch in batches)
    tally = Tally()

    def add(layer: LayerInput) -> None:
        for newest in layer.newest_attention():
            share_GHA, uniform_GA = newest.sums(newest.age_GT, ages)
            tally.add(f"share {layer.block}", share_GHA)
            if layer.block == 0:
                tally.add("uniform", uniform_GA)

    visit_attention(model, add, *batches)
    blocks = range(len(transformer_of(model).blocks))
    return AttentionReport([tally.mean(f"share {block}") for block in blocks], tally.mean("uniform"))


def attention_maps(model: Model, history: SequenceBatch) -> list[Tensor]:
    """The attention of every block between the events of one history, [H, T, T] each; row: query, column: key.

    Args:
        model: a model with a `Trunk`.
        history: a batch of one row, oldest event first.

    Raises:
        ConfigError: the model has no trunk.
        DataError: the history lacks the times that the model reads.
    """
    maps: list[Tensor] = []
    events = len(history.items_P)
    visit_attention(model, lambda layer: maps.append(layer.whole_map()[:, -events:, -events:].cpu()), history)
    return maps


def visit_attention(model: Model, visit: Callable[[LayerInput], None], *batches: SequenceBatch) -> None:
    """Run a model on histories and call `visit` with the input of every attention layer, for every batch.

    Raises:
        ConfigError: the model has no trunk, or another attention than the full one.
        DataError: the batches lack the times that the model reads.
    """
    transformer = transformer_of(model)
    if not all(isinstance(block.attention.kind, FullAttention) for block in transformer.blocks):
        raise ConfigError("only full attention has weights for all pairs of events: inspect needs attention 'full'")
    with evaluating(model):
        for batch in (each.asking_all() for each in batches):
            with ExitStack() as hooks:
                for number, block in enumerate(transformer.blocks):
                    hooks.enter_context(_hook(number, block.attention, batch, visit))
                transformer.run(batch)


def _hook(number: int, layer: SelfAttention, batch: SequenceBatch, visit: Callable[[LayerInput], None]) -> Any:
    """Call `visit` whenever the layer is called; the handle is a context manager that removes the hook."""

    def hook(_: nn.Module, given: tuple[Tensor, Tensor, Layout, Relations | None]) -> None:
        visit(_layer_input(number, layer, batch, *given))

    return layer.register_forward_pre_hook(hook)


def _layer_input(
    block: int,
    layer: SelfAttention,
    batch: SequenceBatch,
    query_QD: Tensor,
    x_PD: Tensor,
    layout: Layout,
    relations: Relations | None,
) -> LayerInput:
    """Project queries and keys as the layer does."""
    q_PD, packed_PE = layer.project(query_QD, x_PD, layout)
    if q_PD is None:
        q_PD, packed_PE = packed_PE.tensor_split([x_PD.shape[1]], 1)
    elif layout.asked_Q is not None:
        # In a model that pads its rows only real events are asked; the queries of padding are not used.
        q_PD = q_PD.new_zeros(x_PD.shape).index_copy(0, layout.asked_Q, q_PD)
    k_PD, _ = packed_PE.chunk(2, -1)
    if relations is not None and relations.position_PE is not None:
        k_PD = k_PD + relations.position_PE.chunk(3, -1)[1]
    return LayerInput(block, q_PD, k_PD, layout, event_places(batch, layout), relations, layer.num_heads, layer.causal)
