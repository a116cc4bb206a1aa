"""`ensue compare`: several runs, seeds, gates, and protocols that put two runs in different orders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ensue.cli.compare import reversals
from ensue.data.split import make_split
from ensue.data.store import SequenceStore
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.significance import benjamini_hochberg, holm
from ensue.evaluation.standings import Standings
from ensue.files import read_json, sha256, write_json
from ensue.runs.evaluations import save_evaluation
from ensue.runs.load import load_run

from .conftest import Outcome, Run

FULL = EvaluateConfig(metrics=("hr@10", "ndcg@10", "mrr"))
SAMPLED = FULL.replace(protocol="uniform-100")


def evaluated(folder: Path, store: Path, places: dict[EvaluateConfig, list[int]]) -> None:
    """File evaluations in which the targets' places repeat those given (0: the first)."""
    run, data = load_run(folder), SequenceStore.open(store)
    cases = make_split(data, run.config.split).test
    for config, better in places.items():
        zero = np.zeros(len(cases), dtype=np.int64)
        better_B = np.resize(np.array(better), len(cases))
        standings = Standings(cases.users_B, cases.target_items_B, better_B, zero, zero + 101, zero.astype(bool))
        save_evaluation(folder, run, data, "test", config, standings)


@pytest.fixture
def runs(ensue: Run, store: Path, tmp_path: Path) -> tuple[Path, Path]:
    """By all items `a` is better: half of the targets come first. By a sample `b` is: all come second."""
    a, b = tmp_path / "a", tmp_path / "b"
    for run, model in ((a, "markov"), (b, "popularity")):
        assert ensue("train", store, "--model", model, "--out", run).status == 0
    evaluated(a, store, {FULL: [0, 90], SAMPLED: [0, 90]})
    evaluated(b, store, {FULL: [15], SAMPLED: [1]})
    return a, b


def reversed_of(done: Outcome) -> dict[str, Any]:
    (comparison,) = done.json["comparisons"]
    turned: dict[str, Any] = comparison["reversed"]
    return turned


def test_a_sampled_protocol_that_turns_the_order_round_is_named(ensue: Run, runs: tuple[Path, Path]) -> None:
    shown = ensue("compare", *runs).out
    # Half in the first place, or all in the second: HR@10 1/2 and 1, NDCG@10 1/2 and 1/log2(3), MRR about 1/2 both.
    line = "under uniform-100 the order is reversed: hr@10|uni100 0.5000 and 1.0000, "
    assert line + "ndcg@10|uni100 0.5000 and 0.6309" in shown.splitlines()
    payload = reversed_of(ensue("compare", *runs, "--json"))
    assert payload["uniform-100"].keys() == {"hr@10|uni100", "ndcg@10|uni100"}
    assert payload["uniform-100"]["hr@10|uni100"] == {"mean_a": 0.5, "mean_b": 1.0}
    other = reversed_of(ensue("compare", *reversed(runs), "--protocol", "uniform-100", "--json"))
    assert other["full"]["ndcg@10"] == {"mean_a": 0.0, "mean_b": 0.5}


def test_one_order_is_not_mentioned(ensue: Run, store: Path, runs: tuple[Path, Path]) -> None:
    evaluated(runs[1], store, {SAMPLED: [50]})
    assert "order is reversed" not in ensue("compare", *runs).out
    assert reversed_of(ensue("compare", *runs, "--json")) == {}


def entry(seed: int = 0, fingerprint: str = "f", **metrics: float) -> dict[str, object]:
    settings = {"metrics": list(metrics), "evaluation_seed": seed}
    return {"settings": settings, "fingerprint": fingerprint, "metrics": metrics}


