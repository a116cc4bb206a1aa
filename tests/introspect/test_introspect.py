"""What inspect measures, against the models' own computations and against worlds with known answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.classic.models import fill_left
from ensue.data.store import SequenceStore
from ensue.datasets.simulate import SimulateConfig, simulate
from ensue.errors import ConfigError, DataError
from ensue.introspect import GainReport, attention_report, gain_report, inspect_run, time_report
from ensue.introspect.attention import LayerInput, attention_maps, visit_attention, whole_buckets
from ensue.models import Catalogue, Model, build_model, model_config
from ensue.nn.embedding import initialise
from ensue.nn.hyper_connections import HyperConnection
from ensue.nn.ops.attention import naive_attention
from ensue.nn.ops.relation_terms import Terms
from ensue.plots import draw_inspection
from ensue.plots.attention import pools, spread
from ensue.recommender import Recommender, read
from ensue.runs.config import RunConfig
from ensue.runs.run import Run

LENGTHS = np.array([4, 9, 1, 50])
NUM_ITEMS = 30


def make_model(seed: int = 0, **settings: Any) -> Model:
    config = model_config({"maxlen": 60, "hidden_units": 8, "num_heads": 2, "num_blocks": 2, **settings})
    model = build_model(config, Catalogue(NUM_ITEMS))
    initialise(model, seed)
    # Initial tables and gates are too small to tell a wrong term from a right one.
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("items"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def make_batch(lengths: np.ndarray = LENGTHS) -> SequenceBatch:
    rng = np.random.default_rng(3)
    times = np.concatenate([np.cumsum(rng.integers(0, 900, length)) for length in lengths])
    return SequenceBatch.from_numpy(rng.integers(1, NUM_ITEMS + 1, len(times)), lengths, times)


def sasrec(**settings: Any) -> Model:
    return make_model(name="sasrec", **settings)


def tisasrec(**settings: Any) -> Model:
    return make_model(name="tisasrec", time_span=20, **settings)


def padded(**settings: Any) -> Model:
    """Its rows are filled to 60 places, and the longest history has 50 events."""
    return make_model(name="sasrec-padded", **settings)


def padded_in_time(**settings: Any) -> Model:
    return make_model(name="tisasrec-padded", time_span=20, **settings)


@pytest.mark.parametrize("residual", ["plain", "hc", "mhc", "mhc_lite", "gated"])
@pytest.mark.parametrize("norm", ["pre", "post", "original"])
def test_measuring_changes_nothing(residual: str, norm: str) -> None:
    model, batch = tisasrec(residual=residual, norm=norm, dropout_rate=0.5), make_batch()
    before, names = cast(Any, model).encode(batch), list(model.state_dict())
    model.train()
    generator = torch.get_rng_state()
    gain_report(model, batch)
    attention_report(model, batch)
    time_report(model, batch)
    assert model.training
    assert torch.equal(generator, torch.get_rng_state())
    assert list(model.state_dict()) == names
    model.eval()
    assert torch.equal(before, cast(Any, model).encode(batch))


def test_a_failed_measurement_leaves_the_model_as_it_was() -> None:
    model = tisasrec(residual="mhc")
    names = list(model.state_dict())
    with pytest.raises(DataError, match="times"):
        gain_report(model, SequenceBatch.from_lists([[1, 2]]))
    assert list(model.state_dict()) == names
    assert not any("Measured" in type(part).__name__ for part in model.modules())


def test_norms_are_those_of_the_blocks() -> None:
    model, batch = sasrec(num_blocks=3), make_batch()
    entered: list[Tensor] = []
    trunk: Any = model.trunk
    for block in trunk.blocks:
        block.register_forward_pre_hook(lambda _, given: entered.append(given[0][0]))
    left: list[Tensor] = []
    trunk.norm.register_forward_pre_hook(lambda _, given: left.append(given[0]))
    report = gain_report(model, batch)
    for block, state in enumerate(entered):
        assert report.sublayers[2 * block].stream_norm == pytest.approx(float(state.norm(dim=-1).mean()), rel=1e-6)
    assert report.final_norm == pytest.approx(float(left[-1].norm(dim=-1).mean()), rel=1e-6)
    assert report.events == LENGTHS.sum()
    assert [(entry.block, entry.part) for entry in report.sublayers[:3]] == [
        (1, "attention"),
        (1, "feed-forward"),
        (2, "attention"),
    ]
    assert report.composite is None


def test_reports_of_parts_are_the_report_of_the_whole() -> None:
    model = sasrec(residual="hc")
    whole = gain_report(model, make_batch())
    twice = gain_report(model, make_batch(), make_batch())
    assert twice.events == 2 * whole.events
    for one, both in zip(whole.sublayers, twice.sublayers, strict=True):
        assert one.stream_norm == pytest.approx(both.stream_norm)
        assert one.mixing is not None
        assert both.mixing is not None
        assert one.mixing.composite.forward_max == both.mixing.composite.forward_max
        np.testing.assert_allclose(one.mixing.h_res, both.mixing.h_res)


def fix_mixing(model: Model, matrices: list[list[list[float]]]) -> None:
    """Make hc's H_res these matrices for every event, whatever the streams."""
    parts = [part for part in model.modules() if isinstance(part, HyperConnection)]
    with torch.no_grad():
        for part, matrix in zip(parts, matrices, strict=True):
            part.mixing.gates.zero_()
            part.mixing.start.copy_(torch.tensor([1.0, 0.0, 0.5, 2.0, *np.ravel(matrix)]))


