"""The command at the end of a command's output works as it stands."""

from __future__ import annotations

import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from ensue.cli import hints
from ensue.terminal.output import Screen

from .conftest import SMALL, Outcome, Run

TIMED = ("--model", "tisasrec", "--relation", "bias", "--buckets", "log", "--query-time")


def next_words(done: Outcome) -> list[str]:
    """The words of the last line, which must be a command."""
    assert done.status == 0, done.err
    line = done.out.splitlines()[-1].removeprefix("# ")
    assert line.startswith("next: ensue ")
    return shlex.split(line)[2:]


@pytest.fixture
def odd_log(csv_log: Path, tmp_path: Path) -> Path:
    """The log under a name with a blank, its columns with names of their own, its users' ids with blanks."""
    path = tmp_path / "my log.csv"
    user = "reader " + pl.col("userId").cast(pl.String)
    names = {"movieId": "thing", "timestamp": "when"}
    pl.read_csv(csv_log).select(user.alias("person"), "movieId", "timestamp").rename(names).write_csv(path)
    return path


def test_words_are_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().next("ensue evaluate", Path("my run"), "--user", 7, "--history", "")
    assert capsys.readouterr().out.splitlines()[-1] == "next: ensue evaluate 'my run' --user 7 --history ''"


def test_words_of_every_suggestion_come_last(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(words=("--model-module", "my models.py")).next("ensue evaluate", Path("run"))
    assert capsys.readouterr().out.splitlines()[-1] == "next: ensue evaluate run --model-module 'my models.py'"


def test_a_log_without_any_order_goes_on_with_what_is_popular(
    ensue: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("user,item,time\na,x,1\nb,x,2\n")
    done = ensue("prepare", "log.csv", "--user", "user", "--item", "item", "--time", "time", "--out", "data")
    assert "no user has two events" in done.out
    done = ensue(*next_words(done))
    assert next_words(done)[0] == "recommend"
    assert "x" in ensue(*next_words(done)).out


def test_from_a_log_with_columns_of_its_own_to_a_recommendation(
    ensue: Run, odd_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    columns = ("--user", "person", "--item", "thing", "--time", "when")
    done = ensue("data", "check", odd_log, *columns, "--split", "global-time")
    assert next_words(done) == ["prepare", str(odd_log), *columns, "--out", "data/my log"]
    done = ensue(*next_words(done))
    assert next_words(done)[:2] == ["train", "data/my log"]
    done = ensue(*next_words(done), *SMALL)
    for step in ("evaluate", "recommend", "similar", "recommend", "similar"):
        words = next_words(done)
        assert words[0] == step
        done = ensue(*words)
    assert done.status == 0


def test_the_split_that_was_looked_at_is_the_one_to_train_with(ensue: Run, store: Path) -> None:
    words = next_words(ensue("data", "check", store, "--split", "global-time", "--test-fraction", 0.2))
    given = list(pairwise(words))
    assert ("--split", "global-time") in given
    assert ("--test-fraction", "0.2") in given


def test_suggestions_name_the_data_of_a_log_in_memory(ensue: Run, csv_log: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ensue("train", csv_log, *TIMED, "--out", run, *SMALL).status == 0
    for done in (ensue("evaluate", run, "--data", csv_log), ensue("inspect", run, "--data", csv_log, "--users", 5)):
        words = next_words(done)
        assert words[:2] == ["recommend", str(run)]
        assert words[words.index("--data") + 1] == str(csv_log)
        assert "--at" in words
        used = ensue(*words)
        after = ensue(*next_words(used))
        assert next_words(used)[0] == "similar"
        assert ensue(*next_words(after)).status == 0


def test_compare_and_models_without_vectors(ensue: Run, store: Path, tmp_path: Path) -> None:
    runs = [tmp_path / "a b", tmp_path / "c"]
    for run, model in zip(runs, ("markov", "popularity"), strict=True):
        assert ensue("train", store, "--model", model, "--out", run).status == 0
        assert ensue("evaluate", run).status == 0
    done = ensue("compare", *runs)
    used = ensue(*next_words(done))
    assert next_words(done)[:2] == ["recommend", str(runs[0])]
    assert ensue(*next_words(used)).status == 0


def test_presets_print_a_next_line_that_is_a_comment(ensue: Run) -> None:
    assert next_words(ensue("presets", "sasrec-ce"))[:4] == ["train", "data/ml-1m", "--preset", "sasrec-ce"]


def test_after_one_item_of_a_model_that_reads_times() -> None:
    from ensue.models import model_config

    plain, timed, asked, order = (
        model_config({"name": "sasrec"}),
        model_config({"name": "tisasrec"}),
        model_config({"name": "tisasrec", "query_time": True}),
        model_config({"name": "tisasrec", "time": "order"}),
    )
    for model in (plain, order):
        assert hints.recommend_after_item(Path("run"), model, "a,b")[2:] == ["--history", '"a,b"']
    assert hints.recommend_after_item(Path("run"), timed, 1)[2:] == ["--history", "1", "--times", 0]
    assert hints.recommend_after_item(Path("run"), asked, 1)[4:] == ["--times", 0, "--at", 0]


def test_compare_suggests_how_to_create_a_missing_evaluation(ensue: Run, store: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert ensue("train", store, "--model", "markov", "--out", a).status == 0
    shutil.copytree(a, b)
    for part, protocol in (("test", "full"), ("test", "full-with-seen"), ("validation", "uniform-100")):
        words = ("compare", a, b, "--part", part, "--protocol", protocol)
        for _ in range(2):
            asked = ensue(*words)
            assert asked.status == 1
            command = asked.err.partition("Create it with: ensue ")[2]
            assert ensue(*shlex.split(command)).status == 0
        assert ensue(*words).status == 0
    assert "did you mean 'uniform-100'" in ensue("compare", a, b, "--protocol", "uniform100").err
    assert "Known: full, full-with-seen" in ensue("compare", a, b, "--protocol", "full+query-time").err
