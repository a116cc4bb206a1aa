"""BST: the behaviour sequence transformer, a ranker (Chen et al., DLP-KDD 2019).

Suffixes: `P` events of all rows, `Q` asked events, `L` events of a history, `C` candidates, `K` shared candidates, `X`
pairs of an asked event and a candidate, `M` L + 1 places, `H` heads, `D` width, `B` rows, `N` items, `E`
what the MLP reads.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.batches.batch import SequenceBatch
from ensue.models.base import MODELS, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.models.timed import TimedConfig
from ensue.nn.block import LAYER_NORM_EPS
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import ItemEmbedding, lookup
from ensue.nn.features import FeatureInput, FeatureVectors
from ensue.nn.model import Model
from ensue.nn.relations import bucket_of
from ensue.nn.trunk import HeadedConfig

GAP_BUCKETS = 63
# Places of all pairs that are scored at once.
CHUNK = 1 << 17


class BSTConfig(HeadedConfig, TimedConfig):
    """Settings of BST; the defaults are the paper's, but for the width."""

    name: Literal["bst"] = "bst"
    maxlen: int = Field(20, ge=1, description="newest events of a history that the model reads")
    task: Literal["next", "last", "prefixes"] = Field(
        "prefixes", description="asked in training: every event, the newest of a window, or the newest of every prefix"
    )
    hidden_units: int = Field(32, ge=1, description="width of item vectors")
    num_blocks: int = Field(1, ge=1, description="transformer layers")
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="dropout on vectors, attention and feed-forward")
    mlp_units: int = Field(1024, ge=4, description="width of the first of three layers, each half as wide as the last")
    context: Literal["none", "time"] = Field(
        "time", description="fields of the request: its hour and weekday (of time = order: none), or none"
    )


class BSTBlock(nn.Module):
    """x = norm(x + dropout(attention(x))); x = norm(x + dropout(W2 LeakyReLU(W1 x + b1) + b2)), 4 D wide inside."""

    def __init__(self, config: BSTConfig) -> None:
        super().__init__()
        width = config.hidden_units
        self.num_heads = config.num_heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.feed_forward_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, x_XMD: Tensor, is_event_XM: Tensor) -> Tensor:
        """[X, M, D] to [X, M, D]; every place sees the places that hold an event."""
        x_XMD = self.attention_norm(x_XMD + self.dropout(self._attend(x_XMD, is_event_XM)))
        fed_XMD = self.outer(F.leaky_relu(self.inner(x_XMD)))
        out_XMD: Tensor = self.feed_forward_norm(x_XMD + self.dropout(fed_XMD))
        return out_XMD

    def _attend(self, x_XMD: Tensor, is_event_XM: Tensor) -> Tensor:
        pairs, places = is_event_XM.shape
        q, k, v = self.qkv(x_XMD).view(pairs, places, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_event_XM[:, None, None])
        out_XMD: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out_XMD


class Context(nn.Module):
    """Vectors of the hour and the weekday of a time in seconds (UTC), [Q] to two of [Q, D]."""

    def __init__(self, hidden_units: int) -> None:
        super().__init__()
        self.hours = nn.Parameter(torch.empty(24, hidden_units))
        self.weekdays = nn.Parameter(torch.empty(7, hidden_units))

    def forward(self, times_Q: Tensor) -> list[Tensor]:
        """The vectors; the week begins with Monday, and 1970 began with a Thursday."""
        hour_Q = times_Q.div(3_600, rounding_mode="floor")
        day_Q = times_Q.div(86_400, rounding_mode="floor")
        return [lookup(self.hours, hour_Q.remainder(24)), lookup(self.weekdays, (day_Q + 3).remainder(7))]


