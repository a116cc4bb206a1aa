"""TiSASRec keeps the contract in every variant, reads times as it says, and learns what only time tells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch, query_times
from ensue.data.split import Split, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ConfigError, DataError
from ensue.evaluation.evaluate import evaluate
from ensue.evaluation.protocol import EvaluateConfig
from ensue.models import Catalogue, ModelConfig, build_model
from ensue.models.sasrec import SASRecConfig
from ensue.models.tisasrec import TiSASRec, TiSASRecConfig
from ensue.nn.embedding import initialise
from ensue.nn.hyper_connections import Mixing
from ensue.objectives.objective import ObjectiveConfig
from ensue.rng import stream
from ensue.runs.config import RunConfig, TrainConfig
from ensue.testing import ModelContract
from ensue.train.loop import Trainer

SMALL = TiSASRecConfig(maxlen=16, hidden_units=16, num_blocks=2, dropout_rate=0.1, time_span=30)
ONE_BLOCK = SMALL.replace(num_blocks=1)
SECONDS = [0, 60, 60, 4_000, 90_000, 90_500, 700_000, 700_060]
ITEMS = [3, 1, 4, 1, 5, 9, 2, 6]
HOUR, NUM_ITEMS = 3_600, 40


class TestTiSASRec(ModelContract):
    config = SMALL


class TestOriginalNormTwoHeads(ModelContract):
    config = ONE_BLOCK.replace(norm="original", num_heads=2)


class TestLogBias(ModelContract):
    config = ONE_BLOCK.replace(relation="bias", buckets="log", num_heads=2, time_span=63)


class TestQueryTime(ModelContract):
    config = ONE_BLOCK.replace(query_time=True)


class TestOrder(ModelContract):
    config = ONE_BLOCK.replace(time="order")


class TestManifoldConstrainedHyperConnections(ModelContract):
    config = ONE_BLOCK.replace(residual="mhc")


def model_of(**changes: object) -> TiSASRec:
    model = build_model(SMALL.replace(**changes), Catalogue(NUM_ITEMS))
    assert isinstance(model, TiSASRec)
    initialise(model, 0)
    if model.relations.relation == "bias":
        nn.init.normal_(model.relations.interval_bias, generator=torch.Generator().manual_seed(1))
    return model.eval()


def batch_of(
    rows: Sequence[Sequence[int]], times: Sequence[Sequence[int]] | None, asked: Sequence[int] | None = None
) -> SequenceBatch:
    """Rows of items with times, and times of the requests."""
    items_P, lengths_B = np.concatenate(rows), np.array([len(row) for row in rows])
    times_P = None if times is None else np.concatenate(times)
    request_P = None if times_P is None or asked is None else query_times(times_P, lengths_B, np.array(asked))
    return SequenceBatch.from_numpy(items_P, lengths_B, times_P, request_P).asking_all()


def states(model: TiSASRec, items: Sequence[int], times: Sequence[int], asked: int | None = None) -> Tensor:
    with torch.no_grad():
        return model.encode(batch_of([items], [times], None if asked is None else [asked]))


# ---- what it reads ----


def test_times_matter() -> None:
    """Their gaps, in units of the smallest, and nothing else of them."""
    model = model_of()
    before = states(model, ITEMS, SECONDS)
    assert not torch.allclose(states(model, ITEMS, [0, 60, 60, 120, 180, 240, 300, 360]), before, atol=1e-3)
    later_and_slower = [10**9 + 7 * t for t in SECONDS]
    torch.testing.assert_close(states(model, ITEMS, later_and_slower), before)
    with_unit = model_of(time_unit=60)
    torch.testing.assert_close(states(with_unit, ITEMS, SECONDS), before)
    assert not torch.allclose(states(with_unit, ITEMS, later_and_slower), before, atol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"relation": "bias", "buckets": "log"}, {"norm": "original"}])
@pytest.mark.parametrize("time_unit", [0, 60])
def test_a_later_item_changes_no_earlier_state(changes: dict[str, object], time_unit: int) -> None:
    model = model_of(time_unit=time_unit, **changes)
    before = states(model, ITEMS, SECONDS)
    for t in range(1, len(ITEMS)):
        after = states(model, [*ITEMS[:t], *(29 - item for item in ITEMS[t:])], SECONDS)
        assert torch.equal(after[:t], before[:t])
        assert not torch.equal(after[t], before[t])


@pytest.mark.parametrize(
    "changes", [{"time_unit": 60}, {"time_unit": 60, "relation": "bias"}, {"relation": "bias", "buckets": "log"}]
)
def test_a_later_time_changes_no_earlier_state_where_the_unit_is_fixed(changes: dict[str, object]) -> None:
    model, seconds = model_of(**changes), [0, 60, 60, 300, 420, 900, 960, 1_200]
    before = states(model, ITEMS, seconds)
    for t in range(1, len(ITEMS)):
        after = states(model, ITEMS, [*seconds[:t], *(180 + s for s in seconds[t:])])
        assert torch.equal(after[:t], before[:t])
        assert not torch.equal(after[t], before[t])


def test_a_later_gap_may_change_the_unit_and_so_earlier_states_as_in_the_paper() -> None:
    """The paper's unit is the smallest gap of the whole history that the model reads: no state's own past alone.

    In evaluation the newest state alone counts, whose past is that history; the held-out event is no part of it.
    """
    model = model_of()
    before = states(model, ITEMS, SECONDS)
    same_unit = states(model, ITEMS, [*SECONDS[:-1], SECONDS[-1] + 3_600])
    assert torch.equal(same_unit[:-1], before[:-1])
    smaller = states(model, ITEMS, [*SECONDS[:-1], SECONDS[-2] + 1])
    assert not torch.allclose(smaller[:-1], before[:-1], atol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"relation": "bias", "buckets": "log"}, {"query_time": True}])
def test_other_rows_change_nothing(changes: dict[str, object]) -> None:
    """Rows with smaller and larger gaps, longer and shorter, before and after."""
    model = model_of(**changes)
    long = list(range(1, 17))
    rows, times = [long, ITEMS, [7], [8, 8]], [[t * 5 for t in long], SECONDS, [9], [0, 10**8]]
    with torch.no_grad():
        together = model.encode(batch_of(rows, times, [100, 700_100, 10, 10**8]))
    alone = states(model, ITEMS, SECONDS, 700_100)
    torch.testing.assert_close(together[16:24], alone, rtol=1e-5, atol=1e-5)


def test_order_counts_events() -> None:
    """Equal to timestamps one unit apart; times, if any, are not read."""
    by_order, by_time = model_of(time="order"), model_of(time_unit=1)
    with torch.no_grad():
        expected = by_time.encode(batch_of([ITEMS, ITEMS[:3]], [range(8), range(3)]))
        for times in (None, [SECONDS, SECONDS[:3]]):
            assert torch.equal(by_order.encode(batch_of([ITEMS, ITEMS[:3]], times)), expected)


def test_positions_count_from_the_newest_event() -> None:
    """A short history reads the first rows of the position tables alone, whatever is in the others."""
    model = model_of()
    before = states(model, ITEMS[:3], SECONDS[:3])
    with torch.no_grad():
        for table in (model.relations.position_keys, model.relations.position_values):
            table[3:] = 1e3
    assert torch.equal(states(model, ITEMS[:3], SECONDS[:3]), before)


@pytest.mark.parametrize("relation", ["embedding", "bias"])
def test_without_relations_and_positions_it_is_sasrec(relation: str) -> None:
    """All relation tables zero: SASRec without positions (embedding) or with them (bias), same names, same states."""
    model = model_of(relation=relation)
    with torch.no_grad():
        for parameter in model.relations.parameters():
            parameter.zero_()
    settings = {name: value for name, value in SMALL.model_dump().items() if name in SASRecConfig.model_fields}
    positions = "none" if relation == "embedding" else "learned"
    plain = build_model(
        SASRecConfig.parse({**settings, "name": "sasrec", "positions": positions}), Catalogue(NUM_ITEMS)
    ).eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "relations" not in name})
    batch = batch_of([ITEMS, [7]], [SECONDS, [9]])
    with torch.no_grad():
        torch.testing.assert_close(model.encode(batch), plain.encode(batch), rtol=1e-5, atol=1e-5)


# ---- the time of the request ----


def test_query_time_is_read_and_the_next_items_are_not() -> None:
    model = model_of(query_time=True, time_unit=60)
    before = states(model, ITEMS, SECONDS, 700_100)
    later = states(model, ITEMS, SECONDS, 900_000)
    assert torch.equal(later[:-1], before[:-1])
    assert not torch.allclose(later[-1], before[-1], atol=1e-3)
    for t in range(1, len(ITEMS)):
        after = states(model, [*ITEMS[:t], *(29 - item for item in ITEMS[t:])], SECONDS, 700_100)
        assert torch.equal(after[:t], before[:t])


@pytest.mark.parametrize("relation", ["embedding", "bias"])
def test_in_training_a_state_is_that_of_a_request_at_the_next_events_time(relation: str) -> None:
    """State t of a whole row = the newest state of its first t events, asked at event t + 1's time."""
    model = model_of(query_time=True, relation=relation, buckets="log")
    # Positions count from the newest event, so they are put aside.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "position" in name:
                parameter.zero_()
        whole = states(model, ITEMS, SECONDS, 999_999)
        for t in range(1, len(ITEMS)):
            newest = model.encode(batch_of([ITEMS[:t]], [SECONDS[:t]], [SECONDS[t]]))
            torch.testing.assert_close(newest[-1], whole[t - 1], rtol=1e-4, atol=1e-5)


