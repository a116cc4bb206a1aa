"""`ensue compare` of two runs that protocols put in different orders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ensue.cli.compare import reversals
from ensue.data.split import make_split
from ensue.data.store import SequenceStore
from ensue.evaluation.protocol import EvaluateConfig
from ensue.evaluation.standings import Standings
from ensue.files import read_json, write_json
from ensue.runs.evaluations import save_evaluation
from ensue.runs.load import load_run

from .conftest import Run

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


def test_a_sampled_protocol_that_turns_the_order_round_is_named(ensue: Run, runs: tuple[Path, Path]) -> None:
    shown = ensue("compare", *runs).out
    # Half in the first place, or all in the second: HR@10 1/2 and 1, NDCG@10 1/2 and 1/log2(3), MRR about 1/2 both.
    line = "under uniform-100 the order is reversed: hr@10|uni100 0.5000 and 1.0000, "
    assert line + "ndcg@10|uni100 0.5000 and 0.6309" in shown.splitlines()
    payload = ensue("compare", *runs, "--json").json["reversed"]
    assert payload["uniform-100"].keys() == {"hr@10|uni100", "ndcg@10|uni100"}
    assert payload["uniform-100"]["hr@10|uni100"] == {"mean_a": 0.5, "mean_b": 1.0}
    other = ensue("compare", *reversed(runs), "--protocol", "uniform-100", "--json").json["reversed"]
    assert other["full"]["ndcg@10"] == {"mean_a": 0.0, "mean_b": 0.5}


def test_one_order_is_not_mentioned(ensue: Run, store: Path, runs: tuple[Path, Path]) -> None:
    evaluated(runs[1], store, {SAMPLED: [50]})
    assert "order is reversed" not in ensue("compare", *runs).out
    assert ensue("compare", *runs, "--json").json["reversed"] == {}


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
