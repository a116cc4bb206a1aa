"""The demo end to end, in a small size."""

from __future__ import annotations

import shlex
from pathlib import Path

from ensue.cli.demo import ABOUT, README

from .conftest import Run

SIZE = ("--users", 150, "--epochs", 2)


def test_the_demo_runs_and_runs_again(ensue: Run, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    first = ensue("demo", "--out", out, *SIZE, "--json")
    assert first.status == 0
    means = {name: values["ndcg@10"] for name, values in first.json["metrics"].items()}
    assert means["popularity"] < means["markov"] < means["best"]
    assert max(means.values()) == means["best"]
    assert first.json["example"]["next"] not in first.json["example"]["history"]
    again = ensue("demo", "--out", out, *SIZE)
    assert "sasrec: already trained" in again.out
    assert f"{means['best']:.4f}" in again.out
    *_, recommend, _, serve, _, report = again.out.splitlines()
    assert recommend.startswith(f"next: ensue recommend {out / 'runs' / 'sasrec'} --history ")
    assert serve == f"next: ensue serve {out / 'runs' / 'sasrec'}"
    assert ensue(*shlex.split(report.removeprefix("next: ensue "))).status == 0
    assert (out / "report.html").is_file()
    other = ensue("demo", "--out", out, "--users", 160, "--epochs", 1)
    assert other.status == 0
    assert "training sasrec again" in other.out


def test_the_demo_keeps_other_folders(ensue: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = ensue("demo", "--out", tmp_path)
    assert done.status == 1
    assert "was not created by ensue demo" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_readme_does_not_make_a_folder_the_demos(ensue: Run, tmp_path: Path) -> None:
    for text in (b"years of work", b"\xff" * len(ABOUT), b""):
        (tmp_path / README).write_bytes(text)
        done = ensue("demo", "--out", tmp_path)
        assert done.status == 1
        assert "was not created by ensue demo" in done.err
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(README, text)]