# ---- what it refuses ----


def test_without_times_there_is_a_clear_error() -> None:
    with pytest.raises(DataError, match=r"tisasrec needs times of events, but there are none.*--time order"):
        model_of().logits(SequenceBatch.from_lists([[1, 2]]))
    with pytest.raises(DataError, match="trained with query_time: give the time of the request"):
        model_of(query_time=True).logits(batch_of([[1, 2]], [[5, 9]]))
    assert model_of(time="order").logits(SequenceBatch.from_lists([[1, 2]])).shape == (1, NUM_ITEMS)


def test_query_time_without_timestamps_is_a_contradiction() -> None:
    with pytest.raises(ConfigError, match="query_time needs time = 'timestamps'"):
        TiSASRecConfig.parse({"query_time": True, "time": "order"})


def run_config(model: ModelConfig, **train: object) -> RunConfig:
    settings = {"num_epochs": 30, "batch_size": 64, "lr": 0.01, "patience": 0, "eval_epochs": 30, "device": "cpu"}
    return RunConfig(model=model, objective=ObjectiveConfig(loss="ce"), train=TrainConfig(**{**settings, **train}))


def without_times(store: SequenceStore) -> SequenceStore:
    return SequenceStore.from_arrays(offsets=store.offsets, items=store.items, item_ids=store.item_ids)


