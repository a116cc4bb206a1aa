"""Two stages: candidates of one model in the order of another, in recommending and in evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch, newest_events
from ensue.data.split import SplitConfig, make_split
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ConfigError, DataError
from ensue.evaluation.evaluate import evaluate
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.two_stages import evaluate_stages
from ensue.nn.model import Model, columns_of
from ensue.recommender import Recommender
from ensue.retrieval.retriever import Exhaustive
from ensue.retrieval.two_stage import TwoStage
from ensue.runs.results import read_metrics

N = 12


class Fixed(Model):
    """The same scores for every history."""

    def __init__(self, scores: list[float], maxlen: int = 5) -> None:
        super().__init__(len(scores), maxlen)
        self.scores_N = torch.tensor(scores)
        self.longest = 0

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        self.longest = int(batch.lengths_B.max())
        return columns_of(self.scores_N.expand(len(batch.asked_Q), -1).clone(), items_QC, shared_K)


BATCH = SequenceBatch.from_lists([[1, 2, 3], [4]])
UP = Fixed([float(item) for item in range(1, N + 1)])
DOWN = Fixed([-float(item) for item in range(1, N + 1)], maxlen=2)


def test_the_second_orders_what_the_first_finds() -> None:
    two = TwoStage(Exhaustive(UP), DOWN, candidates=4)
    scores, items = two(BATCH, 3)
    assert items.tolist() == [[9, 10, 11]] * 2
    assert scores.tolist() == [[-9, -10, -11]] * 2
    # Each model reads its own newest events.
    assert two.model is UP
    assert (UP.longest, DOWN.longest) == (3, 2)
    # Excluded items are no candidates, and places after the last candidate are empty.
    scores, items = two(BATCH, 6, (torch.tensor([0]), torch.tensor([12])))
    assert items[:, :4].tolist() == [[8, 9, 10, 11], [9, 10, 11, 12]]
    assert torch.isinf(scores[:, 4:]).all()


def test_a_weight_mixes_both() -> None:
    same = TwoStage(Exhaustive(UP), DOWN, candidates=4, weight=0.25)(BATCH, 2)[1]
    assert same.tolist() == [[12, 11]] * 2
    turned = TwoStage(Exhaustive(UP), DOWN, candidates=4, weight=0.75)(BATCH, 2)[1]
    assert turned.tolist() == [[9, 10]] * 2


def test_newest_events_are_those_of_each_row() -> None:
    features = {"event": torch.tensor([1, 2, 3, 4])}
    times = torch.tensor([5, 6, 7, 8])
    short = newest_events(replace(BATCH, times_P=times, features=features), 2)
    assert short.items_P.tolist() == [2, 3, 4]
    assert short.times_P is not None
    assert short.times_P.tolist() == [6, 7, 8]
    assert short.features is not None
    assert short.features["event"].tolist() == [2, 3, 4]
    assert short.asked_Q.tolist() == [1, 2]
    assert newest_events(BATCH, 3) is BATCH


@pytest.mark.parametrize("filter_seen", [True, False])
def test_standings_are_those_of_all_items(filter_seen: bool) -> None:
    store = ordered_sequences(num_users=20, num_items=N, length=6)
    split = make_split(store, SplitConfig())
    config = EvaluateConfig(filter_seen=filter_seen, rerank=4)
    staged = evaluate_stages(TwoStage(Exhaustive(UP), DOWN, candidates=4), split.test, config)
    alone = evaluate(UP, split.test, config.replace(rerank=0), split.train)
    assert (staged.first.better_B == alone.better_B).all()
    assert (staged.first.equal_B == alone.equal_B).all()
    # The candidates of a case are its 4 highest numbers; the second stage reverses them.
    expected = np.where(alone.better_B < 4, 3 - alone.better_B, alone.better_B)
    assert (staged.second.better_B == expected).all()
    assert staged.recall == np.mean(alone.better_B < 4)
    assert (staged.second.candidates_B == alone.candidates_B).all()


def test_a_constant_ranker_stands_at_chance_among_the_candidates() -> None:
    store = ordered_sequences(num_users=20, num_items=N, length=6)
    split = make_split(store, SplitConfig())
    two = TwoStage(Exhaustive(UP), Fixed([0.0] * N), candidates=4)
    staged = evaluate_stages(two, split.test, EvaluateConfig(filter_seen=False, rerank=4))
    found = staged.is_candidate_B
    assert found.any()
    assert (staged.second.better_B[found] == 0).all()
    assert (staged.second.equal_B[found] == 3).all()
    with pytest.raises(ConfigError, match="set protocol full"):
        evaluate_stages(two, split.test, EvaluateConfig(protocol="uniform-100"))


def test_two_runs_recommend_and_are_evaluated_as_one(tmp_path: Path) -> None:
    store = ordered_sequences(num_users=30, num_items=N, length=6)
    first = Recommender("popularity").fit(store, tmp_path / "first")
    markov = Recommender("markov").fit(store, tmp_path / "second")
    first.rerank(tmp_path / "second", candidates=N, weight=1)
    assert first.recommend([3], k=1).ids == markov.recommend([3], k=1).ids
    assert first.recommend_all(store, 2)["item"].len() == 60
    metrics, _ = first.evaluate(store, folder=tmp_path / "first")
    assert metrics["ndcg@10|rerank12"] == pytest.approx(markov.evaluate(store)[0]["ndcg@10"])
    entry = read_metrics(tmp_path / "first")["test/full+rerank-12"]
    assert entry["recall"] == 1.0
    assert entry["rerank"] == {"model": "markov", "candidates": 12, "weight": 1.0}
    gain = entry["gain"]["ndcg@10"]
    assert gain["mean_a"] - gain["mean_b"] == pytest.approx(gain["effect"]["estimate"])
    # Gains are paired by user: cases of one user are not independent.
    assert first.reranking is not None
    assert first.run is not None
    cases = make_split(store, first.config.split).test
    twice = cases.take(np.repeat(np.arange(len(cases)), 2))
    config = first.reranking.protocol(first.config.evaluate)
    _, further = first.reranking.evaluate(Exhaustive(first.run.model), twice, config)
    assert further["gain"]["ndcg@10"]["num_cases"] == 30
    assert further["gain"]["ndcg@10"]["p"] == pytest.approx(gain["p"])
    with pytest.raises(DataError, match="trained on different splits"):
        first.rerank(Recommender("markov", split="none").fit(store))
    with pytest.raises(DataError, match="train both on the same data"):
        first.rerank(Recommender("markov").fit([[1, 2, 3], [1, 2, 4]]))
    with pytest.raises(ConfigError, match=r"a weight above 0 and at most 1 \(got 5 and 0.0\)"):
        first.rerank(markov, 5, 0)
