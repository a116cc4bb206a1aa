"""Several ranks are one training: the same weights, decisions and files as one process, and a clear end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import ensue.train.distributed as distributed
from ensue.cli import main
from ensue.cli.launch import _first_cause
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ConfigError, EnsueError
from ensue.files import read_json
from ensue.recommender import Recommender
from ensue.runs.log import read_log
from ensue.train.distributed import World, device_type, join, ranks

SOURCE = str(Path(__file__).parents[2] / "src")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "PYTHONPATH": SOURCE}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    worker = Path(__file__).with_name("distributed_worker.py")
    done = subprocess.run(
        [sys.executable, str(worker), str(tmp_path_factory.mktemp("ranks"))],
        capture_output=True,
        env=ENVIRONMENT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("bce-{}-torch.float32", 2),
        ("bce-{}-torch.float32", 3),
        ("in-batch-{}-torch.float32", 3),
        ("shared-{}-torch.float32", 3),
        ("ce-{}-torch.float32", 2),
        ("bce-{}-torch.float64", 2),
    ],
)
def test_ranks_equal_one_process(report: dict[str, Any], name: str, size: int) -> None:
    """24 steps with clipping, L2 and a schedule; the last batch of an epoch has one row, for two or three ranks."""
    alone, together = report["equality"][name.format(1)], report["equality"][name.format(size)]
    assert together["distance"] < 1e-6
    assert together["same"], "all ranks must have the same weights in every bit"
    (one,) = alone["ranks"]
    assert one["watched"] == 24
    for outcome in together["ranks"]:
        for record, expected in zip(outcome["records"], one["records"], strict=True):
            for key, value in expected.items():
                if key == "compute":
                    continue
                # A norm of float32 gradients sums as many squares as there are weights.
                assert record[key] == pytest.approx(value, rel=1e-5 if "norm" in key else 1e-6)


def test_only_rank_0_shows_and_writes(report: dict[str, Any]) -> None:
    outcomes = report["equality"]["bce-3-torch.float32"]["ranks"]
    assert [(outcome["watched"], outcome["wrote"]) for outcome in outcomes] == [(24, True), (0, False), (0, False)]


def test_two_ranks_resume_in_every_bit(report: dict[str, Any]) -> None:
    result = report["resuming"]["dropout"]
    assert result["ended"][0] == {"ended": "interrupted"}
    assert "rank 1 of 2 lost the connection to another rank" in result["ended"][1]["ended"]
    assert result["distance"] == 0.0
    assert result["same"]
    assert result["ranks"][0]["watched"] == 24 - 6  # the seventh step was not saved


@pytest.mark.parametrize("name", ["fewer", "more"])
def test_another_number_of_ranks_resumes(report: dict[str, Any], name: str) -> None:
    assert report["resuming"][name]["distance"] < 1e-6
    assert report["resuming"][name]["ranks"][0]["watched"] == 24 - 6


def test_standings_are_gathered_exactly(report: dict[str, Any]) -> None:
    for outcome in report["standings"]:
        assert outcome["same"] == [True, True]
    assert sum(outcome["cases"][0] for outcome in report["standings"]) == report["standings"][0]["all"] == 25


def test_a_loss_that_is_not_finite_on_one_rank_ends_all_with_its_reason(report: dict[str, Any]) -> None:
    for outcome in report["not_finite"]:
        assert outcome["message"].startswith("training stopped: the loss is nan at epoch 1, step 3")
        assert outcome["step"] == 2  # saved by rank 0 before any rank raised


def test_an_overflow_on_one_rank_skips_the_step_on_all(report: dict[str, Any]) -> None:
    for outcome in report["overflow"]:
        assert outcome["scale"] == outcome["initial"] / 2
        assert outcome["steps"] == [23]
    assert report["overflow_same"]


def test_a_lost_rank_is_an_error_that_says_what_to_do(report: dict[str, Any]) -> None:
    survivor, gone = report["lost"]
    assert gone is None
    assert survivor["kind"] == "LostRankError"
    assert "rank 0 of 2 lost the connection to another rank" in survivor["message"]
    assert "the same command resumes" in survivor["message"]
    assert survivor["step"] == 2


def test_ranks_with_other_settings_are_refused(report: dict[str, Any]) -> None:
    assert "train.lr: 0.02 now, 0.01 then" in report["other_settings"][1]["message"]
    assert report["other_settings"][0]["kind"] == "LostRankError"


# One process.


def test_a_process_alone_is_a_world_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = join("cpu")
    assert world == World(0, 1, torch.device("cpu"))
    assert ranks() == (0, 1)
    values = torch.arange(3.0)
    assert world.sum(values) is values
    assert world.broadcast(values) is values
    assert world.broadcast_json({"a": None}) == {"a": None}
    assert world.on_main(lambda: 7) == 7
    assert world.is_main
    assert not torch.distributed.is_initialized()


def test_a_device_for_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_type("auto", 2) == device_type("cuda", 2) == "cuda"
    assert device_type("cpu", 5) == "cpu"
    with pytest.raises(ConfigError, match="3 ranks need a CUDA device each, but this machine has 2"):
        device_type("auto", 3)
    with pytest.raises(ConfigError, match="'cuda:1' cannot be shared"):
        device_type("cuda:1", 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device_type("auto", 8) == "cpu"


def test_a_failure_of_rank_0_reaches_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rank 0 broadcasts is what rank 1 raises."""
    said: list[Any] = []
    monkeypatch.setattr(World, "broadcast_json", lambda self, value: said.append(value) or said[0])

    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        World(0, 2, distributed.CPU).on_main(fail)
    with pytest.raises(EnsueError, match="rank 0 failed: OSError: disk full"):
        World(1, 2, distributed.CPU).on_main(lambda: None)


