"""Measurements of the intervals between events: each bucket's term in the attention logits, and its attention.

Suffixes: `L` blocks, `H` heads, `R` buckets of intervals, `G` rows of a group of the layout, `T` places of a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ensue.batches.batch import SequenceBatch
from ensue.introspect.attention import LayerInput, visit_attention
from ensue.introspect.tally import Tally
from ensue.introspect.transformer import transformer_of
from ensue.models.tisasrec import IntervalUnit
from ensue.nn.model import Model
from ensue.nn.relations import LOG_STEP, Relation, TimeRelations


@dataclass(frozen=True, slots=True)
class TimeReport:
    """The buckets of intervals, as means over the newest events of histories.

    Attributes:
        relation: `embedding` or `bias`.
        unit: unit of the edges.
        edges: the smallest interval of each bucket, [R]; the last bucket has no upper edge.
        term: the bucket's term in a logit, [L, H, R]: for `embedding` the mean of q . R^K[r] / sqrt(d) over queries;
            for `bias` the learned scalar, [1, H, R], shared by all blocks. Only differences between buckets matter,
            since a constant does not change a softmax.
        share: attention on the events of the bucket, [L, H, R]. It sums to 1 over buckets, minus the attention on
            padding in models that attend to it (`tisasrec-padded`).
        uniform: the same for equal weights on all events of the history (and on such padding), [R]; 0 for a bucket that
            no history has.
    """

    relation: Relation
    unit: IntervalUnit
    edges: list[float]
    term: list[list[list[float]]]
    share: list[list[list[float]]]
    uniform: list[float]


@runtime_checkable
class ReadsIntervals(Protocol):
    """A model whose attention reads the intervals between events."""

    relations: TimeRelations

    @property
    def interval_unit(self) -> tuple[int, IntervalUnit]:
        """The unit of the intervals, such as 3600 seconds."""
        ...


def time_report(model: Model, *batches: SequenceBatch) -> TimeReport | None:
    """Run a model on histories and measure its buckets of intervals; None for a model that reads no intervals.

    Arguments and errors are those of `attention_report`.
    """
    if not isinstance(model, ReadsIntervals):
        return None
    relations, (size, unit) = model.relations, model.interval_unit
    tally = Tally()
    buckets = relations.time_span + 1

    def add(layer: LayerInput) -> None:
        for newest in layer.newest_attention():
            if newest.bucket_GT is None or newest.terms_GHR is None:
                continue
            share_GHR, uniform_GR = newest.sums(newest.bucket_GT, buckets)
            tally.add(f"share {layer.block}", share_GHR)
            tally.add(f"term {layer.block}", newest.terms_GHR)
            if layer.block == 0:
                tally.add("uniform", uniform_GR)

    visit_attention(model, add, *batches)
    blocks = range(len(transformer_of(model).blocks))
    term = [tally.mean(f"term {block}") for block in blocks]
    if relations.relation == "bias":
        term = [relations.interval_bias.detach().tolist()]
    share = [tally.mean(f"share {block}") for block in blocks]
    return TimeReport(relations.relation, unit, _edges(relations, size), term, share, tally.mean("uniform"))


def _edges(relations: TimeRelations, size: int) -> list[float]:
    """The smallest interval of each bucket, for units of `size`."""
    numbers = range(relations.time_span + 1)
    if relations.kind == "linear":
        return [float(number * size) for number in numbers]
    return [size * math.exp(number * LOG_STEP) if number else 0.0 for number in numbers]
