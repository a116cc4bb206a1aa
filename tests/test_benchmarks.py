"""Our side of the benchmarks runs; reports keep what is published, and `make clean` what was computed."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ArtefactError, NotFiniteError, TrainingError
from ensue.files import sha256, write_json
from ensue.runs.config import RunConfig

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "docs" / "results"
FULL = {"hr@10": 0.5, "ndcg@10": 0.25, "hr@10|uni100": 0.75, "ndcg@10|uni100": 0.5}


def script(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> ModuleType:
    """A script of benchmarks/ whose runs and results lie under `folder`."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module(name)
    monkeypatch.setattr(module, "RUNS", folder / "runs")
    monkeypatch.setattr(module, "RESULTS", folder / "results")
    return module


@pytest.fixture
def depth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    return script("depth", monkeypatch, tmp_path)


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    return script("quality", monkeypatch, tmp_path)


def publish(module: ModuleType, name: str) -> Any:
    """Put the published results where the script looks for them, as on a fresh clone; gives them."""
    module.RESULTS.mkdir()
    shutil.copy(PUBLISHED / name, module.RESULTS / name)
    return json.loads((PUBLISHED / name).read_text())


def finish(module: ModuleType, folder: str, seed: int, metrics: dict[str, float], data: str = "here") -> None:
    """The files of a finished run that the report of quality.py reads."""
    path = module.RUNS / folder
    path.mkdir(parents=True)
    (path / "config.toml").write_text(f"[train]\nseed = {seed}\n")
    (path / "log.jsonl").write_text('{"epoch": 1}\n' * 7)
    key, entry = "test/full", {"fingerprint": data, "cases": 10, "metrics": metrics, "per_user": "users.parquet"}
    (path / "users.parquet").touch()
    entry["per_user_sha256"] = sha256(path / "users.parquet")
    entry["sha256"] = hashlib.sha256(json.dumps([key, entry], sort_keys=True).encode()).hexdigest()
    write_json(path / "metrics.json", {key: entry})
    write_json(path / "quality.json", {"data": "small", "preset": "p", "set": {"lr": "0.1"}, "seed": seed})


def publish_three(module: ModuleType) -> None:
    """A published row of seeds 0, 1 and 2."""
    runs = [{"seed": seed, "epochs": 5, "metrics": FULL} for seed in range(3)]
    about = {"data": "small", "preset": "p", "set": "lr=0.1", "fingerprint": "here", "cases": 10}
    write_json(module.RESULTS / "quality.json", [{**about, "runs": runs}])


def test_depth_report_without_runs_gives_the_published_results_again(depth: ModuleType) -> None:
    published = publish(depth, "depth.json")
    depth.report(None)
    assert json.loads((depth.RESULTS / "depth.json").read_text()) == published
    assert (depth.RESULTS / "depth_table.md").read_text() == (PUBLISHED / "depth_table.md").read_text()
    names = {path.name for path in depth.RESULTS.glob("depth-*.svg")}
    assert names == {path.name for path in PUBLISHED.glob("depth-*.svg")}


