"""`train --overwrite` and folders that hold something else: what a user has is not lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ensue.data.store import SequenceStore
from ensue.datasets.simulate import ordered_sequences
from ensue.runs.lock import LOCK

from .conftest import SMALL, Run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
@pytest.mark.parametrize("model", ["markov", "sasrec"])
@pytest.mark.parametrize("name", ["checkpoints/epoch3.pt", "config.toml", "log.jsonl"])
def test_a_folder_of_others_is_left_alone(
    ensue: Run, store: Path, tmp_path: Path, name: str, model: str, overwrite: tuple[str, ...]
) -> None:
    mine = tmp_path / "mine" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    small = SMALL if model == "sasrec" else ()
    done = ensue("train", store, "--model", model, *small, "--out", tmp_path / "mine", *overwrite)
    assert done.status == 1
    assert f"ensue did not create {name.split('/')[0]}" in done.err
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [mine]


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--model", "tisasrec", *SMALL), 1),
        (("--split", "session", "--split-feature", "foo"), 1),
        (("--preset", "sasrec-sampled"), 2),
        ((*SMALL, "--split", "global-time"), 1),
    ],
)
def test_a_run_stays_until_the_new_one_can_begin(
    ensue: Run, tmp_path: Path, words: tuple[str, ...], status: int, devices: int
) -> None:
    """The data has no times and 20 items; none of these can train on it."""
    made = ordered_sequences(num_users=30, num_items=20)
    SequenceStore.from_arrays(offsets=made.offsets, items=made.items).save(tmp_path / "data")
    run = tmp_path / "run"
    assert ensue("train", tmp_path / "data", "--model", "markov", "--out", run).status == 0
    before = contents(run)
    done = ensue("train", tmp_path / "data", *words, "--out", run, "--overwrite", "--devices", devices)
    assert (done.status, done.err.count("\n")) == (status, 1)
    assert contents(run) == before


@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_stays_without_tensorboard(
    ensue: Run, store: Path, tmp_path: Path, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ensue("train", store, "--model", "markov", "--out", tmp_path).status == 0
    before = contents(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    done = ensue("train", store, *SMALL, "--out", tmp_path, "--overwrite", "--tensorboard", "--devices", devices)
    assert "TensorBoard is not installed" in done.err
    assert contents(tmp_path) == before


def test_the_data_is_not_overwritten(ensue: Run, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ensue("train", store, "--model", "markov", "--out", run).status == 0
    ordered_sequences().save(run / "store")
    before = contents(tmp_path)
    for data, out in ((run / "store", run), (run / "store", run / "store"), (run / ".." / "run" / "store", run)):
        done = ensue("train", data, "--model", "popularity", "--out", out, "--overwrite")
        assert (done.status, done.out) == (2, "")
        assert "choose another folder for the run" in done.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("devices", [1, 2])
def test_overwrite_replaces_a_run_whole(ensue: Run, store: Path, tmp_path: Path, devices: int) -> None:
    run = tmp_path / "run"
    assert ensue("train", store, *SMALL, "--out", run).status == 0
    assert ensue("evaluate", run).status == 0
    words = ("train", store, *SMALL, "--lr", 0.01, "--out", run, "--devices", devices)
    assert ensue(*words).status == 1
    payload = ensue(*words, "--overwrite", "--json").json
    assert (payload["trained"], payload["epochs"]) == (True, 2)
    assert LOCK not in payload["files"]
    assert not (run / "per_user-test-full.parquet").exists()
    assert "lr = 0.01" in (run / "config.toml").read_text()


def test_another_time_between_checkpoints_is_the_same_command(ensue: Run, store: Path, trained: Path) -> None:
    again = ensue("train", store, "--model", "sasrec", "--out", trained, *SMALL, "--checkpoint-minutes", 7, "--json")
    assert (again.status, again.json["trained"]) == (0, False)


def test_a_second_training_in_a_folder_ends_with_one_line(ensue: Run, store: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ensue.runs.swap import claimed\n"
        "with claimed(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for words in (SMALL, ("--model", "markov"), (*SMALL, "--overwrite"), (*SMALL, "--devices", "2")):
            done = ensue("train", store, *words, "--out", tmp_path / "run")
            assert (done.status, done.err.count("\n")) == (1, 1)
            assert "another training writes here" in done.err
        holder.communicate()
    assert ensue("train", store, "--model", "markov", "--out", tmp_path / "run").status == 0
