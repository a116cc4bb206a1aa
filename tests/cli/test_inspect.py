"""`ensue inspect`: files, tables, JSON, and what it says when it cannot."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ensue.cli.inspect import span

from .conftest import SMALL, Run


def test_inspect_writes_and_shows(ensue: Run, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("--model", "tisasrec", "--residual", "mhc", "--num-heads", 2)
    assert ensue("train", store, *words, "--out", run, *SMALL).status == 0
    done = ensue("inspect", run, "--users", 30)
    assert done.status == 0
    assert done.out.splitlines()[-1].startswith(f"next: ensue recommend {run} --user ")
    for heading in ("residual stream", "H_res: gain", "attention of the newest event", "attention by interval"):
        assert heading in done.out
    assert (run / "inspect" / "mixing.png").stat().st_size > 1000
    report = json.loads((run / "inspect" / "inspect.json").read_text())
    assert (report["residual"], report["histories"]) == ("mhc", 30)
    assert len(report["gains"]["sublayers"]) == 2
    # The run is whole as before.
    assert ensue(*done.out.splitlines()[-1].split()[2:]).status == 0
    assert ensue("inspect", run, "--users", 30).status == 0


def test_inspect_distinguishes_padding_from_events(ensue: Run, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("--model", "tisasrec-padded", "--time-unit", 3600, *SMALL, "--maxlen", 40)
    assert ensue("train", store, *words, "--out", run).status == 0
    done = ensue("inspect", run, "--users", 30)
    assert done.status == 0
    ages, intervals = done.out.split("attention of the newest event")[1].split("attention by interval")
    assert "padding" in ages
    assert re.search(r"padding +\d", intervals)
    report = json.loads((run / "inspect" / "inspect.json").read_text())
    assert (report["time"]["unit"], report["time"]["edges"][1]) == ("seconds", 3600)
    assert report["gains"]["events"] < 30 * 40


def test_inspect_prints_one_object(ensue: Run, trained: Path, store: Path) -> None:
    payload = ensue("inspect", trained, "--data", store, "--users", 5, "--json").json
    assert payload["model"] == "sasrec"
    assert payload["time"] is None
    assert payload["gains"]["sublayers"][0]["mixing"] is None
    assert len(payload["example"]["items"]) == len(payload["example"]["titles"])
    assert all(Path(path).is_file() for path in payload["files"])


def test_inspect_refuses_what_it_cannot_look_into(ensue: Run, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "popular"
    assert ensue("train", store, "--model", "popularity", "--out", run).status == 0
    done = ensue("inspect", run)
    assert done.status == 2
    assert "has no transformer blocks" in done.err
    assert not (run / "inspect").exists()
    assert ensue("inspect", tmp_path / "nothing").status == 1


def test_inspect_needs_the_runs_own_data(ensue: Run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\n" + "".join(f"{user},{item}\n" for user in "ab" for item in "xyzw"))
    done = ensue("inspect", trained, "--data", tmp_path / "log.csv")
    assert done.status == 1
    assert "item numbers would differ" in done.err


def test_intervals_are_readable() -> None:
    assert span(0.0, "seconds") == "0 s"
    assert span(90.0, "seconds") == "1.5 min"
    assert span(172_800.0, "seconds") == "2 d"
    assert span(256.0, "smallest gaps") == "256 smallest gaps"
