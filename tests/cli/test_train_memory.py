"""What does not fit into memory is one line that says what to lower, before or after it is tried."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ensue.errors import TrainingError
from ensue.files import MANIFEST, read_json, sha256, write_json
from ensue.terminal.memory import explain_memory_errors

from .conftest import SMALL, Run

# As torch and numpy say it.
CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "200000000000 bytes. Error code 12 (Cannot allocate memory)"
)
GPU = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 15.77 GiB"
ARRAY = "Unable to allocate 7.28 TiB for an array with shape (1000000000000,) and data type int64"


@pytest.fixture
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 GiB, whatever this one has."""
    monkeypatch.setattr("ensue.models.size.memory", lambda: 16 << 30)


@pytest.mark.usefixtures("sixteen")
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("flag", ["maxlen", "hidden-units", "num-blocks"])
def test_too_large_a_model_is_refused(ensue: Run, store: Path, tmp_path: Path, flag: str, devices: int) -> None:
    done = ensue("train", store, "--out", tmp_path / "run", f"--{flag}", 10**9, "--devices", devices)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert f"are available: lower {flag.replace('-', '_')} (got 1000000000)" in done.err
    assert not (tmp_path / "run" / MANIFEST).exists()


@pytest.mark.usefixtures("sixteen")
def test_a_run_stays_when_the_new_one_is_too_large(ensue: Run, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ensue("train", store, "--model", "markov", "--out", run).status == 0
    done = ensue("train", store, "--maxlen", 10**9, "--out", run, "--overwrite")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert ensue("recommend", run, "--history", 3).status == 0


@pytest.mark.usefixtures("sixteen")
@pytest.mark.parametrize(
    "words", [("recommend", "--history", 3), ("evaluate",), ("inspect",), ("similar", "--item", 3)]
)
def test_a_run_whose_file_cannot_hold_its_model_is_refused(
    ensue: Run, trained: Path, tmp_path: Path, words: tuple[object, ...]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    text = (run / "config.toml").read_text()
    assert "maxlen = 10\n" in text
    (run / "config.toml").write_text(text.replace("maxlen = 10\n", "maxlen = 1000000000\n"))
    about = read_json(run / MANIFEST)
    about["sha256"]["config.toml"] = sha256(run / "config.toml")
    write_json(run / MANIFEST, about)
    done = ensue(words[0], run, *words[1:])
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "cannot hold the configured model" in done.err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError(CPU), "memory ran out (200000000000 bytes more were requested): "),
        (RuntimeError(GPU), "memory ran out (20.00 GiB more were requested): "),
        (MemoryError(ARRAY), "memory ran out (7.28 TiB more were requested): "),
        (MemoryError(), "memory ran out: "),
        (RuntimeError("std::bad_alloc"), "memory ran out: "),
    ],
)
def test_memory_that_runs_out_in_training_is_one_line(
    ensue: Run, store: Path, tmp_path: Path, error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ensue.train.fit.fit", fail)
    done = ensue("train", store, *SMALL, "--out", tmp_path / "run")
    assert done.status == 1
    assert done.err == f"ensue: {message}raise --batch-parts, or lower --batch-size or --maxlen\n"


def test_other_errors_pass() -> None:
    for error in (RuntimeError("shapes do not match"), ValueError("out of memory"), TrainingError("loss")):
        with pytest.raises(type(error), match=str(error)), explain_memory_errors("nothing"):
            raise error
