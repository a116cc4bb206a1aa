"""BST keeps the contract, and is its equations written out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toys import ASKED, ITEMS, NUM_ITEMS, TIMES, built, timed_batch

from ensue.batches.batch import SequenceBatch
from ensue.data.features import Feature
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ConfigError, DataError
from ensue.models import Catalogue
from ensue.models import bst as module
from ensue.models.bst import BST, BSTBlock, BSTConfig
from ensue.objectives.objective import ObjectiveConfig
from ensue.recommender import Recommender
from ensue.testing import ModelContract

SMALL = BSTConfig(maxlen=12, hidden_units=16, dropout_rate=0.0, mlp_units=64)


class TestBST(ModelContract):
    config = SMALL.replace(context="none")
    objective: ClassVar = ObjectiveConfig(loss="sampled-softmax", num_negatives=12)
    train: ClassVar = ModelContract.train.replace(num_epochs=7, eval_epochs=7, lr=0.008)


def model_of(catalogue: Catalogue | None = None, **changes: object) -> BST:
    return built(BST, SMALL.replace(**changes), catalogue)


def naive_score(
    model: BST,
    items: list[int],
    gaps: list[int],
    candidate: int,
    added: Tensor | float = 0.0,
    fields: Sequence[Tensor] = (),
) -> Tensor:
    """The equations for one pair; places without an event do not exist until the flattening."""
    buckets = [min(63, math.floor(math.log(max(1, gap)) / 0.301)) for gap in gaps]
    x_MD = model.items.weight[[*items, candidate]] + added + model.gaps[[*buckets, 0]]
    for block in model.blocks:
        assert isinstance(block, BSTBlock)
        q, k, v = block.qkv(x_MD).chunk(3, 1)
        heads = []
        for q_h, k_h, v_h in zip(*(part.chunk(block.num_heads, 1) for part in (q, k, v)), strict=True):
            heads.append((q_h @ k_h.T / q_h.shape[1] ** 0.5).softmax(1) @ v_h)
        x_MD = block.attention_norm(x_MD + block.out(torch.cat(heads, 1)))
        x_MD = block.feed_forward_norm(x_MD + block.outer(F.leaky_relu(block.inner(x_MD))))
    places = F.pad(x_MD, (0, 0, model.maxlen + 1 - len(x_MD), 0)).flatten()
    return model.mlp(torch.cat((places, *fields)))[0]  # type: ignore[no-any-return]


def context_of(model: BST, time: int) -> list[Tensor]:
    assert model.context is not None
    moment = datetime.fromtimestamp(time, UTC)
    return [model.context.hours[moment.hour], model.context.weekdays[moment.weekday()]]


@pytest.mark.parametrize(("query_time", "num_blocks", "num_heads"), [(False, 1, 1), (True, 2, 4)])
@torch.no_grad()
def test_it_is_its_equations(
    query_time: bool, num_blocks: int, num_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(query_time=query_time, num_blocks=num_blocks, num_heads=num_heads)
    scores = model.logits(timed_batch())
    for row, (items, times) in enumerate(zip(ITEMS, TIMES, strict=True)):
        now = ASKED[row] if query_time else times[-1]
        for candidate in (1, 17, NUM_ITEMS):
            fields = context_of(model, now)
            expected = naive_score(model, items, [now - time for time in times], candidate, fields=fields)
            torch.testing.assert_close(scores[row, candidate - 1], expected)
    # In parts of a few candidates the scores are the same.
    monkeypatch.setattr(module, "CHUNK", 200)
    torch.testing.assert_close(model.logits(timed_batch()), scores)


FEATURES = (
    Feature("kind", "item", ("a", "b")),
    Feature("event", "event", ("buy", "view")),
    Feature("city", "user", ("x", "y")),
)


@torch.no_grad()
def test_features_join_the_places_of_events_and_candidates_and_those_of_users_are_fields() -> None:
    kinds = pl.DataFrame({"kind": ["a", "b", None, "a", *["b"] * 26]})
    model = model_of(Catalogue(NUM_ITEMS, kinds, features=FEATURES), features=("kind", "event", "city"), context="none")
    codes = {"event": np.array([1, 2, 0, 1, 2, 3, 1, 1, 2]), "city": np.array([1] * 5 + [2] + [0] * 3)}
    batch = replace(timed_batch(), features={name: torch.from_numpy(codes_P) for name, codes_P in codes.items()})
    scores = model.logits(batch)
    assert model.event_features is not None
    assert model.user_features is not None
    kind_table, event_table = model.event_features.vectors.tables
    kind_of = torch.tensor([0, 1, 2, 0, 1, *[2] * 26])
    start = 0
    for row, (items, times) in enumerate(zip(ITEMS, TIMES, strict=True)):
        own = codes["event"][start : start + len(items)]
        user = model.user_features.tables[0][codes["city"][start]]
        start += len(items)
        for candidate in (1, 17, NUM_ITEMS):
            added = kind_table[kind_of[[*items, candidate]]] + event_table[[*own, 0]]
            expected = naive_score(model, items, [times[-1] - time for time in times], candidate, added, [user])
            torch.testing.assert_close(scores[row, candidate - 1], expected)


def test_a_run_with_features_is_trained_saved_and_read(tmp_path: Path) -> None:
    store = ordered_sequences(num_users=30, num_items=9, length=5)
    table = store.item_table.with_columns(parity=pl.Series([["even", "odd"][item % 2] for item in range(9)]))
    settings = {"maxlen": 5, "hidden_units": 8, "mlp_units": 8, "num_epochs": 1, "device": "cpu", "time": "order"}
    recommender = Recommender("bst", features=("parity",), **settings)
    recommender.fit(replace(store, item_table=table), tmp_path / "run")
    best = recommender.recommend([1, 2], k=3)
    assert Recommender.load(tmp_path / "run").recommend([1, 2], k=3) == best


def test_what_it_refuses() -> None:
    with pytest.raises(DataError, match=r"bst needs times of events, but there are none.*--time order"):
        model_of().logits(SequenceBatch.from_lists([[1, 2]]))
    with pytest.raises(ConfigError, match="num_heads 3 must divide hidden_units 16"):
        SMALL.replace(num_heads=3)
    assert model_of(time="order").logits(SequenceBatch.from_lists([[1, 2]])).shape == (1, NUM_ITEMS)
