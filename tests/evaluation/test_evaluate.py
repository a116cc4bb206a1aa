"""Ranks equal a brute-force loop, ties are chance, and sampled candidates depend on nothing but their key."""

from __future__ import annotations

import math
import tracemalloc

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, R, nDCG
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.data.split import Cases, Sequences, Split, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.transitions import fit_popularity
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ConfigError, DataError, EnsueError
from ensue.evaluation.evaluate import evaluate
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.sampled import sample_candidates
from ensue.evaluation.standings import Standings
from ensue.nn.model import Model, columns_of
from ensue.retrieval import scores as chunks
from ensue.rng import stream


class ByLastItem(Model):
    """score = table[newest item]: a model whose every number is known."""

    def __init__(self, table: np.ndarray, maxlen: int = 50) -> None:
        super().__init__(table.shape[1], maxlen)
        self.table = torch.from_numpy(table.astype(np.float32))
        self.largest = 0

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        scores = columns_of(self.table[batch.items_P[batch.asked_Q]], items_QC, shared_K)
        self.largest = max(self.largest, scores.numel())
        return scores


def random_table(num_items: int, values: int, seed: int = 0) -> np.ndarray:
    """[N + 1, N] whole numbers, few of them, so that ties are many."""
    return stream(seed, "table").integers(0, values, (num_items + 1, num_items))


def random_split(num_users: int = 60, num_items: int = 25, seed: int = 0, longest: int = 20) -> Split:
    """Histories with repeats, so that targets were seen before."""
    rng = stream(seed, "histories")
    lengths = rng.integers(3, longest, num_users)
    store = SequenceStore.from_arrays(
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        items=rng.integers(1, num_items + 1, lengths.sum()),
        item_ids=Vocabulary.of_range(num_items),
    )
    return make_split(store, SplitConfig())


def brute_force(model: ByLastItem, cases: Cases, filter_seen: bool) -> list[tuple[int, int, int, bool]]:
    """Better, equal, candidates and repeated of every case, item by item."""
    result = []
    items = cases.store.items
    for b in range(len(cases)):
        history = items[cases.start_B[b] : cases.stop_B[b]].tolist()
        target = int(cases.target_items_B[b])
        scores = model.table[history[-1]].tolist()
        rivals = [i for i in range(1, model.num_items + 1) if i != target and not (filter_seen and i in history)]
        better = sum(scores[i - 1] > scores[target - 1] for i in rivals)
        equal = sum(scores[i - 1] == scores[target - 1] for i in rivals)
        result.append((better, equal, len(rivals) + 1, target in history))
    return result


def as_rows(standings: Standings) -> list[tuple[int, int, int, bool]]:
    columns = (standings.better_B, standings.equal_B, standings.candidates_B, standings.repeated_B)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("values", [2, 5, 10_000])
@pytest.mark.parametrize("rows", [1, 7, 512])
def test_ranks_equal_brute_force(monkeypatch: pytest.MonkeyPatch, filter_seen: bool, values: int, rows: int) -> None:
    monkeypatch.setattr(chunks, "ROWS", rows)
    split, model = random_split(), ByLastItem(random_table(25, values))
    expected = brute_force(model, split.test, filter_seen)
    assert any(repeated for *_, repeated in expected)
    config = EvaluateConfig(filter_seen=filter_seen)
    standings = evaluate(model, split.test, config, split.train)
    assert as_rows(standings) == expected
    assert (standings.users_B == split.test.users_B).all()
    assert standings.rank_B.tolist() == [1 + better + equal / 2 for better, equal, _, _ in expected]


def test_a_repeated_target_stays_a_candidate() -> None:
    """The filter would make every repeat a forced miss."""
    store = SequenceStore.from_arrays(offsets=np.array([0, 4]), items=np.array([2, 3, 2, 2]))
    split = make_split(store, SplitConfig())
    model = ByLastItem(np.tile(np.array([1, 9, 5]), (4, 1)))
    standings = evaluate(model, split.test, EvaluateConfig(), split.train)
    assert as_rows(standings) == [(0, 0, 2, True)]


