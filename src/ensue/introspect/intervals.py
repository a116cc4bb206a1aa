"""What a model learned of the time between events: its buckets' terms, and the attention they get."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ensue.batches.batch import SequenceBatch
from ensue.introspect.attention import Looked, watch_attention
from ensue.introspect.tally import Tally, trunk_of
from ensue.models.tisasrec import IntervalUnit
from ensue.nn.model import Model
from ensue.nn.relations import LOG_STEP, Relation, TimeRelations


@dataclass(frozen=True, slots=True)
class TimeReport:
    """The buckets of intervals; means over the newest events of histories.

    Attributes:
        relation: `embedding` or `bias`.
        unit: of the edges; a row's own smallest gap, where the model measures in that.
        edges: the least interval of each bucket, [R]; the last bucket has no upper end.
        term: what the bucket adds to a logit, [L, H, R]: for `embedding` the mean of q . R^K[r] / sqrt(d) over
            queries; for `bias` the learned scalar, [1, H, R], shared by all blocks. Only differences between
            buckets matter, for softmax takes no notice of a constant.
        share: attention on the events of the bucket, [L, H, R]. Sums to 1 over buckets; what a model that attends to
            padding (`tisasrec-padded`) gives to that is missing.
        uniform: what attending to all events of the history, and such padding, alike would give, [R]; 0 for a bucket
            that no history has.
    """

    relation: Relation
    unit: IntervalUnit
    edges: list[float]
    term: list[list[list[float]]]
    share: list[list[list[float]]]
    uniform: list[float]


def time_report(model: Model, *batches: SequenceBatch) -> TimeReport | None:
    """Run a model over histories and measure what it makes of intervals; None for a model without them.

    Args:
        model: an encoder with a `Trunk`.
        batches: histories, at least one; on the model's device.

    Raises:
        ConfigError: the model has no trunk.
        DataError: the batches lack the times that the model reads.
    """
    relations = next((part for part in model.modules() if isinstance(part, TimeRelations)), None)
    if relations is None:
        return None
    tally = Tally()
    buckets = relations.time_span + 1

    def count(looked: Looked) -> None:
        for look in looked.newest():
            if look.bucket_GT is None or look.terms_GHR is None:
                continue
            share_GHR, uniform_GR = look.by(look.bucket_GT, buckets)
            tally.add(f"share {looked.block}", share_GHR)
            tally.add(f"term {looked.block}", look.terms_GHR)
            if looked.block == 0:
                tally.add("uniform", uniform_GR)

    watch_attention(model, count, *batches)
    blocks = range(len(trunk_of(model).blocks))
    term = [tally.mean(f"term {block}") for block in blocks]
    if relations.relation == "bias":
        term = [relations.interval_bias.detach().tolist()]
    timed: Any = model
    size, unit = timed.interval_unit
    share = [tally.mean(f"share {block}") for block in blocks]
    return TimeReport(relations.relation, unit, _edges(relations, size), term, share, tally.mean("uniform"))


def _edges(relations: TimeRelations, size: int) -> list[float]:
    """The least interval of every bucket, for units of some size."""
    numbers = range(relations.time_span + 1)
    if relations.kind == "linear":
        return [float(number * size) for number in numbers]
    return [size * math.exp(number * LOG_STEP) if number else 0.0 for number in numbers]
