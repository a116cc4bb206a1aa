"""FPMC keeps the contract, is its two factors, and answers for users that it does not know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensue.batches.batch import SequenceBatch, case_batch
from ensue.batches.loader import take_share
from ensue.batches.tasks import TASKS, make_windows
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.models import Catalogue, build_model
from ensue.models.fpmc import FPMC, FPMCConfig
from ensue.nn.embedding import dense_gradients, initialise
from ensue.objectives.objective import ObjectiveConfig
from ensue.recommender import Recommender
from ensue.rng import stream
from ensue.testing import ModelContract

NUM_ITEMS, NUM_USERS = 12, 5
SMALL = FPMCConfig(maxlen=16, hidden_units=16)


class TestFPMC(ModelContract):
    config = SMALL


class TestFMCWithBPR(ModelContract):
    config = SMALL.replace(user_vectors=False)
    objective = ObjectiveConfig(loss="bpr", num_negatives=20)


def model_of(seed: int = 0) -> FPMC:
    model = build_model(SMALL, Catalogue(NUM_ITEMS, num_users=NUM_USERS))
    assert isinstance(model, FPMC)
    initialise(model, seed)
    assert model.users is not None
    assert not bool(model.users.weight.any())
    with torch.no_grad():
        model.users.weight[1:].normal_(generator=torch.Generator().manual_seed(seed))
    return model.eval()


def users(batch: SequenceBatch, *numbers: int) -> SequenceBatch:
    return replace(batch, users_B=torch.tensor(numbers))


@torch.no_grad()
def test_a_score_is_taste_and_chain() -> None:
    model, batch = model_of(), SequenceBatch.from_lists([[4, 9], [3], [7, 1, 2]])
    assert model.users is not None
    assert model.liked is not None
    scores = model.logits(users(batch, 5, 0, 2))
    chain = model.before.weight[[9, 3, 2]] @ model.after.catalogue().T
    taste = model.users.weight[[5, 0, 2]] @ model.liked.catalogue().T
    torch.testing.assert_close(scores, chain + taste)
    # A user without a number, or unknown, is answered by the chain.
    torch.testing.assert_close(model.logits(batch), chain)
    torch.testing.assert_close(scores[1], chain[1])


def test_training_teaches_both_parts_and_never_the_unknown_user() -> None:
    model, batch = model_of(), SequenceBatch.from_lists([[4, 9], [3], [7, 1, 2]])
    torch.autograd.backward(model.logits(users(batch, 5, 0, 2)).square().sum())
    dense_gradients(model.parameters())
    assert model.users is not None
    assert model.users.weight.grad is not None
    assert model.users.weight.grad.any(1).tolist() == [False, False, True, False, False, True]
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())


STORE = SequenceStore.from_arrays(np.array([0, 2, 6, 10]), np.array([1, 2, 3, 4, 5, 6, 2, 4, 6, 1]))


def test_batches_of_training_and_evaluation_say_whose_they_are() -> None:
    split = make_split(STORE, SplitConfig())
    windows = make_windows(split.train, 16, "prefixes")
    batch = TASKS["prefixes"].make(windows, np.array([2, 0]), stream(0, "task", 0, 0))
    assert batch.users_B is not None
    assert batch.users_B.tolist() == (split.train.users_R[windows.row_W[[2, 0]]] + 1).tolist()
    cases = case_batch(split.test, np.array([1, 0]), 16, False)
    assert cases.users_B is not None
    assert cases.users_B.tolist() == [3, 2]
    share = take_share(batch, 1, 2)
    assert share is not None
    assert share.users_B is not None
    assert share.users_B.tolist() == batch.users_B.tolist()[1:]


def test_a_run_keeps_its_users_and_serves_others(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"loss": "bpr", "hidden_units": 4, "maxlen": 8, "num_epochs": 2, "device": "cpu"}
    trained = Recommender("fpmc", **settings).fit(STORE, tmp_path / "run")
    loaded = Recommender.load(tmp_path / "run")
    assert trained.run is not None
    assert loaded.run is not None
    assert loaded.run.num_users == trained.run.num_users == 3
    assert loaded.evaluate(STORE)[0] == trained.evaluate(STORE)[0]
    assert loaded.recommend([1, 2]) == trained.recommend([1, 2])
    # Rows of other data are strangers, whatever their numbers.
    other = loaded.recommend_all([[1, 2]], k=3)
    assert other["item"].to_list() == loaded.recommend([1, 2], k=3).ids


def test_taste_is_learned() -> None:
    """Two users like different items, whatever came before: only their vectors can tell."""
    rng = np.random.default_rng(0)
    liked = [rng.integers(1 + 6 * (user % 2), 7 + 6 * (user % 2), 20) for user in range(40)]
    # Every second event is an item that both kinds of users have, so the chain knows nothing.
    rows = [np.stack((np.full(20, 13), row), 1).ravel() for row in liked]
    store = SequenceStore.from_arrays(np.arange(0, 41 * 40, 40), np.concatenate(rows))
    settings: dict[str, Any] = {"loss": "ce", "hidden_units": 8, "maxlen": 39, "num_epochs": 80, "lr": 0.05}
    means = [
        Recommender(
            "fpmc", user_vectors=known, metrics=("hr@6",), filter_seen=False, eval_epochs=80, device="cpu", **settings
        )
        .fit(store)
        .evaluate(store)[0]["hr@6|seen"]
        for known in (True, False)
    ]
    assert means[0] > 0.95
    assert means[1] < 0.8
    assert means[0] == pytest.approx(1, abs=0.05)