# The command line.

SETTINGS = [
    *("--maxlen", "6", "--hidden-units", "8", "--num-blocks", "1", "--dropout-rate", "0", "--batch-size", "16"),
    *("--device", "cpu", "--patience", "0", "--eval-epochs", "50", "--checkpoint-minutes", "0"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "store"
    ordered_sequences(num_users=40, num_items=15, length=8).save(folder)
    return folder


def train_words(store: Path, out: Path, epochs: int, *more: str) -> list[str]:
    return ["train", str(store), "--out", str(out), *SETTINGS, "--num-epochs", str(epochs), *more]


def rank_process(parent: int, rank: int) -> int:
    """The process number of a rank that `parent` started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, environment = (folder / "stat").read_text(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if int(status.rpartition(")")[2].split()[1]) == parent and f"RANK={rank}".encode() in environment.split(b"\0"):
            return int(folder.name)
    raise AssertionError(f"no rank {rank} among the children of {parent}")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the rank in /proc")
def test_a_killed_rank_ends_the_command_and_the_same_command_resumes(store: Path, tmp_path: Path) -> None:
    """Started with --devices, resumed by the same words under torchrun."""
    words = train_words(store, tmp_path / "run", 60)
    with subprocess.Popen(
        [sys.executable, "-m", "ensue", *words, "--devices", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines: Iterator[str] = iter(process.stdout.readline, "")
        assert any(line.startswith("epoch 3/60") for line in lines), process.stderr.read()
        os.kill(rank_process(process.pid, 1), signal.SIGKILL)
        _, message = process.communicate(timeout=300)
    assert process.returncode == 1
    assert message.startswith("ensue: rank 1 of 2 was killed by SIGKILL")
    assert "the same command resumes" in message
    assert len(message.splitlines()) == 1
    assert 3 <= len(read_log(tmp_path / "run" / "log.jsonl")) < 60
    assert not (tmp_path / "run" / "manifest.json").exists()

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ensue"]
    done = subprocess.run(
        [*torchrun, *words, "--json"], capture_output=True, env=ENVIRONMENT, timeout=300, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 60  # one object, from rank 0 alone
    assert done.stderr.count("resuming from the checkpoint") == 1
    assert [record["epoch"] for record in read_log(tmp_path / "run" / "log.jsonl")] == list(range(1, 61))
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    assert read_json(newest / "state.json")["progress"]["finished"]


def test_devices_give_the_run_of_one_process(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert main([*train_words(store, tmp_path / "two", 2), "--devices", "2", "--json"]) == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    two = json.loads(capsys.readouterr().out)
    assert main([*train_words(store, tmp_path / "one", 2), "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert two["trained"]
    assert two["files"] == one["files"]
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
    assert two["validation"] == pytest.approx(one["validation"], rel=1e-6)
    history = [3, 4, 5]
    scores = [
        [entry.score for entry in Recommender.load(tmp_path / name).recommend(history)] for name in ("one", "two")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    # Asked again, also by one process, it is there.
    assert main([*train_words(store, tmp_path / "two", 2), "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["trained"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model", "markov"], "is fitted by counting, in one process"),
        (["--device", "mps"], "device 'mps'"),
        (["--devices", "0"], "--devices"),
    ],
)
def test_what_ranks_cannot_do_is_said_before_they_start(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    words = ["train", str(store), "--out", str(tmp_path / "run"), "--devices", "2", *more]
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


TERMINATED = (-signal.SIGTERM, "Signal 15 (SIGTERM) received by PID 7")
LOST = (1, {"message": "TrainingError: rank 1 of 3 lost the connection to another rank", "extraInfo": {}})
REASON = (1, {"message": "TrainingError: training stopped: the loss is nan", "extraInfo": {}})
BUG = (1, {"message": "RuntimeError: out of memory", "extraInfo": {"py_callstack": "File x, line 3"}})


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        ([TERMINATED, LOST, (-signal.SIGKILL, "Signal 9")], "rank 2 of 3 was killed by SIGKILL"),
        ([LOST, TERMINATED, REASON], "rank 2 of 3: training stopped: the loss is nan"),
        ([LOST, BUG], "rank 1 of 3 failed with RuntimeError: out of memory. The others were ended; the same command"),
        ([LOST, (4, "To enable traceback see")], "rank 1 of 3 ended with status 4. The others were ended"),
        ([TERMINATED, LOST], "rank 1 of 3 lost the connection to another rank"),
    ],
)
def test_the_first_cause_is_reported(failures: list[tuple[int, Any]], said: str) -> None:
    result = {
        rank: SimpleNamespace(exitcode=code, message=message, signal_name=lambda code=code: signal.Signals(-code).name)
        for rank, (code, message) in enumerate(failures)
    }
    assert str(_first_cause(result, 3)).startswith(said)