def test_gains_of_known_matrices() -> None:
    model = sasrec(residual="hc", mhc_expansion_rate=2, num_blocks=1)
    fix_mixing(model, [[[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [-3.0, 1.0]]])
    first, second = (entry.mixing for entry in gain_report(model, make_batch()).sublayers)
    assert first is not None
    assert second is not None
    assert (first.gain.forward, first.gain.backward) == (3.0, 3.0)
    assert (second.gain.forward, second.gain.backward_max) == (4.0, 4.0)
    assert first.off_diagonal == pytest.approx(0.5)
    assert second.h_pre == [1.0, 0.0]
    assert second.h_post == [0.5, 2.0]
    # The second times the first: [[1, 2], [-3, -5]].
    assert (second.composite.forward, second.composite.backward) == (8.0, 7.0)
    assert first.similarity == pytest.approx(1.0)
    assert second.similarity < 0.9999


def composite(model: Model) -> float:
    result = gain_report(model, make_batch()).composite
    assert result is not None
    return result.forward_max


def test_composite_gain_is_bounded_on_the_manifold_alone() -> None:
    bounded = {name: composite(sasrec(residual=name, num_blocks=6)) for name in ("mhc", "mhc_lite")}
    assert all(value == pytest.approx(1.0, abs=1e-3) for value in bounded.values())
    assert composite(sasrec(residual="hc", num_blocks=6)) > 2.0


def test_gates_are_reported() -> None:
    model = sasrec(residual="gated")
    trunk: Any = model.trunk
    with torch.no_grad():
        for block in trunk.blocks:
            block.attention_residual.gate.weight.zero_()
            block.attention_residual.gate.bias.fill_(0.0)
            block.feed_forward_residual.gate.weight.zero_()
            block.feed_forward_residual.gate.bias.fill_(np.log(3.0))
    gates = [entry.gate for entry in gain_report(model, make_batch()).sublayers]
    assert gates == pytest.approx([0.5, 0.75, 0.5, 0.75])


def watched(model: Model, batch: SequenceBatch) -> Iterator[tuple[LayerInput, Tensor]]:
    """What inspect saw of each block, and what the attention layer gave."""
    outputs: list[Tensor] = []
    trunk: Any = model.trunk
    handles = [b.attention.register_forward_hook(lambda _, __, y: outputs.append(y.detach())) for b in trunk.blocks]
    seen: list[LayerInput] = []
    visit_attention(model, seen.append, batch)
    for handle in handles:
        handle.remove()
    return zip(seen, outputs, strict=True)


TIMES = [{}, {"relation": "bias", "buckets": "log"}, {"norm": "original"}, {"time": "order"}]


@pytest.mark.parametrize("settings", TIMES)
@pytest.mark.parametrize("length", [1, 7, 50, 90])
def test_maps_give_the_layers_own_output(settings: dict[str, Any], length: int) -> None:
    """Weights times values, through the output projection, is what the layer computed by its own way."""
    model, batch = tisasrec(maxlen=100, **settings), make_batch(np.array([length]))
    trunk: Any = model.trunk
    for block, (layer, output) in zip(trunk.blocks, watched(model, batch), strict=True):
        weights_HTT = layer.whole_map().detach()
        assert float(weights_HTT.triu(1).abs().max()) == 0.0
        relations = layer.relations
        assert relations is not None
        bucket_TT = whole_buckets(relations, length)[0]
        v_PD = values(block.attention, model, batch, layer.block)
        if relations.position_PE is not None:
            v_PD = v_PD + relations.position_PE.chunk(3, -1)[2]
        mixed_HTD = weights_HTT @ heads(v_PD)
        keys_HRD = None
        if relations.keys_BRD is not None and relations.values_BRD is not None:
            keys_HRD, values_HRD = heads(relations.keys_BRD[0]), heads(relations.values_BRD[0])
            mixed_HTD = mixed_HTD + (weights_HTT[..., None] * values_HRD[:, bucket_TT]).sum(2)
        made = block.attention.out(mixed_HTD.transpose(0, 1).flatten(1))
        torch.testing.assert_close(made, output, rtol=1e-4, atol=1e-5)
        zeros = torch.eye(length)[None].expand(2, -1, -1)
        terms = Terms(keys_HRD, None, relations.bias_HR)
        naive = naive_attention(heads(layer.queries_PD), heads(layer.keys_PD), zeros, terms=terms, bucket_TT=bucket_TT)
        torch.testing.assert_close(weights_HTT, naive, rtol=1e-4, atol=1e-6)


def heads(x_TD: Tensor) -> Tensor:
    return x_TD.unflatten(1, (2, -1)).transpose(0, 1)


def values(layer: Any, model: Model, batch: SequenceBatch, block: int) -> Tensor:
    """The projected values of one block's attention."""
    taken: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, given: taken.append(given[1]))
    with torch.no_grad():
        cast(Any, model).encode(batch)
    handle.remove()
    result: Tensor = layer.qkv(taken[0]).chunk(3, -1)[2]
    return result


