"""Recommendations for everybody are those for each one, whoever and in whatever numbering."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from ensue.batches.batch import SequenceBatch
from ensue.data.split import Sequences
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ConfigError, DataError, EnsueError
from ensue.nn.model import Encoder, Model
from ensue.recommender import Recommender, history_of, read
from ensue.retrieval.index import ExactIndex, top_k
from ensue.retrieval.retriever import Exhaustive, VectorSearch, retrieve

SMALL: dict[str, Any] = {"hidden_units": 8, "num_blocks": 1, "maxlen": 5, "num_epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module", name="store")
def _store() -> SequenceStore:
    """30 users with 4 to 12 events of 20 items, with times."""
    plain = ordered_sequences(num_users=30, num_items=20, length=12)
    keep = np.concatenate([np.arange(12) < 4 + user % 9 for user in range(30)])
    offsets = np.concatenate(([0], np.cumsum(keep)))[plain.offsets]
    titled = plain.item_table.with_columns(title=pl.format("item {}", pl.col("id")))
    times = np.arange(int(keep.sum()))
    return SequenceStore.from_arrays(offsets, plain.items[keep], times, item_table=titled)


@pytest.fixture(scope="module", params=["sasrec", "tisasrec", "markov", "popularity"], name="fitted")
def _fitted(request: pytest.FixtureRequest, store: SequenceStore) -> Recommender:
    return Recommender(request.param, **(SMALL if "sasrec" in request.param else {})).fit(store)


def one_by_one(
    fitted: Recommender, store: SequenceStore, users: list[Any], k: int, **how: Any
) -> list[tuple[Any, ...]]:
    rows = []
    for user in users:
        items, times = history_of(store, user)
        result = fitted.recommend(items, k, times=times, **how)
        known = len(items) - len(result.unknown)
        near = [pytest.approx(each.score, rel=1e-4, abs=1e-5) for each in result]
        rows += [(user, n, e.item, near[n - 1], known, e.title) for n, e in enumerate(result, 1)]
    return rows


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("k", [3, 50])
def test_everybody_gets_what_each_one_gets(
    fitted: Recommender, store: SequenceStore, exclude_seen: bool, k: int
) -> None:
    result = fitted.recommend_all(store, k, exclude_seen=exclude_seen)
    assert result.columns == ["user", "rank", "item", "score", "history", "title"]
    assert result.rows() == one_by_one(fitted, store, list(range(1, 31)), k, exclude_seen=exclude_seen)


def test_some_users_in_the_order_asked_for(fitted: Recommender, store: SequenceStore) -> None:
    asked = [9, 2, 30]
    calls: list[tuple[int, int]] = []
    result = fitted.recommend_all(store, 2, users=iter(asked), progress=lambda *done: calls.append(done))
    assert result.rows() == one_by_one(fitted, store, asked, 2)
    assert calls[-1] == (3, 3)
    assert fitted.recommend_all(store, 2, users=[]).height == 0


def test_a_log_of_other_people_and_other_numbers(fitted: Recommender) -> None:
    """Ids decide, not numbers; items that the model does not know are skipped, and newcomers get what is popular."""
    log = pl.DataFrame(
        {
            "user": ["ann", "ann", "ann", "bob", "cleo", "cleo"],
            "item": [19, 700, 3, 701, 8, 19],
            "time": [1, 2, 3, 4, 5, 6],
        }
    )
    other = read(log)
    result = fitted.recommend_all(log, 4)
    assert result.rows() == one_by_one(fitted, other, ["ann", "bob", "cleo"], 4)
    assert result.group_by("user", maintain_order=True).first()["history"].to_list() == [2, 0, 2]
    popular = fitted.recommend([701], 4)
    assert result.filter(user="bob")["item"].to_list() == popular.ids
    nobody = fitted.recommend_all(log.filter(user="bob"), 4)
    assert nobody["item"].to_list() == popular.ids


def test_what_is_refused(fitted: Recommender, store: SequenceStore) -> None:
    with pytest.raises(DataError, match="user 31 is not among the 30 users of this data"):
        fitted.recommend_all(store, users=[1, 31])
    with pytest.raises(DataError, match=r"users must be listed once each \(got 4 twice\)"):
        fitted.recommend_all(store, users=[4, 1, 4])
    with pytest.raises(DataError, match="users must be a list of ids"):
        fitted.recommend_all(store, users="12")
    with pytest.raises(EnsueError, match="k must be a whole number"):
        fitted.recommend_all(store, k=0)
    with pytest.raises(ConfigError, match="at needs a model trained with query_time"):
        fitted.recommend_all(store, at=10**6)
    if fitted.config.model.name == "tisasrec":
        with pytest.raises(DataError, match="times"):
            fitted.recommend_all(replace(store, times=None))


def test_the_time_of_the_requests(store: SequenceStore) -> None:
    settings = {**SMALL, "relation": "bias", "buckets": "log", "query_time": True}
    fitted = Recommender("tisasrec", **settings).fit(store)
    result = fitted.recommend_all(store, 4, at=5000)
    assert result.rows() == one_by_one(fitted, store, list(range(1, 31)), 4, at=5000)
    with pytest.raises(DataError, match="at 3 is earlier than the newest event"):
        fitted.recommend_all(store, 4, at=3)


class Broken(Model):
    """A model that gives no number to one item."""

    def logits(
        self, batch: SequenceBatch, items_QC: torch.Tensor | None = None, shared_K: torch.Tensor | None = None
    ) -> torch.Tensor:
        scores = torch.zeros(len(batch.lengths_B), 20)
        scores[:, 3] = float("nan")
        return scores


def test_a_score_that_is_no_number_is_an_error(store: SequenceStore) -> None:
    rows = Sequences(store, np.array([0]), store.offsets[:1], store.offsets[1:2])
    with pytest.raises(EnsueError, match="NaN or infinite"):
        retrieve(Exhaustive(Broken(20, 5)), rows, 3)


def test_a_log_in_other_numbers(store: SequenceStore) -> None:
    ids = Vocabulary.from_ids([7, 3, 99])
    other = store.renumbered(ids)
    assert other.item_ids == ids
    assert other.users == store.users
    for user in range(1, 31):
        items, times = history_of(store, user)
        assert times is not None
        kept = [(item, time) for item, time in zip(items, times, strict=True) if item in (7, 3)]
        result = history_of(other, user)
        assert list(zip(result[0], result[1] or [], strict=True)) == kept


def test_an_index_takes_the_place_of_all_scores(store: SequenceStore) -> None:
    """One request and all of them go through the retriever that is set; exact search finds what all scores find."""
    fitted = Recommender("sasrec", **SMALL, loss="ce").fit(store)
    expected, all_expected = fitted.recommend([3, 4], 5), fitted.recommend_all(store, 5)
    model = fitted.retriever.model
    assert isinstance(model, Encoder)
    calls: list[int] = []

    class Counting(ExactIndex):
        def search(self, query_BD: torch.Tensor, k: int, *rules: Any) -> tuple[torch.Tensor, torch.Tensor]:
            calls.append(len(query_BD))
            return super().search(query_BD, k, *rules)

    with torch.inference_mode():
        fitted.retriever = VectorSearch(model, Counting(model.item_vectors()))
    result = fitted.recommend([3, 4], 5)
    assert result.ids == expected.ids
    assert fitted.recommend_all(store, 5)["item"].to_list() == all_expected["item"].to_list()
    assert calls == [1, 30]


@pytest.mark.parametrize("exhaustive", [True, False])
def test_only_allowed_items_are_returned(exhaustive: bool) -> None:
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0]])
    allow_N = torch.tensor([False, True, True, True])
    exclude = (torch.tensor([0]), torch.tensor([3]))
    if exhaustive:
        best, items = top_k(scores, 3, exclude, allow_N)
    else:
        best, items = ExactIndex(torch.eye(4) * scores).search(torch.ones(1, 4), 3, exclude, allow_N)
    assert items[0, :2].tolist() == [2, 4]
    assert best[0].tolist() == [4.0, 2.0, float("-inf")]


@pytest.mark.parametrize("values", [2, 20, 10_000])
@pytest.mark.parametrize("num_items", [1, 30, 1000])
def test_ties_are_settled_by_the_items_number(num_items: int, values: int) -> None:
    """The best are those of a sort by (-score, number), so the best of a smaller k are a prefix."""
    generator = torch.Generator().manual_seed(num_items + values)
    scores = torch.randint(0, values, (7, num_items), generator=generator).float()
    expected = [sorted(range(1, num_items + 1), key=lambda item: (-row[item - 1], item)) for row in scores.tolist()]
    for k in (1, 5, 20, 2000):
        best, items = top_k(scores.clone(), k)
        assert items.tolist() == [row[:k] for row in expected]
        assert torch.equal(best, scores.gather(1, items - 1))
