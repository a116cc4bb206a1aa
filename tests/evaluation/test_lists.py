"""Metrics of recommended lists, from the retriever to metrics.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from ensue.batches.batch import SequenceBatch
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError, DataError, EnsueError
from ensue.evaluation.evaluate import evaluate
from ensue.evaluation.list_metrics import LIST_METRICS, Lists, attributes, parse_list_metric
from ensue.evaluation.lists import other_metrics, recommended
from ensue.evaluation.protocol import EvaluateConfig
from ensue.files import read_json
from ensue.recommender import Recommender
from ensue.retrieval.retriever import Exhaustive

EVERY = tuple(f"{name}@3" for name in LIST_METRICS)


@pytest.fixture(scope="module")
def store() -> SequenceStore:
    """30 users with 6 events each of 12 items in 3 categories."""
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.permutation(12)[:6] + 1 for _ in range(30)]).astype(np.int32)
    table = pl.DataFrame({"id": np.arange(1, 13), "category": ["a|b", "b", "c", None] * 3})
    return SequenceStore.from_arrays(np.arange(0, 181, 6), items, item_table=table)


@pytest.fixture(scope="module")
def model(store: SequenceStore) -> Recommender:
    return Recommender("markov").fit(store)


def test_lists_agree_with_the_ranks(store: SequenceStore, model: Recommender) -> None:
    """A target without ties is in the list of k exactly if its rank is at most k."""
    assert model.run is not None
    split, config = make_split(store, model.config.split), EvaluateConfig(metrics=("hr@3",))
    lists = recommended(Exhaustive(model.run.model), split.test, config, 3)
    standings = evaluate(model.run.model, split.test, config, split.train)
    untied = standings.equal_B == 0
    hit = (lists == split.test.target_items_B[:, None]).any(1)
    assert untied.any()
    np.testing.assert_array_equal(hit[untied], standings.metric("hr@3")[untied] == 1.0)
    for row, start, stop in zip(lists, split.test.start_B, split.test.stop_B, strict=True):
        assert not set(row) & set(store.items[start:stop])


def test_lists_are_made_of_the_events_that_the_split_keeps(make_store: Callable[..., SequenceStore]) -> None:
    """Dropped events are in no history, so a list does not depend on them; nor does a rank."""
    store = make_store([[1, 2, 3, 1], [2, 3, 1, 2], [1, 9, 2, 3]], 9)
    config = SplitConfig(split="session", validation_fraction=0, test_fraction=0.3, unseen_items="drop")
    split = make_split(store, config)
    seen = []

    class Spy(Exhaustive):
        def __call__(self, batch: SequenceBatch, *rest: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
            seen.extend(torch.split(batch.items_P, batch.lengths_B.tolist()))
            return super().__call__(batch, *rest, **named)

    run = Recommender("markov", **config.model_dump(exclude_defaults=True)).fit(store).run
    assert run is not None
    metrics = EvaluateConfig(list_metrics=("coverage@1",), filter_seen=False)
    standings = evaluate(run.model, split.test, metrics, split.train)
    other_metrics(Spy(run.model), split.test, metrics, split.train, standings)
    assert sorted(row.tolist() for row in seen) == [[1], [1, 2]]


def test_every_list_metric_is_reported_if_requested(store: SequenceStore, tmp_path: Path) -> None:
    config = EvaluateConfig(metrics=("hr@3",), list_metrics=EVERY, propensity_power=0.5)
    run = Recommender("popularity").fit(store, tmp_path / "run")
    means, _ = run.evaluate(store, config=config, folder=tmp_path / "run")
    assert means.keys() == {"hr@3", "hr@3|ips", *EVERY}
    assert 0 < means["coverage@3"] <= 1
    assert means["head@3"] > 0.25
    assert means["serendipity@3"] == 0 or means["hr@3"] > 0
    entry = read_json(tmp_path / "run" / "metrics.json")["test/full"]
    assert entry["metrics"] == means
    table = pl.read_parquet(tmp_path / "run" / entry["per_user"])
    assert {"novelty@3", "miscalibration@3", "hr@3|ips"} <= set(table.columns)
    assert not {"coverage@3", "gini@3"} & set(table.columns)
    assert table["diversity@3"].mean() == pytest.approx(means["diversity@3"])


def test_probabilities_of_lists_are_those_of_requests(store: SequenceStore, model: Recommender) -> None:
    assert model.run is not None
    split = make_split(store, model.config.split)
    config = EvaluateConfig(metrics=("hr@3",), list_metrics=("brier@3", "ece@3"))
    means, _ = model.evaluate(store, config=config)
    errors = []
    for start, stop, target in zip(split.test.start_B, split.test.stop_B, split.test.target_items_B, strict=True):
        history = store.item_ids.decode(store.items[start:stop])
        for each in model.recommend(history, k=3, probabilities=True).items:
            errors.append((each.score - (each.item == store.item_ids.decode([target])[0])) ** 2)
    assert means["brier@3"] == pytest.approx(np.mean(errors), abs=1e-7)  # probabilities are single
    assert 0 <= means["ece@3"] <= 1


def test_probabilities_are_refused_where_there_are_none(store: SequenceStore, model: Recommender) -> None:
    config = EvaluateConfig(metrics=("hr@3",), list_metrics=("ece@3",))
    with pytest.raises(EnsueError, match="are not probabilities"):
        Recommender("vsknn").fit(store).evaluate(store, config=config)
    assert model.run is not None
    split = make_split(store, model.config.split)
    standings = evaluate(model.run.model, split.test, config, split.train)
    with pytest.raises(ConfigError, match="ece needs probabilities, which two stages do not give"):
        other_metrics(Exhaustive(model.run.model), split.test, config, split.train, standings)


def test_lists_are_not_retrieved_unless_requested(store: SequenceStore, model: Recommender) -> None:
    class Never:
        model = None

        def __call__(self, batch: SequenceBatch, k: int, exclude: object = None, allow_N: object = None) -> object:
            raise AssertionError("no list was requested")

    assert model.run is not None
    split, config = make_split(store, model.config.split), EvaluateConfig(metrics=("hr@3",))
    standings = evaluate(model.run.model, split.test, config, split.train)
    assert other_metrics(Never(), split.test, config, split.train, standings) == {}
    weighted = config.replace(propensity_power=1.0)
    assert other_metrics(Never(), split.test, weighted, split.train, standings).keys() == {"hr@3|ips"}


def test_the_history_of_miscalibration_counts_every_event(store: SequenceStore) -> None:
    split = make_split(store, Recommender("popularity").config.split)
    cases = split.test
    lists = Lists(np.ones((len(cases), 1), dtype=np.int64), cases, split.train, np.ones(12))
    shares = lists.attributes_NG / np.maximum(lists.attributes_NG.sum(1, keepdims=True), 1)
    expected = [shares[store.items[a:b] - 1].sum(0) for a, b in zip(cases.start_B, cases.stop_B, strict=True)]
    np.testing.assert_allclose(lists.history_BG, expected, atol=1e-12)


def test_attributes() -> None:
    table = pl.DataFrame(
        {
            "category": ["x|y", "y", None],
            "tags": [["p"], None, ["p", "q"]],
            "vector": [[0.5, 1.0], [2.0, 0.0], None],
            "brand": [7, 7, 8],
            "ragged": [[0.5], [2.0, 0.0], None],
        }
    )
    assert attributes(table, "category").tolist() == [[1, 1], [0, 1], [0, 0]]
    assert attributes(table, "tags").tolist() == [[1, 0], [0, 0], [1, 1]]
    assert attributes(table, "vector").tolist() == [[0.5, 1.0], [2.0, 0.0], [0.0, 0.0]]
    assert attributes(table, "brand").tolist() == [[1, 0], [1, 0], [0, 1]]
    with pytest.raises(DataError, match="did you mean 'category'"):
        attributes(table, "categori")
    with pytest.raises(DataError, match="same width"):
        attributes(table, "ragged")


@pytest.mark.parametrize("text", ["coverage", "coverage@0", "coverage@1.5", "covrage@10", "gini@-1"])
def test_a_wrong_list_metric_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="list metric"):
        parse_list_metric(text)
    with pytest.raises(ConfigError):
        EvaluateConfig(list_metrics=(text,))