def test_the_table_is_read_that_was_checked(ensue: Run, runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Whatever folder an entry names, the table is the one in the run's own, whose hash is in the entry."""
    (tmp_path / "elsewhere").mkdir()
    before = ensue("compare", *runs, "--json").json
    results = read_json(runs[0] / "metrics.json")
    entry = results["test/full"]
    table = pl.read_parquet(runs[0] / entry["per_user"])
    table.with_columns(pl.lit(1.0).alias("ndcg@10")).write_parquet(tmp_path / "elsewhere" / entry["per_user"])
    entry["per_user"] = f"../elsewhere/{entry['per_user']}"
    content = {name: value for name, value in entry.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(["test/full", content], sort_keys=True).encode()).hexdigest()
    write_json(runs[0] / "metrics.json", {**results, "test/full": {**content, "sha256": digest}})
    assert ensue("compare", *runs, "--json").json == before


def test_only_like_evaluations_are_held_against_each_other() -> None:
    a = {"test/full": entry(mrr=0.5, hr=0.2), "test/x": entry(mrr=0.1), "validation/x": entry(mrr=0.1)}
    full = {"test/full": entry(mrr=0.4)}
    assert reversals(a, {**full, "test/x": entry(mrr=0.3)}, "test", "full") == {"x": {"mrr": (0.1, 0.3)}}
    for lacking in (
        {},
        {"validation/x": entry(mrr=0.3)},
        {"test/x": entry(seed=1, mrr=0.3)},
        {"test/x": entry(fingerprint="g", mrr=0.3)},
        {"test/x": entry(hr=0.3)},
        {"test/x": entry(mrr=0.1)},
        {"test/x": entry(mrr=0.05)},
    ):
        assert reversals(a, {**full, **lacking}, "test", "full") == {}


@pytest.fixture
def seeds(ensue: Run, store: Path, tmp_path: Path) -> list[Path]:
    """A model of three seeds, and another of one; their targets' places differ by seed."""
    folders = [*(tmp_path / f"a{seed}" for seed in range(3)), tmp_path / "b"]
    for seed, run in enumerate(folders[:3]):
        assert ensue("train", store, "--model", "markov", "--seed", seed, "--out", run).status == 0
        evaluated(run, store, {FULL: [0, 3 + seed, 90]})
    assert ensue("train", store, "--model", "popularity", "--out", folders[3]).status == 0
    evaluated(folders[3], store, {FULL: [40]})
    return folders


def test_seeds_are_one_model(ensue: Run, seeds: list[Path]) -> None:
    done = ensue("compare", *seeds, "--json")
    assert [model["seeds"] for model in done.json["models"]] == [[0, 1, 2], [0]]
    (comparison,) = done.json["comparisons"]
    assert comparison["a"] == f"{seeds[0]} (3 seeds)"
    ndcg = comparison["metrics"]["ndcg@10"]
    each = [ensue("compare", run, seeds[3], "--json").json["comparisons"][0]["metrics"]["ndcg@10"] for run in seeds[:3]]
    assert ndcg["mean_a"] == pytest.approx(np.mean([other["mean_a"] for other in each]))
    assert ndcg["num_seeds"] == [3, 1]
    assert f"{seeds[3]}: one seed, whose variation is unknown" in done.err
    alone = ensue("compare", *seeds[:3], "--json").json
    assert [model["seeds"] for model in alone["models"]] == [[0], [1], [2]]
    again = ensue("compare", *seeds[:2], *seeds[:2], "--gate", "ndcg@10 > -0.1%", "--json")
    assert (again.status, [model["seeds"] for model in again.json["models"]]) == (0, [[0, 1], [0, 1]])


def test_several_models_are_one_family_of_tests(ensue: Run, runs: tuple[Path, Path], seeds: list[Path]) -> None:
    done = ensue("compare", runs[0], seeds[0], seeds[3], "--test", "wilcoxon", "--json").json
    assert [entry["b"] for entry in done["comparisons"]] == [str(seeds[0]), str(seeds[3])]
    metrics = [entry for comparison in done["comparisons"] for entry in comparison["metrics"].values()]
    p = [entry["p"]["wilcoxon"] for entry in metrics]
    assert [entry["p_holm"] for entry in metrics] == pytest.approx(holm(p))
    assert [entry["p_bh"] for entry in metrics] == pytest.approx(benjamini_hochberg(p))
    assert done["conclusion"].startswith(f"{runs[0]} and {seeds[0]} do not differ significantly in ndcg@10: ")
    assert f"{runs[0]} is better than {seeds[3]} in ndcg@10: " in done["conclusion"]
    assert done["passed"] is None


def test_a_gate_sets_the_exit_status(ensue: Run, store: Path, runs: tuple[Path, Path]) -> None:
    evaluated(runs[1], store, {FULL: [9, 90, 90, 90]})
    passed = ensue("compare", *runs, "--gate", "ndcg@10 > -0.5%", "--gate", "hr@10 > 0.1")
    assert passed.status == 0
    assert passed.out.count(": passed: ") == 2
    failed = ensue("compare", *reversed(runs), "--gate", "ndcg@10 > -0.5%", "--gate", "hr@10 within 2", "--json")
    assert (failed.status, failed.json["passed"]) == (3, False)
    assert [gate["passed"] for gate in failed.json["gates"]] == [False, True]
    assert "not passed" in failed.err
    for folder in runs:
        assert ensue("compare", folder, folder, "--gate", "ndcg@10 > -0.5%").status == 0
    assert ensue("compare", *runs, "--gate", "ndcg@10 about 3").status == 2
    unknown = ensue("compare", *runs, "--gate", "auc > 0")
    assert "auc was not evaluated" in unknown.err
    assert "a - b" not in unknown.out


def test_cases_of_one_user_count_once(ensue: Run, runs: tuple[Path, Path], store: Path) -> None:
    """A hundred cases of each of two users are two observations, whatever the number of cases."""
    for folder in runs:
        results = read_json(folder / "metrics.json")
        path = folder / results["test/full"]["per_user"]
        table = pl.read_parquet(path)
        half = pl.when(pl.int_range(pl.len()) < pl.len() // 2)
        table.with_columns(user=half.then(pl.lit("x")).otherwise(pl.lit("y"))).write_parquet(path)
        content = {name: value for name, value in results["test/full"].items() if name != "sha256"}
        content["per_user_sha256"] = sha256(path)
        digest = hashlib.sha256(json.dumps(["test/full", content], sort_keys=True).encode()).hexdigest()
        write_json(folder / "metrics.json", {**results, "test/full": {**content, "sha256": digest}})
    (comparison,) = ensue("compare", *runs, "--json").json["comparisons"]
    assert comparison["metrics"]["ndcg@10"]["num_users"] == 2


def test_what_cannot_be_compared_is_refused(ensue: Run, runs: tuple[Path, Path]) -> None:
    a, b = runs
    assert "compare needs 2 or more run folders (got 1)" in ensue("compare", a).err
    assert f"once (got {b}, {b})" in ensue("compare", a, b, b).err
    assert ensue("compare").status == 2


def test_metrics_of_lists_have_no_pairs(ensue: Run, store: Path, tmp_path: Path) -> None:
    """Coverage has one value for all cases, so no test."""
    for name in ("markov", "popularity"):
        assert ensue("train", store, "--model", name, "--out", tmp_path / name).status == 0
        assert ensue("evaluate", tmp_path / name, "--list-metrics", "coverage@10,novelty@10").status == 0
    done = ensue("compare", tmp_path / "markov", tmp_path / "popularity", "--json")
    assert "novelty@10" in done.json["comparisons"][0]["metrics"]
    assert "coverage@10" not in done.json["comparisons"][0]["metrics"]