@given(st.integers(2, 300), st.booleans(), st.sampled_from(["hr@1", "hr@10", "ndcg@5", "mrr@10", "auc"]))
def test_a_constant_scorer_is_exactly_chance(num_items: int, filter_seen: bool, metric: str) -> None:
    split = random_split(num_users=20, num_items=num_items)
    model = ByLastItem(np.ones((num_items + 1, num_items)))
    standings = evaluate(model, split.test, EvaluateConfig(filter_seen=filter_seen), split.train)
    name, _, cutoff = metric.partition("@")
    gain = {"hr": lambda place: 1.0, "ndcg": lambda place: 1 / math.log2(place + 1), "mrr": lambda place: 1 / place}
    for value, number in zip(standings.metric(metric), standings.candidates_B, strict=True):
        chance = 0.5 if name == "auc" else sum(map(gain[name], range(1, min(int(cutoff), number) + 1))) / number
        assert value == pytest.approx(chance, abs=1e-12)


def test_renaming_items_changes_nothing() -> None:
    """Where the target stands in the catalogue does not matter, ties or not."""
    split, table = random_split(num_users=40, num_items=150), random_table(150, 4)
    order = np.concatenate([[0], 1 + stream(1, "order").permutation(150)])
    store = SequenceStore.from_arrays(
        offsets=split.train.store.offsets, items=order[split.train.store.items], item_ids=Vocabulary.of_range(150)
    )
    renamed = np.empty_like(table)
    renamed[order[:, None], order[None, 1:] - 1] = table
    other = make_split(store, SplitConfig())
    first = evaluate(ByLastItem(table), split.test, EvaluateConfig(), split.train)
    again = evaluate(ByLastItem(renamed), other.test, EvaluateConfig(), other.train)
    assert as_rows(first) == as_rows(again)


@pytest.mark.parametrize("protocol", ["uniform-100", "popularity-100"])
def test_sampled_ranks_equal_a_loop_over_the_candidates(protocol: str) -> None:
    split, table = random_split(num_users=300, num_items=150, longest=10), random_table(150, 4)
    cases, config = split.test, EvaluateConfig(protocol=protocol)
    standings = evaluate(ByLastItem(table), cases, config, split.train)
    for b, row in enumerate(candidates_of(cases, config, split.train)):
        scores = table[cases.store.items[cases.stop_B[b] - 1]]
        own = scores[cases.target_items_B[b] - 1]
        drawn = stream(b, "order").permutation(row[1:])
        assert standings.better_B[b] == sum(scores[item - 1] > own for item in drawn)
        assert standings.equal_B[b] == sum(scores[item - 1] == own for item in drawn)
    assert (standings.candidates_B == 101).all()
    assert (standings.repeated_B == evaluate(ByLastItem(table), cases, EvaluateConfig(), split.train).repeated_B).all()
    assert standings.repeated_B.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("protocol", ["full", "uniform-100"])
def test_scores_that_are_not_finite_are_errors(bad: float, protocol: str) -> None:
    split = random_split(num_users=9, num_items=120)
    table = random_table(120, 9).astype(float)
    table[:, 3] = bad
    if protocol == "uniform-100":  # some candidate may miss the one column
        table[:, :] = bad
    with pytest.raises(EnsueError, match="NaN or infinite"):
        evaluate(ByLastItem(table), split.test, EvaluateConfig(protocol=protocol), split.train)


def test_large_scores_whose_sum_overflows_are_fine() -> None:
    split = random_split(num_users=9)
    table = random_table(25, 9).astype(float) * 3e37
    evaluate(ByLastItem(table), split.test, EvaluateConfig(), split.train)


def test_no_cases_is_an_error() -> None:
    split = random_split()
    none = Cases(split.train.store, *(np.array([], dtype=np.int64) for _ in range(4)))
    with pytest.raises(EnsueError, match="no cases"):
        evaluate(ByLastItem(random_table(25, 9)), none, EvaluateConfig(), split.train)