def test_depth_report_takes_the_run_found_here_and_says_so(
    depth: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(depth, "draw", lambda *_: None)
    published = publish(depth, "depth.json")
    again = {**published[0], "stream_norm": 1.0}
    new = {**published[0], "seed": 99}
    write_json(depth.RUNS / "again" / "depth.json", again)
    write_json(depth.RUNS / "same" / "depth.json", published[1])
    write_json(depth.RUNS / "new" / "depth.json", new)
    depth.report(None)
    results = json.loads((depth.RESULTS / "depth.json").read_text())
    assert len(results) == len(published) + 1
    assert all(run in results for run in [again, new, *published[1:]])
    said = capsys.readouterr().err.splitlines()
    assert said == [f"replaced by the local run: {depth.run_name(again)}"]


@pytest.mark.parametrize("name", ["depth", "quality"])
def test_a_report_of_nothing_writes_nothing(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = script(name, monkeypatch, tmp_path)
    with pytest.raises(SystemExit, match="nothing written: there is no published run"):
        module.report(None)
    assert not module.RESULTS.exists()


def test_only_a_run_that_is_not_finite_is_a_result(depth: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([NotFiniteError("gone"), TrainingError("training stopped by another cause")])

    def fit(*_: object) -> None:
        raise next(errors)

    monkeypatch.setattr(depth.Recommender, "from_config", lambda _: SimpleNamespace(fit=fit))
    depth.one(None, {}, depth.RUNS / "a", {"seed": 3})
    assert json.loads((depth.RUNS / "a" / "depth.json").read_text()) == {"seed": 3, "failed": "gone"}
    with pytest.raises(TrainingError, match="another cause"):
        depth.one(None, {}, depth.RUNS / "b", {"seed": 3})
    assert not (depth.RUNS / "b").exists()


def test_quality_runs_what_the_data_chooses(quality: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ordered_sequences(num_users=40)
    monkeypatch.setattr(quality, "open_store", lambda _: store)
    small = ["hidden_units=8", "num_blocks=1", "num_epochs=1"]
    quality.run(SimpleNamespace(data="cycle", preset=None, seeds=[1], set=small, threads=1, sessions=False))
    (folder,) = quality.RUNS.iterdir()
    assert folder.name == "cycle-chosen-hidden_units=8-num_blocks=1-num_epochs=1-seed1"
    assert json.loads((folder / "quality.json").read_text())["preset"] == "chosen"
    config = RunConfig.read_toml(folder / "config.toml")
    assert (config.objective.loss, config.train.seed, config.train.patience) == ("ce", 1, 5)


def test_quality_report_without_runs_gives_the_published_results_again(quality: ModuleType) -> None:
    published = publish(quality, "quality.json")
    quality.report(None)
    assert json.loads((quality.RESULTS / "quality.json").read_text()) == published
    assert (quality.RESULTS / "quality_table.md").read_text() == (PUBLISHED / "quality_table.md").read_text()


def test_quality_report_merges_by_seed(quality: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    publish_three(quality)
    finish(quality, "one", 1, {**FULL, "hr@10": 0.625})
    finish(quality, "three", 3, FULL)
    (quality.RUNS / "unfinished").mkdir()
    quality.report(None)
    (row,) = json.loads((quality.RESULTS / "quality.json").read_text())
    assert row["seeds"] == [0, 1, 2, 3]
    assert row["metrics"]["hr@10"] == [0.5, 0.625, 0.5, 0.5]
    assert [run["epochs"] for run in row["runs"]] == [5, 7, 5, 7]
    assert "| small | p lr=0.1 | 4 | 5/7/5/7 | 0.5312 ± " in (quality.RESULTS / "quality_table.md").read_text()
    said = capsys.readouterr().err.splitlines()
    assert said == ["replaced by the local run: ('small', 'p', 'lr=0.1', 1)"]


def test_quality_report_refuses_what_would_lose_or_mix_runs(quality: ModuleType) -> None:
    publish_three(quality)
    before = (quality.RESULTS / "quality.json").read_text()
    finish(quality, "one", 1, FULL, data="other")
    with pytest.raises(SystemExit, match=r"the seeds of small p lr=0.1 are of different data.*here \(seed 0\)"):
        quality.report(None)
    finish(quality, "one again", 1, FULL)
    with pytest.raises(SystemExit, match=r"one and .*one again are the same settings and seed"):
        quality.report(None)
    (quality.RUNS / "one" / "users.parquet").write_text("altered")
    with pytest.raises(ArtefactError, match="was altered: 'test/full'"):
        quality.report(None)
    assert (quality.RESULTS / "quality.json").read_text() == before


def test_our_runner_times_every_piece(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = np.repeat(np.arange(150), 6)
    (tmp_path / "ml-1m-sasrec").mkdir()
    log = pl.DataFrame({"user_id": users, "item_id": (users + np.tile(np.arange(6), 150)) % 20})
    log.write_parquet(tmp_path / "ml-1m-sasrec" / "interactions.parquet")
    monkeypatch.setenv("ENSUE_DATA", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["ours.py", "--epochs", "2", "--threads", "1"])
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    importlib.import_module("ours").main()
    result = json.loads(capsys.readouterr().out)
    assert result["users"] == 150
    assert {name: len(times) for name, times in result["seconds"].items()} == {
        "epoch": 2,
        "fit": 1,
        "evaluation": 1,
        "top10": 1,
    }
    assert result["hit_rate_10"] == result["hit_rate_10_by_rank"]


def test_a_variant_is_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("variants")
    monkeypatch.setattr(module, "open_store", lambda _: ordered_sequences(num_users=700, num_items=20, length=6))
    values = json.dumps({"residual": "mhc", "maxlen": 8})
    module.one(SimpleNamespace(one=values, data="small", threads=1, steps=2, hidden_units=8))
    result = json.loads(capsys.readouterr().out)
    assert result.keys() == {"epoch", "cpu", "memory", "evaluation"}
    assert all(value > 0 for value in result.values())


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_clean_keeps_runs_and_data(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    stay = [f"build/{name}" for name in ("quality", "depth", "data", "peers")]
    stay += ["runs", "data", ".venv", "src/ensue", "docs/results"]
    go = ["dist", "docs/_build", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"]
    go += [f"{name}/__pycache__" for name in ("src", "tests", "benchmarks", "docs", "python")]
    for folder in [*stay, *go]:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert all((tmp_path / folder / "file").exists() for folder in stay)
    assert not any((tmp_path / folder).exists() for folder in go)