@pytest.mark.parametrize("make", [sasrec, tisasrec, padded, padded_in_time])
def test_newest_attention_is_the_last_row_of_the_map(make: Any) -> None:
    """Batched by rectangles, for rows of different lengths, against each row's whole map alone."""
    model = make(num_blocks=2)
    batch = make_batch()
    report = np.asarray(attention_report(model, batch).share)
    expected = np.zeros_like(report)
    ends = np.cumsum(LENGTHS)
    for start, stop in zip(ends - LENGTHS, ends, strict=True):
        assert batch.times_P is not None
        row = SequenceBatch.from_numpy(
            batch.items_P[start:stop].numpy(), np.array([stop - start]), batch.times_P[start:stop].numpy()
        )
        for block, weights_HTT in enumerate(attention_maps(model, row)):
            expected[block, :, : stop - start] += weights_HTT[:, -1].flip(-1).numpy() / len(LENGTHS)
    np.testing.assert_allclose(report, expected, atol=1e-6)
    if make in (padded, padded_in_time):
        assert (report.sum(-1) < 0.9).all()
    else:
        np.testing.assert_allclose(report.sum(-1), 1.0, atol=1e-6)


@pytest.mark.parametrize("make", [padded, padded_in_time])
def test_padding_that_is_attended_is_no_event(make: Any) -> None:
    model, batch = make(), make_batch()
    inner = fill_left(batch, 60)
    entered: list[Tensor] = []
    cast(Any, model.trunk).blocks[1].register_forward_pre_hook(lambda _, given: entered.append(given[0][0]))
    report = gain_report(model, batch)
    assert report.events == LENGTHS.sum()
    norm = float(entered[0][inner.cell_P].norm(dim=-1).mean())
    assert report.sublayers[2].stream_norm == pytest.approx(norm, rel=1e-6)
    ages = attention_report(model, batch)
    assert len(ages.uniform) == LENGTHS.max()
    assert ages.uniform[0] == pytest.approx(1 / 60)
    assert sum(ages.uniform) == pytest.approx(LENGTHS.sum() / 60 / len(LENGTHS))
    (layer, _), *_ = watched(model, make_batch(np.array([5])))
    assert layer.whole_map().shape == (2, 60, 60)
    torch.testing.assert_close(
        attention_maps(model, make_batch(np.array([5])))[0], layer.whole_map()[:, 55:, 55:].detach()
    )