class BST(Model):
    """score(h, i) = MLP([blocks(x_1, ..., x_L, y_i); fields]), x = join(E[item], features) + G[gap].

    The candidate joins the history as its newest event, so a score is that of a pair: the model ranks candidates and
    has no item vectors. Features of items and events are part of x, those of users are fields of the MLP, as are the
    hour and the weekday of the request. The gap of an event is the time from it to the newest event, or with
    `query_time` to the request; that of the candidate is zero, and its features of events are missing ones. Places
    without an event are zero in the MLP.

    Where we differ from the paper: `feature_mode` says how vectors join, where it concatenates them; the time of the
    request is that of the newest event unless `query_time` is set; the objective is any that compares candidates.
    """

    def __init__(self, config: BSTConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, config.query_time)
        self.times_of = config.times_of
        width = config.hidden_units
        self.items = ItemEmbedding(self.num_items, width)
        of_events = catalogue.coded_features(("event", "item"))
        self.event_features = FeatureInput(of_events, width, config.feature_mode) if of_events else None
        of_users = catalogue.coded_features(("user",))
        self.user_features = FeatureVectors(of_users, width) if of_users else None
        self.context = Context(width) if config.context == "time" and config.reads_times else None
        self.gaps = nn.Parameter(torch.empty(GAP_BUCKETS + 1, width))
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(BSTBlock(config) for _ in range(config.num_blocks))
        fields = len(of_users) + (2 if self.context is not None else 0)
        widths = [(config.maxlen + 1 + fields) * width, *(config.mlp_units // 2**number for number in range(3))]
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.LeakyReLU())]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        """Scores of the candidates at each asked event; see `Model.logits`.

        Raises:
            DataError: the batch has no times, or not those of the requests, and the model reads them.
        """
        x_QLD, is_event_QL, fields_QE = self._histories(batch)
        if items_QC is None:
            items_QC = torch.arange(1, self.num_items + 1, device=self.device).expand(len(x_QLD), -1)
        if shared_K is not None:
            items_QC = torch.cat((items_QC, shared_K.expand(len(x_QLD), -1)), 1)
        size = max(1, CHUNK // (len(x_QLD) * (self.maxlen + 1)))
        parts = torch.split(items_QC, size, 1)
        return torch.cat([self._score(x_QLD, is_event_QL, fields_QE, part_QC) for part_QC in parts], 1)

    def _histories(self, batch: SequenceBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The vectors of the events up to each asked one, which places hold an event, and the fields of the MLP.

        Returns:
            [Q, L, D], bool [Q, L] and [Q, E].
        """
        times_P, query_times_P = self.times_of(batch)
        back_L = torch.arange(self.maxlen - 1, -1, -1, device=self.device)
        first_Q = (batch.lengths_B.cumsum(0) - batch.lengths_B)[batch.row_Q]
        event_QL = batch.asked_Q[:, None] - back_L
        is_event_QL = event_QL >= first_Q[:, None]
        # A place without an event reads the row's first, and nothing sees it.
        event_QL = torch.maximum(event_QL, first_Q[:, None])
        request_Q = query_times_P[batch.asked_Q]
        gap_QL = (request_Q[:, None] - times_P[event_QL]).double()
        bucket_QL = bucket_of(gap_QL, torch.ones_like(gap_QL[:1, :1]), "log", GAP_BUCKETS)
        codes = None if batch.features is None else {name: x_P[event_QL] for name, x_P in batch.features.items()}
        x_QLD = self._vectors(batch.items_P[event_QL], codes) + lookup(self.gaps, bucket_QL)
        fields = [x_QLD.new_zeros(len(x_QLD), 0)]
        if self.user_features is not None:
            at_Q = None if batch.features is None else {n: x_P[batch.asked_Q] for n, x_P in batch.features.items()}
            fields += self.user_features(batch.items_P[batch.asked_Q], at_Q)
        if self.context is not None:
            fields += self.context(request_Q)
        return x_QLD, is_event_QL, self.dropout(torch.cat(fields, 1))

    def _vectors(self, items: Tensor, codes: dict[str, Tensor] | None) -> Tensor:
        """Vectors of items with their features, [..., D]."""
        vectors: Tensor = self.items(items)
        if self.event_features is not None:
            vectors = self.event_features(vectors, items, codes)
        return vectors

    def _score(self, x_QLD: Tensor, is_event_QL: Tensor, fields_QE: Tensor, items_QC: Tensor) -> Tensor:
        """The scores of some candidates, [Q, C]."""
        count = items_QC.shape[1]
        y_QCD = self._vectors(items_QC, self._missing(items_QC)) + self.gaps[0]
        x_QCMD = torch.cat((x_QLD[:, None].expand(-1, count, -1, -1), y_QCD[:, :, None]), 2)
        is_event_XM = F.pad(is_event_QL, (0, 1), value=True).repeat_interleave(count, 0)
        x_XMD = self.dropout(x_QCMD.flatten(0, 1))
        for block in self.blocks:
            x_XMD = block(x_XMD, is_event_XM)
        places_XE = (x_XMD * is_event_XM[..., None]).flatten(1)
        scores: Tensor = self.mlp(torch.cat((places_XE, fields_QE.repeat_interleave(count, 0)), 1))
        return scores.view(-1, count)

    def _missing(self, items: Tensor) -> dict[str, Tensor]:
        """The codes of missing values of all features of events, for candidates, which are no events yet."""
        features = () if self.event_features is None else self.event_features.vectors.features
        return {feature.name: torch.zeros_like(items) for feature in features if feature.of == "event"}


MODELS.register("bst")(ModelEntry(BSTConfig, BST))
