"""--state_dict_path: training from given weights, which the run names, and settings that they must fit."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from ensue.classic import main
from ensue.classic.data import read_data
from ensue.cli import main as ensue
from ensue.recommender import Recommender
from ensue.runs.log import read_log

from .conftest import LINE, SMALL, Save, lines_of, sasrec_state, tisasrec_state


def test_training_starts_from_a_pth_file(at: Path, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(sasrec_state(False), "SASRec.epoch=3.head=2.pth")
    lines = lines_of(
        capsys, "--dataset=plain", "--train_dir=x", "--device=cpu", "--num_epochs=5", f"--state_dict_path={path}"
    )
    assert [line.split(",")[0] for line in lines if LINE.fullmatch(line)] == ["epoch:4", "epoch:5"]
    assert Recommender.load(at / "plain_x").recommend([1, 2], k=1).ids


def test_a_run_names_the_weights_that_it_started_from(at: Path, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(sasrec_state(False), "SASRec.epoch=3.head=2.pth")
    started = hashlib.sha256(path.read_bytes()).hexdigest()
    line = ["--dataset=plain", "--train_dir=x", "--device=cpu", "--num_epochs=4", f"--state_dict_path={path}"]
    lines_of(capsys, *line)
    lines = f"- Training started from the weights of `{path.name}`, SHA-256 `{started}`"
    for again in (True, False):
        records = read_log(at / "plain_x" / "log.jsonl")
        assert records[0] == {"started from": path.name, "sha256": started}
        assert [record.get("epoch") for record in records] == [None, 4]
        card = (at / "plain_x" / "card.md").read_text().splitlines()
        assert lines in card
        assert any(line.startswith("- Epochs trained: 1;") for line in card)
        # The same line goes on from the checkpoint of a run that was not written yet.
        if again:
            (at / "plain_x" / "manifest.json").unlink()
            assert "resuming from the checkpoint in plain_x" in lines_of(capsys, *line)
    assert ensue(["evaluate", "plain_x"]) == 0
    assert lines in (at / "plain_x" / "card.md").read_text().splitlines()


@pytest.mark.parametrize("finished_alone", [False, True])
def test_other_first_weights_are_refused(
    at: Path, save: Save, capsys: pytest.CaptureFixture[str], finished_alone: bool
) -> None:
    line = ["--dataset=plain", "--train_dir=x", "--device=cpu", "--num_epochs=1"]
    one = save(sasrec_state(False), "one.pth")
    two = save({name: 2 * tensor for name, tensor in sasrec_state(False).items()}, "two.pth")
    lines_of(capsys, *line, f"--state_dict_path={one}")
    if finished_alone:
        shutil.rmtree(at / "plain_x" / "checkpoints")
    before = (at / "plain_x" / "model.safetensors").read_bytes()
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in (one, two))
    assert main([*line, f"--state_dict_path={two}"]) == 1
    lines = capsys.readouterr()
    assert (
        f"plain_x contains a run that started from one.pth (SHA-256 {first}...); this one would start from two.pth "
        f"(SHA-256 {second}...)"
    ) in lines.err
    assert "goes on" not in lines.out
    assert (at / "plain_x" / "model.safetensors").read_bytes() == before
    # The same file under another name is the same.
    lines_of(capsys, *line, f"--state_dict_path={shutil.copy(one, at / 'three.pth')}")


def test_given_weights_and_none_are_not_the_same(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--dataset=plain", "--device=cpu", *SMALL[:-2], "--num_epochs=1"]
    for name in ("x", "y"):
        lines_of(capsys, *line, f"--train_dir={name}")
    assert main([*line, "--train_dir=x", "--state_dict_path=plain_y"]) == 1
    lines = capsys.readouterr().err
    assert "started from random weights; this one would start from plain_y/model.safetensors (SHA-256 " in lines


def test_a_file_that_is_trained_enough_is_refused(at: Path, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(sasrec_state(False), "SASRec.epoch=3.head=2.pth")
    for epochs in (2, 3):
        line = ["--dataset=plain", "--train_dir=x", "--device=cpu", f"--state_dict_path={path}"]
        assert main([*line, f"--num_epochs={epochs}"]) == 2
        lines = capsys.readouterr().err
        assert lines == f"main.py: {path} is already at epoch 3: --num_epochs must be larger (got {epochs})\n"
    assert not (at / "plain_x").exists()


def test_a_model_that_reads_the_requests_time_names_its_protocol(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, _ = read_data("timed")
    store.save(at / "store")
    settings = {"model": "tisasrec", "query_time": True, "hidden_units": 8, "maxlen": 10, "num_epochs": 1}
    Recommender(**settings).fit(at / "store", folder=at / "asked")  # type: ignore[arg-type]
    line = ["--dataset=timed", "--train_dir=x", "--device=cpu", "--state_dict_path=asked"]
    lines = lines_of(capsys, *line, "--inference_only")
    assert re.fullmatch(r"test uniform-100\+query-time \(NDCG@10: 0\.\d{4}, HR@10: [01]\.\d{4}\)", lines[-1])
    lines = lines_of(capsys, *line, "--num_epochs=1")
    for shown in (lines[-3], lines[-2]):
        assert "valid uniform-100+query-time (NDCG@10: " in shown
        assert "test uniform-100+query-time (NDCG@10: " in shown
    assert "test/uniform-100+query-time" in json.loads((at / "timed_x" / "metrics.json").read_text())


def test_a_unit_of_time_that_cannot_be_is_refused(at: Path, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tisasrec_state(), "TiSASRec.head=2.pth")
    line = ["--dataset=timed", "--train_dir=x", "--device=cpu", f"--state_dict_path={path}"]
    assert main([*line, "--inference_only", "--time_unit=60"]) == 2
    lines = capsys.readouterr().err
    assert f"--inference_only of {path} measures intervals in each user's smallest gap" in lines
    assert "(got --time_unit=60)" in lines
    lines = lines_of(capsys, *line, "--inference_only", "--time_unit=0")
    assert "time_unit 0;" in lines[0]
    assert "time_unit 60;" in lines_of(capsys, *line, "--num_epochs=1", "--time_unit=60")[0]


def test_a_run_names_the_run_that_it_started_from(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--dataset=plain", "--device=cpu", *SMALL[:-2], "--num_epochs=1"]
    lines_of(capsys, *line, "--train_dir=x")
    assert "started from" not in (at / "plain_x" / "log.jsonl").read_text() + (at / "plain_x" / "card.md").read_text()
    lines_of(capsys, *line, "--train_dir=y", "--state_dict_path=plain_x")
    weights = hashlib.sha256((at / "plain_x" / "model.safetensors").read_bytes()).hexdigest()
    assert f"`plain_x/model.safetensors`, SHA-256 `{weights}`" in (at / "plain_y" / "card.md").read_text()