def test_padding_is_at_no_interval() -> None:
    model, batch = padded_in_time(), make_batch()
    report = time_report(model, batch)
    assert report is not None
    assert report.unit == "smallest gaps"
    assert sum(report.uniform) == pytest.approx(LENGTHS.sum() / 60 / len(LENGTHS))
    by_age = np.asarray(attention_report(model, batch).share)
    np.testing.assert_allclose(np.asarray(report.share).sum(-1), by_age.sum(-1), atol=1e-6)
    in_hours = time_report(padded_in_time(time_unit=3600), batch)
    assert in_hours is not None
    assert (in_hours.unit, in_hours.edges[:3]) == ("seconds", [0.0, 3600.0, 7200.0])


def test_indifferent_queries_look_at_all_alike() -> None:
    model = sasrec()
    with torch.no_grad():
        for block in cast(Any, model.trunk).blocks:
            block.attention.qkv.weight[:8] = 0.0
            block.attention.qkv.bias[:8] = 0.0
    report = attention_report(model, make_batch())
    np.testing.assert_allclose(report.share[1][0], report.uniform, atol=1e-6)
    assert report.uniform[0] == pytest.approx((1 / LENGTHS).mean())
    assert report.uniform[30] == pytest.approx(1 / 50 / len(LENGTHS))


def test_learned_bias_is_found_in_attention() -> None:
    """A bias towards one bucket draws attention to the events of that bucket."""
    model = tisasrec(relation="bias", buckets="linear", time_unit=100, num_heads=2)
    with torch.no_grad():
        cast(Any, model).relations.interval_bias.zero_()[0, 3] = 20.0
    batch = SequenceBatch.from_numpy(np.array([1, 2, 3, 4]), np.array([4]), np.array([0, 350, 600, 701]))
    report = time_report(model, batch)
    assert report is not None
    assert (report.relation, report.unit, report.edges[:3]) == ("bias", "seconds", [0.0, 100.0, 200.0])
    assert np.asarray(report.term).shape == (1, 2, 21)
    assert report.term[0][0][3] == 20.0
    # Intervals 701, 351, 101 and 0: buckets 7, 3, 1, 0.
    assert np.flatnonzero(report.uniform).tolist() == [0, 1, 3, 7]
    assert report.share[0][0][3] > 0.99
    assert report.share[0][1][3] < 0.9


def test_embedding_terms_are_queries_times_vectors() -> None:
    model, batch = tisasrec(num_blocks=1), make_batch(np.array([6]))
    report = time_report(model, batch)
    assert report is not None
    assert report.unit == "smallest gaps"
    ((layer, _),) = watched(model, batch)
    table = heads(cast(Any, model).relations.interval_keys)
    expected = torch.einsum("hd,hrd->hr", heads(layer.queries_PD)[:, -1], table) / 2.0
    np.testing.assert_allclose(report.term[0], expected.detach().numpy(), atol=1e-5)


def test_log_buckets_have_growing_edges() -> None:
    report = time_report(tisasrec(relation="bias", buckets="log"), make_batch())
    assert report is not None
    assert report.unit == "seconds"
    assert report.edges[0] == 0.0
    assert report.edges[10] == pytest.approx(np.exp(3.01))
    in_events = time_report(tisasrec(time="order"), make_batch())
    assert in_events is not None
    assert in_events.unit == "events"


def test_a_model_without_times_has_no_time_report() -> None:
    assert time_report(sasrec(), make_batch()) is None


@pytest.mark.parametrize("name", ["popularity", "markov"])
def test_counted_models_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="has no transformer blocks"):
        gain_report(build_model(model_config({"name": name}), Catalogue(5)), make_batch())


def test_attention_without_weights_of_pairs_is_refused() -> None:
    with pytest.raises(ConfigError, match="inspect needs attention 'full'"):
        attention_maps(sasrec(attention="linear"), make_batch())


