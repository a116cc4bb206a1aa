"""Events of one kind as the only targets: in splits, windows, tasks and evaluation; and the bias of pairs of kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ensue.batches.tasks import TASKS, Task, cloze, make_windows
from ensue.data.features import Feature
from ensue.data.split import Split, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ConfigError, DataError
from ensue.models import Catalogue, build_model
from ensue.models.sasrec import SASRec, SASRecConfig
from ensue.nn.embedding import initialise
from ensue.nn.ops.attention import strips
from ensue.recommender import Recommender
from ensue.runs.config import RunConfig

# v: a view, b: a purchase.
ROWS = ["vbvvbvbv", "vvv", "bb", "bvb", "vb"]
BUY = SplitConfig(target_event="buy")


def store_of(rows: list[str]) -> SequenceStore:
    codes = np.array([1 if kind == "b" else 2 for row in rows for kind in row], dtype=np.int32)
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    return SequenceStore.from_arrays(
        offsets,
        np.arange(1, len(codes) + 1),
        np.arange(len(codes)),
        features={"event": codes},
        feature_values={"event": Vocabulary.from_ids(["buy", "view"])},
    )


STORE = store_of(ROWS)


def places(split: Split) -> tuple[list[int], list[int], list[int]]:
    return split.train.stop_R.tolist(), split.validation.target_B.tolist(), split.test.target_B.tolist()


def test_leave_one_out_holds_out_the_last_two_of_the_kind() -> None:
    # The first user's purchases are events 1, 4 and 6; no other user has two after the first event.
    assert places(make_split(STORE, BUY)) == ([4, 11, 13, 16, 18], [4], [6])
    assert make_split(STORE, BUY).train.store.fingerprint == STORE.fingerprint
    plain = make_split(STORE, SplitConfig())
    assert places(plain) == ([6, 9, 13, 14, 18], [6, 9, 14], [7, 10, 15])


@pytest.mark.parametrize(("targets", "expected"), [("all", [4, 6, 12, 15, 17]), ("first", [4, 12]), ("last", [6, 12])])
def test_other_splits_hold_out_only_the_kind(targets: str, expected: list[int]) -> None:
    config = SplitConfig(split="global-time", targets=targets, test_from=3, target_event="buy")
    split = make_split(STORE, config)
    assert split.test.target_B.tolist()[: len(expected)] == expected[: len(split.test.target_B)]
    assert all(STORE.features["event"][split.test.target_B] == 1)


def test_only_the_kind_is_asked() -> None:
    split = make_split(store_of(["vbvvbvbv" * 3, "vvv", "bvb"]), SplitConfig(split="none", target_event="buy"))
    store = split.train.store
    is_buy = dict(zip(store.items.tolist(), (store.features["event"] == 1).tolist(), strict=True))
    tasks: list[tuple[Task, list[str]]] = [
        (TASKS["next"], ["last", "sliding"]),
        (TASKS["last"], ["last", "sliding"]),
        (TASKS["prefixes"], ["prefixes"]),
        (cloze(), ["last", "sliding"]),
    ]
    for task, kinds in tasks:
        for kind in kinds:
            windows = make_windows(split.train, 4, kind, 3)  # type: ignore[arg-type]
            batch = task.make(windows, np.arange(len(windows)), np.random.default_rng(0))
            assert batch.target_Q is not None
            assert all(is_buy[item] for item in batch.target_Q.tolist())
            # Every window has a target, and views are inputs.
            assert set(batch.row_Q.tolist()) == set(range(len(windows)))
            assert not all(is_buy.get(item, True) for item in batch.items_P.tolist())
    # Every purchase after a first event is the target of one prefix.
    assert len(make_windows(split.train, 4, "prefixes")) == 9 + 1


def test_what_is_refused() -> None:
    with pytest.raises(DataError, match="no event has event = 'bye': did you mean 'buy'"):
        make_split(STORE, SplitConfig(target_event="bye"))
    with pytest.raises(DataError, match=r"no event feature 'kind': .*--features kind keeps it, and without"):
        make_split(STORE, SplitConfig(target_event="buy", target_feature="kind"))
    with pytest.raises(ConfigError, match=r"pair_bias 'event' must be one of the features"):
        SASRecConfig(pair_bias="event")
    config = SASRecConfig(features=("kind",), pair_bias="kind")
    with pytest.raises(DataError, match="'kind' must be a feature of events"):
        build_model(config, Catalogue(5, features=(Feature("kind", "user", ("a",)),)))


def test_seen_items_stay_candidates() -> None:
    assert not RunConfig(split=BUY).evaluate.filter_seen
    assert RunConfig().evaluate.filter_seen


@torch.no_grad()
def test_the_bias_of_a_pair_moves_attention() -> None:
    model = build_model(
        SASRecConfig(maxlen=8, hidden_units=8, num_heads=2, num_blocks=1, features=("event",), pair_bias="event"),
        Catalogue(30, features=(Feature("event", "event", ("buy", "view")),)),
    )
    assert isinstance(model, SASRec)
    initialise(model, 0)
    model.eval()
    assert model.pairs is not None
    codes = torch.tensor([1, 2, 2, 1])
    split = make_split(store_of(["vbvv"]), SplitConfig(split="none"))
    batch = TASKS["next"].make(make_windows(split.train, 8), np.array([0]), np.random.default_rng(0))
    batch = type(batch).from_numpy(np.array([1, 2, 3, 4]), np.array([4]), features={"event": codes.numpy()})
    relations = model.pairs(codes, batch.layout)
    (first, *_), width = relations.buckets[0], strips(4)[0][1]
    assert first[0].tolist() == (codes[:width, None] * 4 + codes[None, : first.shape[2]]).tolist()
    before = model.encode(batch)
    assert torch.equal(model.encode(batch), before)
    # A purchase that asks ignores views: only events 0 and 3 count for it.
    model.pairs.pair_bias[:, 1 * 4 + 2] = -1e4
    after = model.encode(batch)
    assert not torch.allclose(after, before)
    changed = type(batch).from_numpy(np.array([1, 9, 8, 4]), np.array([4]), features={"event": codes.numpy()})
    torch.testing.assert_close(model.encode(changed), after)


def world() -> SequenceStore:
    """Three views of any items, and a purchase of the item after the one viewed last."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 10, (600, 3))
    items = np.concatenate((rows, (rows[:, -1:] + 1) % 10), 1).reshape(200, 12) + 1
    kinds = np.tile([2, 2, 2, 1], 600)
    return SequenceStore.from_arrays(
        np.arange(0, 2401, 12),
        items.ravel(),
        features={"event": kinds.astype(np.int32)},
        feature_values={"event": Vocabulary.from_ids(["buy", "view"])},
    )


def test_a_purchase_is_learnt_from_views() -> None:
    settings = {"hidden_units": 32, "dropout_rate": 0.0, "num_epochs": 10, "batch_size": 32, "lr": 0.01, "loss": "ce"}
    recommender = Recommender(
        "sasrec",
        target_event="buy",
        features=("event",),
        pair_bias="event",
        patience=0,
        eval_epochs=10,
        device="cpu",
        **settings,
    )
    metrics, standings = recommender.fit(world()).evaluate(world())
    assert len(standings.users_B) == 200
    assert metrics["hr@1|seen"] > 0.9
