"""Worlds whose figures are known beforehand: an oracle, a random scorer, and a leak that was planted in a split.

Others are beside what they are about: a constant scorer is chance and NaN is an error (`test_evaluate.py`), protocols
that order two models differently are named (`tests/cli/test_compare.py`), intervals cover the truth
(`test_contrast.py`), ranks are those of one process (`tests/train/test_distributed.py`).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.data.split import Cases, Split, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.doctor.check import check
from ensue.evaluation.evaluate import evaluate
from ensue.evaluation.protocol import EvaluateConfig, ProtocolName
from ensue.nn.model import Model, columns_of
from ensue.retrieval import scores as chunks
from ensue.rng import hashed_uniform, stream

USERS, ITEMS, LENGTH = 400, 150, 8


class ByUser(Model):
    """Scores that depend only on the user: each history begins with an item that no other has."""

    def __init__(self, scores_UN: np.ndarray) -> None:
        super().__init__(scores_UN.shape[1], LENGTH)
        self.scores_UN = torch.from_numpy(scores_UN.astype(np.float32))

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        first_Q = batch.items_P[batch.asked_Q - batch.lengths_B[batch.row_Q] + 1]
        return columns_of(self.scores_UN[first_Q - 1 - ITEMS], items_QC, shared_K)


@pytest.fixture(scope="module")
def split() -> Split:
    """Users with random histories of items 1..150 after an item of their own."""
    items = stream(0, "truths").integers(1, ITEMS + 1, (USERS, LENGTH))
    items[:, 0] = ITEMS + 1 + np.arange(USERS)
    offsets = LENGTH * np.arange(USERS + 1)
    ids = Vocabulary.of_range(ITEMS + USERS)
    return make_split(SequenceStore.from_arrays(offsets, items.ravel(), item_ids=ids), SplitConfig())


def oracle(cases: Cases) -> ByUser:
    scores_UN = np.zeros((USERS, cases.store.num_items))
    scores_UN[cases.users_B, cases.target_items_B - 1] = 1
    return ByUser(scores_UN)


@pytest.mark.parametrize("protocol", ["full", "uniform-100", "popularity-100"])
def test_an_oracle_is_perfect(split: Split, protocol: ProtocolName) -> None:
    config = EvaluateConfig(protocol=protocol, metrics=("hr@1", "ndcg@10", "mrr", "map@5", "auc", "rank"))
    assert set(evaluate(oracle(split.test), split.test, config, split.train).means(config).values()) == {1.0}


@pytest.mark.parametrize("protocol", ["full", "uniform-100"])
@pytest.mark.parametrize("seed", range(3))
def test_a_random_scorer_is_chance_within_four_sigma(split: Split, protocol: ProtocolName, seed: int) -> None:
    model = ByUser(hashed_uniform(seed, "random scorer", np.arange(USERS), 0, ITEMS + USERS))
    config = EvaluateConfig(protocol=protocol, metrics=("hr@10", "ndcg@10", "mrr"))
    standings = evaluate(model, split.test, config, split.train)
    counts_B = standings.candidates_B
    for name, gain in {
        "hr@10": lambda rank: (rank <= 10) * 1.0,
        "ndcg@10": lambda rank: (rank <= 10) / np.log2(rank + 1),
        "mrr": lambda rank: 1 / rank,
    }.items():
        moments = [(gain(rank).mean(), gain(rank).var()) for rank in (np.arange(1, count + 1) for count in counts_B)]
        mean, variance = np.mean(moments, 0)
        assert abs(standings.metric(name).mean() - mean) < 4 * np.sqrt(variance / len(counts_B))


@pytest.mark.parametrize("protocol", ["full", "uniform-100"])
def test_the_same_seed_gives_the_same_bits_for_every_batch_size(
    split: Split, protocol: ProtocolName, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ByUser(hashed_uniform(0, "random scorer", np.arange(USERS), 0, ITEMS + USERS))
    config = EvaluateConfig(protocol=protocol)
    means = []
    for rows in (1, 64, 512):
        monkeypatch.setattr(chunks, "ROWS", rows)
        means.append(evaluate(model, split.test, config, split.train).means(config))
    assert means[0] == means[1] == means[2]


@pytest.mark.parametrize(("planted", "level"), [(0, "ok"), (5, "warn"), (60, "warn")])
def test_the_doctor_finds_a_leak_planted_in_a_split(planted: int, level: str) -> None:
    """The data gives the parts: events of days 0 to 5 train, later ones are tested. Some users' days are 100 later."""
    users = 100
    words = Vocabulary.from_ids(["train", "test"])
    times = np.repeat(86_400 * np.arange(8)[None], users, 0)
    times[:planted] += 86_400 * 100
    store = SequenceStore.from_arrays(
        8 * np.arange(users + 1),
        stream(0, "leak").integers(1, 30, 8 * users),
        times.ravel(),
        {"split": words.encode((["train"] * 6 + ["test"] * 2) * users)},
        feature_values={"split": words},
    )
    finding = check(store, SplitConfig(split="predefined"))["leakage"]
    assert finding.level == level
    # Test events of the others precede the training events of the planted users.
    assert finding.value == pytest.approx(planted / users * (users - planted) / users)
