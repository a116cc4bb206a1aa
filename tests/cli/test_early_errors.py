"""What would fail after the work is told before it, and what a command leaves undone is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from ensue.datasets.simulate import ordered_sequences
from ensue.files import read_json, write_json
from ensue.runs.lock import locked
from ensue.runs.swap import claimed

from .conftest import Run

SMALL = ("--hidden-units", 8, "--num-blocks", 1, "--maxlen", 10, "--device", "cpu")


@pytest.fixture
def counted(ensue: Run, store: Path, tmp_path: Path) -> Path:
    assert ensue("train", store, "--model", "popularity", "--out", tmp_path / "run").status == 0
    return tmp_path / "run"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Another thread writes to the folder."""
    taken, done = Event(), Event()

    def write() -> None:
        with locked(folder):
            taken.set()
            done.wait()

    thread = Thread(target=write)
    thread.start()
    assert taken.wait(timeout=60)
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_an_evaluation_that_cannot_be_written_is_refused_before_it(
    ensue: Run, counted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensue.recommender.evaluate", lambda *_: pytest.fail("evaluated"))
    monkeypatch.setattr("ensue.runs.evaluations.PATIENCE", 0.0)
    with held(counted):
        done = ensue("evaluate", counted)
    assert (done.status, "another training writes here" in done.err) == (1, True)
    monkeypatch.setattr("os.access", lambda _, mode: mode != os.W_OK)
    done = ensue("evaluate", counted)
    assert (done.status, "is not writable" in done.err) == (1, True)
    monkeypatch.undo()
    assert ensue("evaluate", counted).status == 0


def test_a_file_that_cannot_be_written_is_refused_before_the_work(ensue: Run, counted: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("years of work")
    done = ensue("recommend", counted, "--all", "--out", tmp_path / "file" / "all.csv")
    assert done.status == 1
    assert f"{tmp_path / 'file'} is not a folder" in " ".join(done.err.split())


def test_no_validation_case_is_said(ensue: Run, tmp_path: Path) -> None:
    ordered_sequences(num_users=30, num_items=20, length=6).save(tmp_path / "store")
    words = (
        "train",
        tmp_path / "store",
        *SMALL,
        "--num-epochs",
        1,
        "--split",
        "user-holdout",
        "--validation-fraction",
        0,
    )
    done = ensue(*words, "--out", tmp_path / "run")
    assert done.status == 0
    assert "no validation cases" in done.out
    assert "Epochs trained: 1; the last state is kept" in (tmp_path / "run" / "card.md").read_text()


def test_where_nothing_can_be_evaluated_the_next_command_is_another(ensue: Run, tmp_path: Path) -> None:
    ordered_sequences(num_users=30, num_items=20, length=2).save(tmp_path / "store")
    done = ensue("train", tmp_path / "store", *SMALL, "--num-epochs", 1, "--out", tmp_path / "run")
    assert done.status == 0
    assert "ensue evaluate" not in done.out
    assert "ensue recommend" in done.out.splitlines()[-1]
    assert "nothing to evaluate" in ensue("evaluate", tmp_path / "run").err


def test_a_run_that_was_begun_is_distinguished_from_no_run(ensue: Run, tmp_path: Path) -> None:
    with claimed(tmp_path / "begun"):
        pass
    assert "has not finished" in ensue("recommend", tmp_path / "begun", "--history", 3).err
    (tmp_path / "empty").mkdir()
    assert "manifest.json: missing" in ensue("recommend", tmp_path / "empty", "--history", 3).err


def test_an_altered_evaluation_is_distinguished_from_none(ensue: Run, counted: Path) -> None:
    assert "was not evaluated" in ensue("compare", counted, counted).err
    assert ensue("evaluate", counted).status == 0
    results = read_json(counted / "metrics.json")
    results["test/full"]["metrics"]["ndcg@10"] = 0.99
    write_json(counted / "metrics.json", results)
    assert "metrics.json: was altered: 'test/full'" in ensue("compare", counted, counted).err