@pytest.mark.parametrize("query_time", [False, True])
def test_training_on_data_without_times_stops_before_the_first_step(tmp_path: Path, query_time: bool) -> None:
    split = make_split(without_times(gap_tells(20)), SplitConfig())
    trainer = Trainer(run_config(SMALL.replace(query_time=query_time)), split, tmp_path)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(DataError, match="there are none"):
        trainer.run()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert not (tmp_path / "checkpoints").exists()
    assert trainer.log.records == []
    by_order = Trainer(run_config(SMALL.replace(time="order"), num_epochs=1), split).run()
    assert by_order.progress.epoch == 1


# ---- what only time tells ----


def gap_tells(num_users: int = 300, length: int = 12) -> SequenceStore:
    """The gap before an event says what follows it: one step along a cycle after hours, 20 steps after days.

    Which gap comes is a coin's toss, so items alone leave two items open; with the gaps one is certain.
    """
    rng = stream(0, "gap tells")
    is_long = rng.random((num_users, length)) < 0.5
    gaps = np.where(is_long, 90 * HOUR, 3 * HOUR) + rng.integers(0, HOUR, (num_users, length))
    steps = np.where(is_long, NUM_ITEMS // 2, 1)
    first = rng.integers(NUM_ITEMS, size=(num_users, 1))
    place = np.concatenate((first, first + np.cumsum(steps[:, :-1], 1)), 1)
    return SequenceStore.from_arrays(
        offsets=np.arange(num_users + 1) * length,
        items=(place % NUM_ITEMS + 1).reshape(-1),
        times=(10**9 + np.cumsum(gaps, 1)).reshape(-1),
        item_ids=Vocabulary.of_range(NUM_ITEMS),
    )


def hit_rate(model: ModelConfig, split: Split) -> float:
    """HR@1 on test, after training."""
    config = run_config(model)
    trained = Trainer(config, split).run().model
    standings = evaluate(trained, split.test, config.evaluate.replace(filter_seen=False), split.train)  # type: ignore[arg-type]
    return float(standings.metric("hr@1").mean())


COMMON = {"maxlen": 10, "hidden_units": 32, "num_blocks": 2, "dropout_rate": 0.1}


def test_it_learns_what_only_the_gaps_tell_and_sasrec_cannot() -> None:
    split = make_split(gap_tells(), SplitConfig())
    without = hit_rate(SASRecConfig(**COMMON), split)
    assert without < 0.62  # a coin, whatever it learns
    for changes in ({"time_unit": HOUR}, {"relation": "bias", "buckets": "log", "num_heads": 2, "time_unit": HOUR}):
        assert hit_rate(TiSASRecConfig(**COMMON, time_span=100, **changes), split) > max(0.9, without + 0.3)


# ---- residuals ----


@pytest.mark.parametrize("residual", ["hc", "mhc", "mhc_lite"])
@pytest.mark.parametrize("norm", ["pre", "post", "original"])
@pytest.mark.parametrize("name", ["sasrec", "tisasrec"])
def test_hyper_connections_with_closed_gates_are_the_plain_model(residual: str, norm: str, name: str) -> None:
    """Whole models, all other weights the same: within 1e-6 of the states' size."""
    config = SMALL if name == "tisasrec" else SASRecConfig(maxlen=16, hidden_units=16, num_blocks=2)

    def states_of(residual: str) -> Tensor:
        model = build_model(config.replace(norm=norm, residual=residual), Catalogue(NUM_ITEMS))
        initialise(model, 0)
        for part in model.modules():
            if isinstance(part, Mixing):
                nn.init.zeros_(part.gates)
        with torch.no_grad():
            return model.double().eval().encode(batch_of([ITEMS, [7, 8]], [SECONDS, [9, 20]]))

    torch.testing.assert_close(states_of(residual), states_of("plain"), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("residual", ["hc", "mhc", "mhc_lite", "gated"])
def test_one_step_of_training_moves_every_parameter(residual: str) -> None:
    split = make_split(gap_tells(40), SplitConfig())
    config = run_config(SMALL.replace(residual=residual, maxlen=10), num_epochs=1, batch_size=40)
    trainer = Trainer(config, split)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.run()
    for name, value in trainer.model.named_parameters():
        assert bool(value.isfinite().all())
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("changes", [{}, {"relation": "bias", "buckets": "log"}, {"residual": "mhc"}])
def test_bf16_training_is_near_float32(changes: dict[str, object]) -> None:
    split = make_split(gap_tells(40), SplitConfig())

    def last_loss(amp: str) -> float:
        config = run_config(SMALL.replace(maxlen=10, dropout_rate=0.0, **changes), num_epochs=3, amp=amp)
        trainer = Trainer(config, split)
        trainer.run()
        return float(trainer.log.records[-1]["loss"])

    assert last_loss("bf16") == pytest.approx(last_loss("off"), rel=0.03)


def test_evaluation_reports_the_query_times_protocol() -> None:
    """The run's evaluation follows the model, whatever was asked for."""
    asked = RunConfig.parse({"model": {"name": "tisasrec", "query_time": True}})
    assert asked.evaluate.query_time
    assert asked.evaluate.key == "full+query-time"
    assert asked.validation_label == "ndcg@10|qtime"
    for settings in ({"name": "tisasrec"}, {"name": "sasrec"}):
        run = RunConfig.parse({"model": settings, "evaluate": {"query_time": True}})
        assert not run.evaluate.query_time
        assert run.validation_label == "ndcg@10"
    assert RunConfig.parse({"model": {"name": "tisasrec", "query_time": True}, "evaluate": {}}).evaluate.query_time
    assert asked.replace(model=SASRecConfig()).evaluate == EvaluateConfig()


def changed_targets(split: Split, seconds: int) -> Split:
    """The same split with the test targets' times moved."""
    store = split.train.store
    assert store.times is not None
    times = store.times.copy()
    times[split.test.target_B] += seconds
    moved = SequenceStore.from_arrays(
        offsets=store.offsets, items=store.items, times=times, item_ids=store.item_ids, users=store.users
    )
    return make_split(moved, SplitConfig())


@pytest.mark.parametrize("query_time", [False, True])
def test_the_targets_time_is_known_with_query_time_alone(query_time: bool) -> None:
    split = make_split(gap_tells(60), SplitConfig())
    config = run_config(SMALL.replace(query_time=query_time))
    model = model_of(query_time=query_time)
    first, second = (
        evaluate(model, part.test, config.evaluate.replace(filter_seen=False), part.train).rank_B
        for part in (split, changed_targets(split, 400 * HOUR))
    )
    assert (first == second).all() != query_time
