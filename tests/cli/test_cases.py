"""Faults that were found in use: a full disk, what a kill leaves, values that cannot be, altered data."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ensue.data.replacing import check_target
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ArtefactError

from .conftest import SMALL, Run


@pytest.fixture(name="counted")
def _counted(ensue: Run, store: Path, tmp_path: Path) -> Path:
    assert ensue("train", store, "--model", "popularity", "--out", tmp_path / "run").status == 0
    return tmp_path / "run"


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_full_disk_is_one_line(counted: Path, tmp_path: Path, ending: str) -> None:
    """A limit on the size of files stands in for it."""
    code = (
        "import resource, sys; from ensue.cli import leave, main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048)); leave(main(sys.argv[1:]))"
    )
    words = ["recommend", str(counted), "--all", "-k", "40", "--out", str(tmp_path / f"o.{ending}")]
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert f"o.{ending}" in done.stderr
    assert not list(tmp_path.glob(".o*"))


def test_what_a_kill_left_goes_with_the_next_command(ensue: Run, store: Path, csv_log: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ensue("train", store, "--model", "popularity", "--out", run).status == 0
    for name in (".o.csv.99999999.tmp", "run/.model.safetensors.99999999.tmp", "run/.tmpAb3dEf"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".p.0123456789abcdef.new").mkdir()
    assert ensue("prepare", csv_log, "--out", tmp_path / "p").status == 0
    assert ensue("recommend", run, "--all", "--out", tmp_path / "o.csv").status == 0
    assert ensue("evaluate", run).status == 0
    left = [path.name for path in tmp_path.rglob(".*") if path.name != ".ensue.lock"]
    assert left == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--device", "xla"), "unknown device 'xla'"),
        (("--device", "meta"), "unknown device 'meta'"),
        (("--batch-parts", 1_000_000), "batch_parts 1000000 must not exceed batch_size"),
        (("--config", "name.toml"), "5"),
    ],
)
def test_values_that_cannot_be_are_one_line(
    ensue: Run, store: Path, tmp_path: Path, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "name.toml").write_text("[model]\nname = 5\n")
    small = () if "--config" in words else SMALL
    done = ensue("train", store, "--out", tmp_path / "run", *small, *words)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert message in done.err


def test_data_that_a_history_does_not_need_is_refused(ensue: Run, counted: Path) -> None:
    done = ensue("recommend", counted, "--history", "1", "--data", "nope")
    assert (done.status, "omit --data" in done.err) == (2, True)


def test_an_altered_large_array_is_found_before_it_answers(ensue: Run, tmp_path: Path) -> None:
    ordered_sequences(num_users=6600, num_items=50, length=40).save(tmp_path / "store")
    assert ensue("train", tmp_path / "store", "--model", "popularity", "--out", tmp_path / "run").status == 0
    content = bytearray((tmp_path / "store" / "items.npy").read_bytes())
    content[128] ^= 1
    (tmp_path / "store" / "items.npy").write_bytes(content)
    done = ensue("recommend", tmp_path / "run", "--user", 1)
    assert (done.status, "items.npy: altered" in done.err) == (1, True)


def test_files_have_the_permissions_of_the_umask(ensue: Run, store: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        words = ("--checkpoint-minutes", 0, "--out", tmp_path / "run")
        assert ensue("train", store, "--model", "sasrec", *SMALL, *words).status == 0
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert modes == {0o640}


def test_a_mount_point_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path)
    with pytest.raises(ArtefactError, match="is a mount point, which cannot be replaced"):
        check_target(tmp_path, overwrite=True)
