"""`ensue bench`: three models on a toy, interrupted and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from ensue.cli import bench as command
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError, TrainingError
from ensue.leaderboard import bench
from ensue.leaderboard.budget import parse_duration, shares
from ensue.leaderboard.page import compared
from ensue.recipes.estimate import Estimate
from ensue.recipes.suited import comparable, suited

from .conftest import Run

TOY = ("--models", "popularity,markov,sasrec", "--budget", "1h")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch is said to take so long that two fit into an hour, also on a busy machine."""
    monkeypatch.setattr(bench, "estimate", lambda *_: Estimate(1300.0, 1.0, 1.0))


def test_three_models_give_one_page(ensue: Run, store: Path, tmp_path: Path, quick: None) -> None:
    out = tmp_path / "bench"
    done = ensue("bench", store, *TOY, "--out", out)
    assert done.status == 0, done.err
    assert done.out.splitlines()[-1].startswith(f"next: ensue compare {out / 'runs'}/")
    page = json.loads((out / "leaderboard.json").read_text())
    assert {row["name"] for row in page["rows"]} == {"popularity", "markov", "sasrec"}
    scores = [row["scores"]["ndcg@10"] for row in page["rows"]]
    assert [score["mean"] for score in scores] == sorted((score["mean"] for score in scores), reverse=True)
    assert scores[0]["mark"] == "best"
    for row in page["rows"]:
        score, results = row["scores"]["ndcg@10"], row["results"]
        assert score["low"] < score["mean"] < score["high"]
        assert results["metrics"]["ndcg@10"] == pytest.approx(score["mean"])
        assert 0 < results["coverage@10"] <= 1
        assert results["request_ms"]["p50"] > 0
        assert results["peak_bytes"] > 2**20
        assert (results["epochs"], results["parameters"] > 0) == ((2, True) if row["name"] == "sasrec" else (0, False))
    text = (out / "leaderboard.md").read_text()
    assert f"ensue bench {store} --models popularity,markov,sasrec --budget 1h --out {out}" in text
    assert f"**{scores[0]['mean']:.4f}**" in text
    assert (out / "leaderboard.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_bench_goes_on(
    ensue: Run, store: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, measured = tmp_path / "bench", bench.measured

    def interrupted(recommender: object, data: object, folder: Path) -> dict[str, object]:
        if folder.name == "sasrec":
            raise KeyboardInterrupt
        return measured(recommender, data, folder)

    monkeypatch.setattr(bench, "measured", interrupted)
    stopped = ensue("bench", store, *TOY, "--out", out)
    assert (stopped.status, stopped.out.count("finished before")) == (130, 0)
    assert f"goes on: ensue bench {store} --models" in stopped.err
    written = (out / "runs" / "markov" / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(bench, "measured", measured)
    done = ensue("bench", store, *TOY, "--out", out)
    assert done.status == 0, done.err
    assert "finished before: popularity, markov" in done.out
    assert (out / "runs" / "markov" / "model.safetensors").stat().st_mtime_ns == written
    assert len(json.loads((out / "leaderboard.json").read_text())["rows"]) == 3
    # Another protocol would mix rows that cannot be compared.
    other = ensue("bench", store, *TOY, "--out", out, "--no-filter-seen")
    assert (other.status, "another protocol: full then, full-with-seen now" in other.err) == (1, True)


def test_a_model_that_cannot_use_the_data_is_a_row_that_says_why(
    ensue: Run, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    SequenceStore.from_arrays(*_lists()).save(data)
    done = ensue("bench", data, "--models", "popularity,tisasrec,tisasrec-query-time", "--out", tmp_path / "out")
    assert done.status == 0, done.err
    page = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert [row["name"] for row in page["rows"]] == ["popularity"]
    reasons = {row["name"]: row["reason"] for row in page["left_out"]}
    assert "the data has none" in reasons["tisasrec"]
    assert "its protocol is full+query-time" in reasons["tisasrec-query-time"]
    assert "- tisasrec: " in (tmp_path / "out" / "leaderboard.md").read_text()
    # No epoch of this model fits into the budget.
    monkeypatch.setattr(bench, "estimate", lambda *_: Estimate(100.0, 1.0, 1.0))
    late = ensue("bench", data, "--models", "sasrec", "--budget", "30s", "--out", tmp_path / "late")
    assert (late.status, "one epoch and its evaluation take about 1.7 minutes" in late.err) == (1, True)


def _lists() -> tuple[object, object]:
    import numpy as np

    items = np.concatenate([np.roll(np.arange(1, 13), place) for place in range(12)]).astype(np.int32)
    return np.arange(0, 145, 12), items


def test_a_foreign_folder_and_an_unknown_model_are_refused(ensue: Run, store: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = ensue("bench", store, "--out", tmp_path)
    assert (done.status, "is not a bench" in done.err) == (1, True)
    done = ensue("bench", store, "--models", "sasrek", "--out", tmp_path / "new")
    assert (done.status, "did you mean 'sasrec'" in done.err) == (2, True)
    assert ensue("bench", store, "--budget", "soon", "--out", tmp_path / "new").status == 2
    assert not (tmp_path / "new").exists()


def test_a_budget_is_shared_by_what_is_needed() -> None:
    assert shares({"a": 5, "b": 500, "c": 50, "d": 400}, 255) == {"a": 5, "c": 50, "d": 100, "b": 100}
    assert sum(shares({"a": 10, "b": 20}, 100).values()) == 30
    assert shares({"a": 10}, -1) == {"a": 0}
    for text in ("", "0m", "-3m", "1d", "1e3", "nan"):
        with pytest.raises(ConfigError, match="a duration must be"):
            parse_duration(text)


def test_ties_with_the_best_are_paired_by_user() -> None:
    """Of 400 users with two cases each, `b` loses a little everywhere, and `c` only by noise."""
    import numpy as np

    rng = np.random.default_rng(0)
    a = rng.random(800)
    noise = np.repeat(rng.normal(0, 0.2, 400), 2)
    users = pl.Series("user", np.repeat(np.arange(400), 2))
    tables = {
        name: pl.DataFrame([users, pl.Series("mrr", x)]) for name, x in {"a": a, "b": a - 0.01, "c": a - noise}.items()
    }
    scores = compared(tables, ["mrr"])["mrr"]
    best = max(scores, key=lambda name: scores[name]["mean"])
    assert scores["b"]["mark"] == "worse"
    assert {scores["a"]["mark"], scores["c"]["mark"]} == {"best", "tie"}
    assert scores[best]["p_holm"] is None


@pytest.mark.parametrize("name", comparable())
def test_every_model_has_settings_for_long_and_short_histories(name: str, store: Path) -> None:
    data = SequenceStore.open(store)
    config = suited(name, {"metrics": command.METRICS, "protocol": "full"})(data, None).config
    assert config.model.name == name
    assert config.evaluate.key == "full"
    if config.train.num_epochs != 300:
        assert suited(name, {})(data, 2).config.train.num_epochs == 2


def test_an_error_of_a_training_leaves_the_others(
    ensue: Run, store: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise TrainingError("training stopped: the loss is nan")

    monkeypatch.setattr("ensue.cli.training.fit_shown", broken)
    done = ensue("bench", store, *TOY, "--out", tmp_path / "bench")
    assert (done.status, done.err.count("the loss is nan")) == (1, 3)