@pytest.fixture(scope="module")
def world() -> SequenceStore:
    made = simulate(SimulateConfig(num_users=60, num_items=60, max_length=25, min_length=8))
    return read(made.interactions, items=made.items)


def run_of(world: SequenceStore, **settings: Any) -> Run:
    recommender = Recommender(**{"num_epochs": 1, "hidden_units": 8, "maxlen": 20, "loss": "ce", **settings}).fit(world)
    assert recommender.run is not None
    return recommender.run


def test_a_run_is_inspected(world: SequenceStore, tmp_path: Path) -> None:
    run = run_of(world, model="tisasrec", residual="mhc", num_heads=2)
    result = inspect_run(run, world, users=40)
    assert (result.model, result.residual, result.histories) == ("tisasrec", "mhc", 40)
    assert result.gains.composite is not None
    assert len(result.example.maps) == 2
    assert result.example.maps[0].shape == (2, len(result.example.items), len(result.example.items))
    assert all(result.example.titles)
    again = inspect_run(run, world, users=40)
    assert again.payload() == result.payload()
    assert inspect_run(run, world, users=40, seed=1).gains != result.gains
    assert inspect_run(run, world, users=10_000).histories == world.num_users
    names = {path.name for path in draw_inspection(result, tmp_path)}
    pictures = ("norms", "mixing", "gains", "streams", "attention_ages", "attention_maps", "intervals")
    assert names == {f"{name}.{form}" for name in pictures for form in ("svg", "png")}
    assert names == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", ["sasrec-padded", "tisasrec-padded"])
def test_a_padded_run_wider_than_the_plot_is_inspected(world: SequenceStore, tmp_path: Path, name: str) -> None:
    result = inspect_run(run_of(world, model=name, maxlen=40), world, users=40)
    size = len(result.example.items)
    assert size <= 24
    assert {tuple(weights.shape) for weights in result.example.maps} == {(1, size, size)}
    assert len(result.attention.uniform) <= 25
    assert len(draw_inspection(result, tmp_path)) >= 6


def test_query_time_models_get_the_requests_time(world: SequenceStore) -> None:
    run = run_of(world, model="tisasrec", query_time=True, relation="bias", buckets="log", residual="gated")
    result = inspect_run(run, world, users=20)
    assert result.time is not None
    # The newest event lies before the request, so its interval is not zero.
    assert result.time.uniform[0] < 0.01
    assert result.gains.sublayers[0].gate is not None


def test_other_data_is_refused(world: SequenceStore) -> None:
    run = run_of(world, model="sasrec")
    other = SequenceStore.from_arrays(np.array([0, 4]), np.array([1, 2, 3, 4]))
    with pytest.raises(DataError, match="item numbers would differ"):
        inspect_run(run, other)


def test_the_report_of_a_fresh_manifold_is_that_of_the_plain_network() -> None:
    """mHC starts as the plain residual network, so their norms agree."""

    def fresh(residual: str) -> GainReport:
        model = build_model(
            model_config({"name": "sasrec", "residual": residual, "hidden_units": 8}), Catalogue(NUM_ITEMS)
        )
        initialise(model, 0)
        return gain_report(model, make_batch())

    for plain, manifold in zip(fresh("plain").sublayers, fresh("mhc").sublayers, strict=True):
        assert plain.output_norm == pytest.approx(manifold.output_norm, rel=0.02)


def test_panels_are_spread_and_points_pooled() -> None:
    assert spread(3, 8) == [0, 1, 2]
    assert spread(32, 4) == [0, 10, 21, 31]
    places = np.arange(1, 258)
    runs = pools(places)
    assert [number for run in runs for number in places[run]] == places.tolist()
    assert runs[-1] == slice(256, 257)
    assert len(runs) < 30
    assert pools(np.array([5.0])) == [slice(0, 1)]


def test_settings_of_a_run_are_not_needed_for_gains() -> None:
    """The depth study has a model and a batch, and no run."""
    config = RunConfig.parse({"model": {"name": "sasrec", "residual": "hc", "num_blocks": 16, "hidden_units": 8}})
    model = build_model(config.model, Catalogue(NUM_ITEMS))
    initialise(model, 0)
    report = gain_report(model, make_batch())
    assert len(report.sublayers) == 32
    assert report.composite is not None