class OwnTable(Model):
    """Gives its own stored scores away, as a popularity model may."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__(25, 50)
        self.fails = fails
        self.register_buffer("scores_N", torch.arange(25.0))

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        assert not self.training
        if self.fails:
            return torch.full((batch.lengths_B.shape[0], 25), math.nan)
        return self.scores_N.expand(batch.lengths_B.shape[0], -1)


def test_the_models_own_tensors_are_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "ROWS", 1)
    split, model = random_split(), OwnTable()
    standings = evaluate(model, split.test, EvaluateConfig(), split.train)
    assert torch.equal(model.scores_N, torch.arange(25.0))
    assert as_rows(standings) == brute_force(ByLastItem(np.tile(np.arange(25), (26, 1))), split.test, True)


@pytest.mark.parametrize("fails", [False, True])
def test_training_mode_is_put_back(fails: bool) -> None:
    split, model = random_split(), OwnTable(fails).train()
    try:
        evaluate(model, split.test, EvaluateConfig(), split.train)
    except EnsueError:
        assert fails
    assert model.training


def test_progress_counts_all_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "ROWS", 25)
    split = random_split()
    calls: list[tuple[int, int]] = []
    evaluate(ByLastItem(random_table(25, 9)), split.test, EvaluateConfig(), split.train, lambda *at: calls.append(at))
    assert calls == [(25, 60), (50, 60), (60, 60)]


def test_only_the_newest_events_reach_the_model_but_all_are_filtered() -> None:
    store = SequenceStore.from_arrays(offsets=np.array([0, 6]), items=np.array([1, 2, 3, 4, 5, 6]))
    split = make_split(store, SplitConfig())
    model = ByLastItem(np.tile(np.array([9, 9, 9, 9, 9, 1]), (7, 1)), maxlen=2)
    standings = evaluate(model, split.test, EvaluateConfig(), split.train)
    assert as_rows(standings) == [(0, 0, 1, False)]


# ---- sampled protocols ----


def candidates_of(cases: Cases, config: EvaluateConfig, train: Sequences) -> np.ndarray:
    return sample_candidates(cases, config, fit_popularity(train))


@pytest.mark.parametrize("protocol", ["uniform-100", "popularity-100"])
def test_memory_does_not_grow_with_the_histories(protocol: str) -> None:
    """Every event of a few long rows is a target: all histories together have the square of the events."""
    rng = stream(0, "long histories")
    length, users = 1_500, 2
    items = np.concatenate([rng.integers(1, 301, length) + 300 * user for user in range(users)])
    store = SequenceStore.from_arrays(offsets=length * np.arange(users + 1), items=items)
    ends = np.concatenate([np.arange(1_000, length) + length * user for user in range(users)])
    first = np.repeat([0, length], 500)
    cases = Cases(store, np.repeat([0, 1], 500), first, ends, ends)
    train = Sequences(store, np.arange(2), np.array([0, length]), np.array([1_000, length + 1_000]))
    model = ByLastItem(random_table(600, 9))
    tracemalloc.start()
    evaluate(model, cases, EvaluateConfig(protocol=protocol), train)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A batch of 128 cases has 160,000 events in all; the 1,000 cases together have 1.25 million, 10 MB a column.
    assert peak < 25e6


@pytest.mark.parametrize("protocol", ["uniform-100", "popularity-100"])
def test_candidates_depend_on_the_case_alone(protocol: str) -> None:
    """Any batch size, any other users, any order: the same candidates."""
    split = random_split(num_users=80, num_items=400, longest=60)
    config = EvaluateConfig(protocol=protocol)
    whole = candidates_of(split.test, config, split.train)
    cases = split.test
    for chosen in (np.array([5]), np.arange(79, -1, -2), np.arange(80)):
        assert (candidates_of(cases.take(chosen), config, split.train) == whole[chosen]).all()
    other = candidates_of(cases, config.replace(evaluation_seed=1), split.train)
    assert (other[:, 1:] != whole[:, 1:]).mean() > 0.9


@pytest.mark.parametrize("protocol", ["uniform-100", "popularity-100"])
def test_batch_size_changes_no_sampled_rank(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    split, model = random_split(num_users=50, num_items=300), ByLastItem(random_table(300, 9))
    config = EvaluateConfig(protocol=protocol)
    rows = []
    for size in (1, 13, 512):
        monkeypatch.setattr(chunks, "ROWS", size)
        rows.append(as_rows(evaluate(model, split.test, config, split.train)))
    assert rows[0] == rows[1] == rows[2]


@pytest.mark.parametrize("protocol", ["uniform-100", "popularity-100"])
def test_candidates_are_the_target_and_unseen_items(protocol: str) -> None:
    split = random_split(num_users=50, num_items=300, longest=80)
    cases = split.test
    candidates = candidates_of(cases, EvaluateConfig(protocol=protocol), split.train)
    assert candidates.shape == (50, 101)
    assert (candidates[:, 0] == cases.target_items_B).all()
    assert candidates.min() >= 1
    assert candidates.max() <= 300
    trained = set(split.train.items_P.tolist())
    for b, (target, *drawn) in enumerate(candidates.tolist()):
        history = set(cases.store.items[cases.start_B[b] : cases.stop_B[b]].tolist())
        assert not set(drawn) & (history | {target})
        if protocol == "popularity-100":
            assert len(set(drawn)) == 100
            assert set(drawn) <= trained


def test_popularity_100_without_enough_items_says_so() -> None:
    split = random_split(num_users=30, num_items=100)
    with pytest.raises(EnsueError, match=r"popularity-100 needs 100 unseen items .* user \d+ has fewer"):
        candidates_of(split.test, EvaluateConfig(protocol="popularity-100"), split.train)


def test_popularity_100_prefers_the_popular() -> None:
    rng = stream(0, "popularity")
    items = np.concatenate([rng.integers(1, 51, 4_000), np.arange(51, 401)])
    offsets = np.append(np.arange(0, len(items), 5), len(items))
    store = SequenceStore.from_arrays(offsets=offsets, items=items)
    train = Sequences(store, np.arange(len(offsets) - 1), offsets[:-1], offsets[1:])
    test = make_split(store, SplitConfig()).test
    counts = np.bincount(candidates_of(test, EvaluateConfig(protocol="popularity-100"), train)[:, 1:].reshape(-1))
    assert counts[1:51].mean() > 5 * counts[51:].mean()


def test_sampled_figures_have_their_own_names() -> None:
    split, model = random_split(num_users=20, num_items=300), ByLastItem(random_table(300, 9))
    names = {}
    for protocol, suffix in (("full", ""), ("uniform-100", "|uni100"), ("popularity-100", "|pop100")):
        config = EvaluateConfig(protocol=protocol, metrics=("hr@10", "ndcg@10"))
        standings = evaluate(model, split.test, config, split.train)
        names[protocol] = standings.means(config)
        assert list(names[protocol]) == [f"hr@10{suffix}", f"ndcg@10{suffix}"]
        assert names[protocol][f"hr@10{suffix}"] == pytest.approx(standings.metric("hr@10").mean())


def test_figures_that_use_the_requests_time_have_their_own_names() -> None:
    names = {}
    for settings in ({}, {"filter_seen": False}, {"protocol": "uniform-100"}, {"protocol": "popularity-100"}):
        for query_time in (False, True):
            config = EvaluateConfig(query_time=query_time, **settings)
            names[config.key] = config.label("hr@10")
    assert names == {
        "full": "hr@10",
        "full+query-time": "hr@10|qtime",
        "full-with-seen": "hr@10|seen",
        "full-with-seen+query-time": "hr@10|seen|qtime",
        "uniform-100": "hr@10|uni100",
        "uniform-100+query-time": "hr@10|uni100|qtime",
        "popularity-100": "hr@10|pop100",
        "popularity-100+query-time": "hr@10|pop100|qtime",
    }


class TimesSeen(ByLastItem):
    """Writes down the times that it is told."""

    def __init__(self, table: np.ndarray, maxlen: int = 50) -> None:
        super().__init__(table, maxlen)
        self.asked: dict[int, list[int] | None] = {}

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        assert batch.times_P is not None
        lengths = batch.lengths_B.tolist()
        for row, times in enumerate(torch.split(batch.times_P, lengths)):
            asked = None
            if batch.query_times_P is not None:
                asked = torch.split(batch.query_times_P, lengths)[row].tolist()
                assert asked[:-1] == times[1:].tolist()
            self.asked[int(times[-1])] = asked
        return super().logits(batch, items_QC, shared_K)


@pytest.mark.parametrize("protocol", ["full", "uniform-100"])
@pytest.mark.parametrize("query_time", [False, True])
def test_the_targets_time_is_passed_only_with_query_time(protocol: str, query_time: bool) -> None:
    plain = random_split(num_users=30, num_items=150).train.store
    times = np.arange(plain.num_events) * 7  # each event its own, so that a row is known by its newest
    store = SequenceStore.from_arrays(
        offsets=plain.offsets, items=plain.items, times=times, item_ids=Vocabulary.of_range(150)
    )
    split, model = make_split(store, SplitConfig()), TimesSeen(random_table(150, 9), maxlen=4)
    evaluate(model, split.test, EvaluateConfig(protocol=protocol, query_time=query_time), split.train)
    assert len(model.asked) == 30
    for target in split.test.target_B.tolist():
        asked = model.asked[7 * (target - 1)]
        if query_time:
            assert asked is not None
            assert asked[-1] == 7 * target
            assert len(asked) <= 4
        else:
            assert asked is None


def test_query_time_on_data_without_times_is_an_error() -> None:
    split = random_split()
    with pytest.raises(DataError, match="query_time: the data has no times"):
        evaluate(ByLastItem(random_table(25, 9)), split.test, EvaluateConfig(query_time=True), split.train)


def test_metrics_are_named_once_in_lower_case() -> None:
    assert EvaluateConfig.parse({"metrics": ["HR@10", " hr@10", "Mrr"]}).metrics == ("hr@10", "mrr")
    with pytest.raises(ConfigError, match="name at least one metric"):
        EvaluateConfig.parse({"metrics": []})


def test_unknown_metrics_are_refused_early() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ndcg'"):
        EvaluateConfig.parse({"metrics": ["ndgc@10"]})


# ---- against an independent library, and in bounded memory ----


def test_metrics_equal_ir_measures() -> None:
    split = random_split(num_users=40, num_items=60, longest=12)
    table = stream(3, "scores").permutation(61 * 60).reshape(61, 60)  # no ties: the library breaks them its own way
    cases = split.test
    standings = evaluate(ByLastItem(table), cases, EvaluateConfig(), split.train)
    relevant = [ir_measures.Qrel(str(b), str(item), 1) for b, item in enumerate(cases.target_items_B)]
    ranking = []
    for b in range(len(cases)):
        history = cases.store.items[cases.start_B[b] : cases.stop_B[b]]
        for item in range(1, 61):
            if item not in history or item == cases.target_items_B[b]:
                ranking.append(ir_measures.ScoredDoc(str(b), str(item), float(table[history[-1], item - 1])))
    pairs = {"hr@5": R @ 5, "hr@10": R @ 10, "ndcg@10": nDCG @ 10, "mrr@10": RR @ 10, "ndcg@20": nDCG @ 20}
    for ours, theirs in pairs.items():
        values = {m.query_id: m.value for m in ir_measures.iter_calc([theirs], relevant, ranking)}
        expected = [values.get(str(b), 0.0) for b in range(len(cases))]
        np.testing.assert_allclose(standings.metric(ours), expected, atol=1e-9)
        assert 0 < np.mean(expected) < 1


class Wide(Model):
    """A million items by inner products with four numbers each."""

    def __init__(self) -> None:
        super().__init__(1_000_000, 20)
        self.vectors = torch.randn(self.num_items + 1, 4, generator=torch.Generator().manual_seed(0))
        self.rows: list[int] = []

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        self.rows.append(batch.lengths_B.shape[0])
        query = self.vectors[batch.items_P[batch.layout.last_B]]
        return query @ self.vectors[1:].T


def test_a_million_items_are_scored_a_few_rows_at_a_time() -> None:
    rng = stream(0, "wide")
    store = SequenceStore.from_arrays(
        offsets=np.arange(0, 51, 5), items=rng.integers(1, 1_000_001, 50), item_ids=Vocabulary.of_range(1_000_000)
    )
    split, model = make_split(store, SplitConfig()), Wide()
    standings = evaluate(model, split.test, EvaluateConfig(), split.train)
    assert max(model.rows) * model.num_items <= chunks.CELLS
    assert sum(model.rows) == 10
    last = store.items[split.test.stop_B[0] - 1]
    scores = (model.vectors[1:] @ model.vectors[last]).numpy()
    own = scores[split.test.target_items_B[0] - 1]
    assert abs(int(standings.better_B[0]) - int((scores > own).sum())) <= 2  # rounding of another product order
